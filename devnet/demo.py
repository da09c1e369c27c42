"""The demo: batches are posted, operators sign, whoever answers is killed, nothing is lost.

Exactly as many operators are up as the quorum needs, so that a single lost signature would leave
its batch unverified: operators that were acknowledged do not send again.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aligned.model import THRESHOLD_PERCENT
from devnet.anvil import Anvil
from devnet.batcher import Batcher
from devnet.cast import Several, Single
from devnet.network import Network
from devnet.operator import Fleet, Retries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devnet.batcher import Posted
    from devnet.cast import Cast

STAKE = 100
SIGN_SECONDS = (0.2, 1.8)
"""How long operators take to verify a batch."""
POST_SECONDS = 1.5
"""Between batches."""
PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_STATES_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What is shown."""

    batches: int = 6
    operators: int = 8
    kill_every: float = 3.0
    """Seconds; 0: never."""
    replicas: int = 1


@dataclass(slots=True)
class Row:
    """One batch on the stage."""

    posted: Posted
    number: int
    acknowledged: int = 0
    answers: list[str] = field(default_factory=list)
    """Hashes of the transactions that verified it."""


@dataclass(slots=True)
class Gap:
    """One kill."""

    batch: int
    """Number of the batch that was being collected."""
    killed_at: float
    held: int
    """Signatures acknowledged for it by then."""
    total: int
    """And for all batches."""
    seconds: float | None = None
    """Until an operator got its next acknowledgement."""
    led: float | None = None
    """Seconds until somebody could answer again."""


@dataclass(slots=True)
class Stage:
    """Everything that can be seen; the painters read it."""

    needed: int
    operators: int
    rows: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    aggregators: Mapping[str, str] = field(default_factory=dict)
    """What each process is now, by name."""


class Painter(Protocol):
    """Shows progress."""

    def event(self, text: str) -> None:
        """Something worth a line happened."""

    def refresh(self, stage: Stage) -> None:
        """The stage may have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The checked summary."""

    posted: int
    verified: int
    acknowledged: int
    """Signatures that operators were promised."""
    lost: int
    """Those of them that are neither in the journal nor part of a verified batch."""
    answered_twice: int
    gaps_ms: tuple[int, ...]
    """From each kill to the next acknowledgement."""
    failovers_ms: tuple[int, ...]
    """From each kill until somebody could answer again."""
    replicas: int
    kills: int
    wanted_kills: bool

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is off; nothing if all went well."""
        checks = {
            f"{self.posted - self.verified} batches not verified": self.verified == self.posted,
            f"{self.lost} signatures lost": not self.lost,
            f"{self.answered_twice} batches answered twice": not self.answered_twice,
            "the aggregator was never killed": self.kills > 0 or not self.wanted_kills,
            "no acknowledgement after a kill": len(self.gaps_ms) == self.kills,
            "nobody took over after a kill": len(self.failovers_ms) == self.kills,
        }
        return tuple(problem for problem, holds in checks.items() if not holds)


def needed(operators: int) -> int:
    """Return how many operators of equal stake make a quorum."""
    return -(-operators * THRESHOLD_PERCENT // 100)


async def perform(plan: Plan, painter: Painter) -> Outcome:
    """Run the demo and check what came of it.

    Resource handling: everything that was started is stopped, also on failure.

    Raises:
        ChainFailed: There is no anvil, or it does not start.
        DaemonFailed: The aggregator does not get ready.
        GroupFailed: There is no Redis, or it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="aligned-demo-") as folder:
        async with Anvil() as chain:
            painter.event("chain started; deploying contracts, registering operators")
            network = await Network.deploy(chain, stakes=(STAKE,) * plan.operators)
            if plan.replicas == 1:
                async with Single(network, Path(folder)) as single:
                    return await Play(plan, painter, network, single).run()
            painter.event("starting Redis: three servers with Sentinels")
            async with Several(network, Path(folder), plan.replicas) as several:
                return await Play(plan, painter, network, several).run()


class Play:
    """One performance."""

    def __init__(self, plan: Plan, painter: Painter, network: Network, cast: Cast) -> None:
        self._plan = plan
        self._painter = painter
        self._network = network
        self._cast = cast
        self._random = random.SystemRandom()
        self._stage = Stage(needed(plan.operators), plan.operators)
        self._stage.aggregators = cast.states
        self._fleet = Fleet(
            network,
            cast.address,
            keys=network.operators[: self._stage.needed],
            retries=Retries(attempts=100, pause_seconds=0.5),
        )

    async def run(self) -> Outcome:
        """Play it to the end; see ``perform``."""
        async with asyncio.TaskGroup() as group:
            await self._cast.start()
            self._tell_states()
            companions = [
                group.create_task(self._fleet.run(), name="operators"),
                group.create_task(self._watch(), name="watch"),
                group.create_task(self._watch_states(), name="states"),
                group.create_task(self._dawdle(), name="dawdle"),
            ]
            if self._plan.kill_every:
                companions.append(group.create_task(self._kill(), name="kill"))
            await self._post()
            await self._all_verified()
            for companion in companions:
                companion.cancel()
        return await self._outcome()

    def _tell_states(self) -> None:
        self._stage.aggregators = self._cast.states
        shown = "; ".join(f"{name} {state}" for name, state in self._cast.states.items())
        self._painter.event(shown)

    async def _watch_states(self) -> None:
        while True:
            await self._cast.look()
            self._stage.aggregators = self._cast.states
            await asyncio.sleep(_STATES_SECONDS)

    async def _post(self) -> None:
        batcher = Batcher(self._network)
        await batcher.deposit()
        for number in range(1, self._plan.batches + 1):
            posted = await batcher.post()
            self._stage.rows.append(Row(posted, number))
            self._painter.event(f"batch {number} posted in block {posted.created_block}")
            await asyncio.sleep(POST_SECONDS)

    async def _dawdle(self) -> None:
        """Let each operator take another time for each batch."""
        while True:
            for operator in self._fleet.operators:
                operator.delay_seconds = self._random.uniform(*SIGN_SECONDS)
            await asyncio.sleep(POST_SECONDS / 2)

    async def _watch(self) -> None:
        while True:
            for row in self._stage.rows:
                await self._look(row)
            self._end_gap()
            self._painter.refresh(self._stage)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, row: Row) -> None:
        posted = row.posted
        acknowledged = len(self._fleet.book.acknowledged(posted.batch_id))
        if acknowledged > row.acknowledged:
            row.acknowledged = acknowledged
            if acknowledged == self._stage.needed:
                self._painter.event(f"batch {row.number}: quorum, {acknowledged} signatures")
        if not row.answers:
            row.answers = await self._network.answers(posted.merkle_root, posted.sender)
            if row.answers:
                self._painter.event(f"batch {row.number} verified, transaction {row.answers[0]}")

    def _end_gap(self) -> None:
        total = self._total()
        for gap in self._stage.gaps:
            if gap.seconds is None and total > gap.total:
                gap.seconds = time.monotonic() - gap.killed_at
                self._painter.event(
                    f"next signature acknowledged {gap.seconds * 1000:.0f} ms after the kill"
                )

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(self._plan.kill_every)
            row = await self._half_collected()
            name = self._cast.kill()
            killed_at = time.monotonic()
            self._stage.aggregators = self._cast.states
            await asyncio.sleep(_LOOK_SECONDS)  # for replies that were on their way
            held = len(self._fleet.book.acknowledged(row.posted.batch_id))
            gap = Gap(row.number, killed_at, held, self._total())
            self._stage.gaps.append(gap)
            self._painter.event(
                f"{name} killed (SIGKILL) with {gap.held} of {self._stage.needed} signatures "
                f"of batch {gap.batch} acknowledged"
            )
            successor = await self._cast.recovered()
            gap.led = time.monotonic() - killed_at
            self._painter.event(f"{successor} answers {gap.led * 1000:.0f} ms after the kill")
            await self._cast.mend()

    def _total(self) -> int:
        return sum(delivery.acknowledged for delivery in self._fleet.book.deliveries)

    async def _half_collected(self) -> Row:
        while True:
            for row in self._stage.rows:
                if 0 < row.acknowledged < self._stage.needed:
                    return row
            await asyncio.sleep(_LOOK_SECONDS / 2)

    async def _all_verified(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if all(row.answers and row.acknowledged for row in self._stage.rows):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _outcome(self) -> Outcome:
        await self._cast.stop()
        kept = await asyncio.to_thread(self._cast.kept)
        acknowledged = {
            (delivery.batch_id, delivery.operator_id)
            for delivery in self._fleet.book.deliveries
            if delivery.acknowledged
        }
        rows = self._stage.rows
        answers = [
            await self._network.answers(row.posted.merkle_root, row.posted.sender) for row in rows
        ]
        return Outcome(
            posted=len(rows),
            verified=sum(len(each) > 0 for each in answers),
            acknowledged=len(acknowledged),
            lost=len(acknowledged - kept),
            answered_twice=sum(len(each) > 1 for each in answers),
            gaps_ms=tuple(
                round(gap.seconds * 1000) for gap in self._stage.gaps if gap.seconds is not None
            ),
            failovers_ms=tuple(
                round(gap.led * 1000) for gap in self._stage.gaps if gap.led is not None
            ),
            replicas=self._plan.replicas,
            kills=len(self._stage.gaps),
            wanted_kills=self._plan.kill_every > 0,
        )
