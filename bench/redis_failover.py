"""From a fault of the Redis primary until every replica acknowledges again.

One operator at each replica repeats its signature a hundred times a second: a repeat is committed
like any other signature before it is acknowledged. What is measured is the longest time in which a
replica acknowledged nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aligned.wire import messages
from bench.stack import stack
from devnet.batcher import Batcher
from devnet.go_client import Connection, ConnectionLost, ShutDown
from devnet.operator import Fleet, Seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aligned.wire.gob import Value
    from bench.figures import Figures
    from bench.stack import Stack
    from devnet.replicas import Replica

OPERATORS = 12
"""Three of them sign: no quorum, so the batch stays open."""
EVERY_SECONDS = 0.01
AFTER_SECONDS = 2.5
"""Goes on after all is well: a Sentinel closes connections once more when it has told everybody."""
_AGAIN = 20
"""Acknowledgements after which a replica is back."""
_LOOK_SECONDS = 0.01
_PATIENCE_SECONDS = 60.0


async def series(runs: int, fault: str) -> AsyncIterator[Figures]:
    """Measure ``fault`` (killed, frozen, coordinated) again and again, with one stack."""
    async with stack(OPERATORS) as here:
        batcher = Batcher(here.network)
        await batcher.deposit(10**18)
        posted = await batcher.post()
        seen = Seen(posted.merkle_root, posted.sender)
        operators = Fleet(here.network, here.replicas.address).operators
        for _ in range(runs):
            await here.settled()
            probes = [
                Probe(replica, messages.to_value(operator.response(seen)))
                for replica, operator in zip(here.replicas.all, operators, strict=False)
            ]
            yield await _measure(here, probes, fault)


@dataclass(slots=True)
class Probe:
    """An operator that repeats itself at one replica, and when it was acknowledged."""

    replica: Replica
    value: Value
    acknowledged: list[float] = field(default_factory=list)
    lost: int = 0

    async def run(self) -> None:
        """Send until cancelled; replies are not waited for."""
        connection = await Connection.dial(*self.replica.address)
        try:
            async with asyncio.TaskGroup() as calls:
                while True:
                    calls.create_task(self._call(connection))
                    await asyncio.sleep(EVERY_SECONDS)
        finally:
            connection.close()

    async def _call(self, connection: Connection) -> None:
        try:
            reply = await connection.call(self.value)
        except (ConnectionLost, ShutDown):
            self.lost += 1
            return
        if reply.value == 0 and not reply.error:
            self.acknowledged.append(time.perf_counter())
        else:
            self.lost += 1

    def silence(self, since: float) -> float:
        """Return the longest time without an acknowledgement that ended after ``since``."""
        pairs = itertools.pairwise(self.acknowledged)
        return max(after - before for before, after in pairs if after > since)


async def _measure(here: Stack, probes: Sequence[Probe], fault: str) -> Figures:
    group = here.group
    old = group.primary()
    async with asyncio.timeout(_PATIENCE_SECONDS), asyncio.TaskGroup() as sending:
        tasks = [sending.create_task(probe.run()) for probe in probes]
        while any(len(probe.acknowledged) < _AGAIN for probe in probes):
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(random.uniform(0, 1))  # noqa: S311 - no secret
        began = time.perf_counter()
        match fault:
            case "killed":
                await asyncio.to_thread(group.kill, old)
            case "frozen":
                group.pause(old)
            case _:
                await asyncio.to_thread(lambda: group.fail_over(coordinated=True))
        while await asyncio.to_thread(group.primary) == old:
            await asyncio.sleep(_LOOK_SECONDS)
        counts = [len(probe.acknowledged) for probe in probes]
        while any(
            len(probe.acknowledged) < count + _AGAIN
            for probe, count in zip(probes, counts, strict=True)
        ):
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(AFTER_SECONDS)
        for task in tasks:
            task.cancel()
    await asyncio.to_thread(_mend, here, old, fault)
    silences = [probe.silence(began) * 1e3 for probe in probes]
    return {
        "longest silence of a replica ms": max(silences),
        "of the luckiest replica ms": min(silences),
        "calls lost": float(sum(probe.lost for probe in probes)),
    }


def _mend(here: Stack, old: int, fault: str) -> None:
    if fault == "killed":
        here.group.start_server(old)
    elif fault == "frozen":
        here.group.resume(old)
    here.group.settle()
