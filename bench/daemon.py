"""One process with an embedded store under load: CPU, rate, latency, start, memory.

Client, chain and daemon share the machine; CPU is the daemon's own, so it says more than rates do
when the machine is noisy.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from devnet import files, load
from devnet.anvil import Anvil
from devnet.batcher import ACCOUNTS, Batcher, verified
from devnet.daemon import Daemon
from devnet.network import Network
from devnet.operator import Fleet, Seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from bench.figures import Figures
    from devnet.batcher import Posted

SETTLE_SECONDS = 1.0
"""Before a measurement: the start's own work is over."""
PACED_RATE = 1000.0
PACED_BATCHES = 30
OPEN_BATCHES = 100
ANSWERS = 10
"""Batches answered in one run."""
NON_SIGNERS = 66


@dataclass(frozen=True, slots=True)
class Rig:
    """One daemon on one network."""

    network: Network
    daemon: Daemon
    address: tuple[str, int]
    log: Path


@asynccontextmanager
async def rig(operators: int, overrides: Mapping[str, Mapping[str, object]]) -> AsyncIterator[Rig]:
    """Give a network with ``operators`` of equal stake and a daemon that is ready."""
    with tempfile.TemporaryDirectory(prefix="aligned-bench-") as name:
        folder = Path(name)
        async with Anvil() as chain:
            network = await Network.deploy(chain, stakes=(100,) * operators)
            listen, telemetry = (f"127.0.0.1:{port}" for port in _free_ports(2))
            everything = {
                **overrides,
                "telemetry": {"log_format": "json", **overrides.get("telemetry", {})},
            }
            written = files.write(
                folder,
                network.deployment,
                files.Options(
                    endpoints=[chain.url], listen=listen, telemetry=telemetry, overrides=everything
                ),
            )
            log = folder / "log"
            host, _, port = listen.partition(":")
            async with Daemon(written.config, telemetry=telemetry, log=log) as daemon:
                daemon.start()
                await daemon.ready()
                await asyncio.sleep(SETTLE_SECONDS)
                yield Rig(network, daemon, (host, int(port)), log)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def invented(count: int) -> list[Seen]:
    """Return batches that are not on chain: what is measured is the way in alone."""
    return [Seen(secrets.token_bytes(32), ACCOUNTS[0]) for _ in range(count)]


async def closed(operators: int, batches: int, backend: str) -> Figures:
    """One call open on each connection, as fast as it goes."""
    async with rig(operators, {"bls": {"backend": backend}}) as here:
        prepared = load.prepare(here.network.operators, invented(batches))
        before = here.daemon.cpu_seconds()
        report = await load.closed_loop(prepared, *here.address)
        cpu = here.daemon.cpu_seconds() - before
        check(report)
        return {
            "CPU µs each": cpu / report.replies * 1e6,
            "per second": report.rate,
            "p50 ms": report.percentile(50) * 1e3,
            "p99 ms": report.percentile(99) * 1e3,
        }


async def paced(operators: int, backend: str) -> Figures:
    """A thousand a second, whatever the replies do."""
    async with rig(operators, {"bls": {"backend": backend}}) as here:
        prepared = load.prepare(here.network.operators, invented(PACED_BATCHES))
        before = here.daemon.cpu_seconds()
        report = await load.open_loop(prepared, *here.address, rate=PACED_RATE)
        cpu = here.daemon.cpu_seconds() - before
        check(report)
        return {
            "p50 ms": report.percentile(50) * 1e3,
            "p99 ms": report.percentile(99) * 1e3,
            "CPU µs each": cpu / report.replies * 1e6,
            "latest send ms": report.latest_send * 1e3,
        }


def check(report: load.Report) -> None:
    if report.accepted != report.sent:
        msg = f"not everything was accepted: {report.summary()}"
        raise RuntimeError(msg)


async def answers(operators: int, backend: str) -> Figures:
    """From the signature that completes a quorum to the broadcast; then all at once."""
    overrides = {"bls": {"backend": backend}, "aggregation": {"window": "0s"}}
    async with rig(operators, overrides) as here:
        fleet = Fleet(here.network, here.address)
        await fleet.connect()
        batcher = Batcher(here.network)
        await batcher.deposit(10**18)
        quorum = operators - NON_SIGNERS
        last, together = [], []
        for number in range(ANSWERS):
            posted = await batcher.post()
            await _seen(here, posted)
            seen = Seen(posted.merkle_root, posted.sender)
            responses = [operator.response(seen) for operator in fleet.operators]
            group = zip(fleet.operators, responses, strict=True)
            if number % 2:
                began = time.time()
                await _all([o.deliver(r) for o, r in group])
                together.append(await _sent(here, posted) - began)
            else:
                signing = list(group)[:quorum]
                await _all([o.deliver(r) for o, r in signing[:-1]])
                operator, response = signing[-1]
                began = time.time()
                await operator.deliver(response)
                last.append(await _sent(here, posted) - began)
            await verified(here.network, posted)
        fleet.close()
        return {
            "last signature to broadcast, p50 ms": statistics.median(last) * 1e3,
            "highest ms": max(last) * 1e3,
            "all at once, p50 ms": statistics.median(together) * 1e3,
            "all at once, highest ms": max(together) * 1e3,
        }


async def _all(work: Sequence[Coroutine[object, object, object]]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


async def _seen(here: Rig, posted: Posted) -> None:
    """Wait until the daemon knows the batch and its operators."""
    wanted = "0x" + posted.batch_id.hex()
    while True:
        status = await here.daemon.status()
        for batch in status["batches"]["unresolved"]:
            if batch["batch"] == wanted and batch["total_stake"] is not None:
                return
        await asyncio.sleep(0.05)


async def _sent(here: Rig, posted: Posted) -> float:
    """Return when the daemon broadcast the answer, by its log; milliseconds."""
    wanted = "0x" + posted.batch_id.hex()
    while True:
        for line in here.log.read_text().splitlines():
            if '"transaction sent"' in line:
                fields = json.loads(line)
                if fields["batch"] == wanted:
                    return datetime.fromisoformat(fields["time"]).timestamp()
        await asyncio.sleep(0.02)


async def start(operators: int, backend: str) -> Figures:
    """Start with open batches in the journal, every operator's signature in each."""
    overrides = {"bls": {"backend": backend}, "submission": {"mode": "observe"}}
    async with rig(operators, overrides) as here:
        batcher = Batcher(here.network)
        await batcher.deposit(100 * 10**18)
        posted = [await batcher.post() for _ in range(OPEN_BATCHES)]
        seen = [Seen(each.merkle_root, each.sender) for each in posted]
        report = await load.closed_loop(
            load.prepare(here.network.operators, seen), *here.address, seconds=120
        )
        check(report)
        await here.daemon.terminate()
        began = time.perf_counter()
        here.daemon.start()
        await here.daemon.ready()
        ready = time.perf_counter() - began
        await _all_open(here)
        complete = time.perf_counter() - began
        await asyncio.sleep(5 * SETTLE_SECONDS)
        steady, peak = here.daemon.memory_bytes()
        return {
            "ready s": ready,
            "all batches known s": complete,
            "memory MB": steady / 1e6,
            "peak MB": peak / 1e6,
        }


async def _all_open(here: Rig) -> None:
    while (await here.daemon.status())["batches"]["count"]["open"] < OPEN_BATCHES:
        await asyncio.sleep(0.02)
