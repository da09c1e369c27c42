"""Acknowledgements that are replicated: CPU, rate, latency; and what a replica costs at rest.

An acknowledgement here is in the journal with fsync, in the Redis primary by a script, and in one
of its replicas (WAIT 1).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from bench import daemon
from bench.stack import Stack, stack, status
from devnet import load
from devnet.batcher import Batcher
from devnet.operator import Seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.figures import Figures
    from devnet.replicas import Replica

PACED_BATCHES = 30
OPEN_BATCHES = 100
SETTLE_SECONDS = 1.0
IDLE_SECONDS = 20.0
BACKEND = "arkworks"


async def closed(operators: int, batches: int) -> Figures:
    """One process without Redis, one replica, three replicas: as fast as it goes.

    In one run, one after the other, so that they can be compared.
    """
    alone = await daemon.closed(operators, batches, BACKEND)
    figures = {f"no Redis: {name}": value for name, value in alone.items()}
    for count, name in ((1, "one replica"), (3, "three replicas")):
        async with stack(operators, count=count) as here:
            measured = await _closed(here, batches)
        figures |= {f"{name}: {what}": value for what, value in measured.items()}
    for name in ("one replica", "three replicas"):
        for what in ("CPU µs each", "per second"):
            figures[f"{name} / no Redis: {what}, times"] = (
                figures[f"{name}: {what}"] / figures[f"no Redis: {what}"]
            )
    return figures


async def _closed(here: Stack, batches: int) -> Figures:
    prepared = load.prepare(here.network.operators, daemon.invented(batches))
    await asyncio.sleep(SETTLE_SECONDS)
    before = here.cpu_seconds()
    reports = await _spread(here, prepared, None)
    spent = {name: value - before[name] for name, value in here.cpu_seconds().items()}
    return _summed(reports, spent)


async def paced(operators: int) -> Figures:
    """A thousand a second, whatever the replies do: at one replica, then over three."""
    figures: Figures = {}
    for count, name in ((1, "one replica"), (3, "three replicas")):
        async with stack(operators, count=count) as here:
            prepared = load.prepare(here.network.operators, daemon.invented(PACED_BATCHES))
            await asyncio.sleep(SETTLE_SECONDS)
            before = here.cpu_seconds()
            reports = await _spread(here, prepared, daemon.PACED_RATE)
            spent = {each: value - before[each] for each, value in here.cpu_seconds().items()}
            measured = _summed(reports, spent)
            latest = max(report.latest_send for report in reports)
        figures |= {f"{name}: {what}": value for what, value in measured.items()}
        figures[f"{name}: latest send ms"] = latest * 1e3
    return figures


async def _spread(
    here: Stack, prepared: Sequence[load.Prepared], rate: float | None
) -> list[load.Report]:
    """Load every replica with its share of the operators, all at once."""
    replicas = here.replicas.all
    async with asyncio.TaskGroup() as loads:
        tasks = [
            loads.create_task(
                load.closed_loop(share, *replica.address, seconds=120)
                if rate is None
                else load.open_loop(share, *replica.address, rate=rate / len(replicas), seconds=120)
            )
            for number, replica in enumerate(replicas)
            for share in [prepared[number :: len(replicas)]]
        ]
    reports = [task.result() for task in tasks]
    for report in reports:
        daemon.check(report)
    return reports


def _summed(reports: Sequence[load.Report], spent: dict[str, float]) -> Figures:
    whole = load.Report(
        accepted=sum(report.accepted for report in reports),
        seconds=max(report.seconds for report in reports),
        latencies=[latency for report in reports for latency in report.latencies],
    )
    each = {name: value / whole.replies * 1e6 for name, value in spent.items()}
    return {
        "CPU µs each": each["replicas"],
        "CPU µs each, Redis servers": each["redis"],
        "CPU µs each, whole stack": sum(each.values()),
        "per second": whole.rate,
        "p50 ms": whole.percentile(50) * 1e3,
        "p99 ms": whole.percentile(99) * 1e3,
    }


async def start(runs: int, operators: int) -> AsyncIterator[Figures]:
    """Start one of three replicas with open batches, with and without its journal."""
    async with stack(operators, overrides={"submission": {"mode": "observe"}}) as here:
        batcher = Batcher(here.network)
        await batcher.deposit(100 * 10**18)
        posted = [await batcher.post() for _ in range(OPEN_BATCHES)]
        seen = [Seen(each.merkle_root, each.sender) for each in posted]
        await _spread(here, load.prepare(here.network.operators, seen), None)
        leader = await here.settled()
        replica = here.standbys(leader)[0]
        for _ in range(runs):
            figures: Figures = {}
            for name, keep in (("own journal", True), ("empty journal", False)):
                await replica.daemon.terminate()
                if not keep:
                    for file in replica.journal.parent.glob(replica.journal.name + "*"):
                        file.unlink()
                measured = await _started(replica, operators)
                figures |= {f"{name}: {what}": value for what, value in measured.items()}
            yield figures


async def _started(replica: Replica, operators: int) -> Figures:
    began = time.perf_counter()
    replica.daemon.start()
    await replica.daemon.ready()
    ready = time.perf_counter() - began
    while not await _holds_all(replica, operators):
        await asyncio.sleep(0.02)
    merged = time.perf_counter() - began
    cpu = replica.daemon.cpu_seconds()
    await asyncio.sleep(5 * SETTLE_SECONDS)
    steady, peak = replica.daemon.memory_bytes()
    return {
        "ready s": ready,
        "everything merged s": merged,
        "CPU until then s": cpu,
        "memory MB": steady / 1e6,
        "peak MB": peak / 1e6,
    }


async def _holds_all(replica: Replica, operators: int) -> bool:
    shown = await status(replica)
    if not shown or not shown["replicas"]["store"]["in_sync"]:
        return False
    full = [one for one in shown["batches"]["unresolved"] if one["signatures"] == operators]
    return len(full) >= OPEN_BATCHES


async def idle(runs: int, operators: int) -> AsyncIterator[Figures]:
    """Leave three replicas alone, profile normal, looking at the chain as often as by default."""
    overrides: dict[str, dict[str, object]] = {"chain": {"poll_interval": "2s"}}
    async with AsyncExitStack() as edges:
        here = await edges.enter_async_context(
            stack(operators, profile="normal", overrides=overrides)
        )
        await asyncio.sleep(5 * SETTLE_SECONDS)
        for _ in range(runs):
            leader = await here.settled()
            before = {one.name: one.daemon.cpu_seconds() for one in here.replicas.all}
            others = here.cpu_seconds()
            began = time.perf_counter()
            await asyncio.sleep(IDLE_SECONDS)
            took = time.perf_counter() - began
            spent = {
                one.name: 100 * (one.daemon.cpu_seconds() - before[one.name]) / took
                for one in here.replicas.all
            }
            after = here.cpu_seconds()
            yield {
                "leader, % of a core": spent[leader.name],
                "standby, % of a core": max(spent[one.name] for one in here.standbys(leader)),
                "a Redis server, % of a core": (
                    100 * (after["redis"] - others["redis"]) / took / len(here.group.machines)
                ),
                "memory MB": max(one.daemon.memory_bytes()[0] for one in here.replicas.all) / 1e6,
            }
