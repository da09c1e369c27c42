"""From the end of a leader to its successor's work, seen from outside.

A batch lacks one signature when the leader is killed or told to stop; that signature is then
delivered to a standby, so the batch is complete and unanswered, and the clock runs from the signal
until the chain has the answer. The stack stays up between runs, only that replica is started
again.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.leadership.election import PROFILES
from bench.stack import Stack, stack, status
from devnet.batcher import Batcher
from devnet.operator import Fleet, Seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.figures import Figures
    from devnet.batcher import Posted
    from devnet.operator import Delivery
    from devnet.replicas import Replica

OPERATORS = 4
"""Three of them are a quorum."""
LATE_SECONDS = 0.01
"""From the signal to the last signature: what was already in the leader's hands is done."""
_LOOK_SECONDS = 0.005
_PATIENCE_SECONDS = 60.0


async def killed(runs: int, profile: str) -> AsyncIterator[Figures]:
    """SIGKILL of the leader."""
    async with stack(OPERATORS, profile=profile) as here:
        scene = await Scene.set(here)
        for _ in range(runs):
            figures = await scene.play(signal.SIGKILL, PROFILES[profile].renew)
            del figures["sent by the one that left"]
            yield figures


async def handover(runs: int) -> AsyncIterator[Figures]:
    """SIGTERM of the leader, which gives its place up in order."""
    async with stack(OPERATORS, profile="normal") as here:
        scene = await Scene.set(here)
        for _ in range(runs):
            yield await scene.play(signal.SIGTERM, PROFILES["normal"].renew)


@dataclass(slots=True)
class Scene:
    """A stack with a batcher and operators."""

    here: Stack
    batcher: Batcher

    @classmethod
    async def set(cls, here: Stack) -> Scene:
        batcher = Batcher(here.network)
        await batcher.deposit(100 * 10**18)
        return cls(here, batcher)

    async def play(self, number: signal.Signals, period: float) -> Figures:
        """End the leader once, at any point of its renewal ``period``, and mend everything.

        Raises:
            TimeoutError: Nobody took over, or the stack did not settle.
        """
        leader = await self.here.settled()
        standbys = self.here.standbys(leader)
        batch = await self.batcher.post()
        for index in (0, 1):
            await self._sign(batch, index, standbys[index])
        await self._known(batch, standbys)
        await asyncio.sleep(random.uniform(0, period))  # noqa: S311 - no secret
        async with asyncio.timeout(_PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            began = time.perf_counter()
            leader.daemon.signal(number)
            leads = tasks.create_task(_leads(standbys, began))
            answered = tasks.create_task(self._answered(batch, began))
            await asyncio.sleep(LATE_SECONDS)
            sign = tasks.create_task(self._sign(batch, 2, standbys[0]))
        successor, led = leads.result()
        figures = {
            "first submission ms": answered.result() * 1e3,
            "leads ms": led * 1e3,
            "acknowledged by a standby ms": _seconds(sign.result()) * 1e3,
            "sent by the one that left": float(_sent(leader, batch)),
            **await _as_told(successor),
        }
        await leader.daemon.ended()
        leader.daemon.start()
        await leader.daemon.ready()
        return figures

    async def _sign(self, batch: Posted, index: int, to: Replica) -> Delivery:
        key = self.here.network.operators[index]
        [operator] = Fleet(self.here.network, to.address, keys=[key]).operators
        try:
            await operator.client.connect()
            delivery = await operator.answer(Seen(batch.merkle_root, batch.sender))
        finally:
            operator.close()
        if not delivery.acknowledged:
            msg = f"{to.name} did not acknowledge: {delivery}"
            raise RuntimeError(msg)
        return delivery

    async def _known(self, batch: Posted, standbys: list[Replica]) -> None:
        """Wait until all standbys have the batch from the chain and both signatures."""
        wanted = {"batch": "0x" + batch.batch_id.hex(), "signatures": 2, "total_stake": 400}
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for standby in standbys:
                while True:
                    shown = await status(standby)
                    unresolved = shown["batches"]["unresolved"] if shown else []
                    if any(
                        all(str(one[name]) == str(value) for name, value in wanted.items())
                        for one in unresolved
                    ):
                        break
                    await asyncio.sleep(0.05)

    async def _answered(self, batch: Posted, began: float) -> float:
        while not await self.here.network.answers(batch.merkle_root, batch.sender):
            await asyncio.sleep(_LOOK_SECONDS)
        return time.perf_counter() - began


async def _leads(standbys: list[Replica], began: float) -> tuple[Replica, float]:
    while True:
        for standby in standbys:
            shown = await status(standby)
            if shown and shown["role"]["leads"]:
                return standby, time.perf_counter() - began
        await asyncio.sleep(_LOOK_SECONDS)


def _seconds(delivery: Delivery) -> float:
    return delivery.attempts[-1].ended - delivery.attempts[0].started


async def _as_told(successor: Replica) -> Figures:
    """Return how the successor itself recorded it."""
    last = (await successor.daemon.status())["replicas"]["failovers"][-1]
    return {f"as told: {name} ms": last[f"{name}_ms"] for name in ("detect", "elect", "resume")}


def _sent(replica: Replica, batch: Posted) -> bool:
    """Tell by its log whether a replica sent the answer."""
    wanted = "0x" + batch.batch_id.hex()
    lines = replica.daemon.log_text().splitlines()
    return any(
        '"transaction sent"' in line and json.loads(line)["batch"] == wanted for line in lines
    )
