"""The demo: batches are posted, operators sign, the aggregator is killed, nothing is lost.

Exactly as many operators are up as the quorum needs, so that a single lost signature would leave
its batch unverified: operators that were acknowledged do not send again.
"""

from __future__ import annotations

import asyncio
import random
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aggregator.journal import opening, reading
from aligned.model import THRESHOLD_PERCENT
from devnet import files
from devnet.anvil import Anvil
from devnet.batcher import Batcher
from devnet.daemon import Daemon
from devnet.network import Network
from devnet.operator import Fleet, Retries

if TYPE_CHECKING:
    from aligned.model import BatchId, OperatorId
    from devnet.batcher import Posted

STAKE = 100
SIGN_SECONDS = (0.2, 1.8)
"""How long operators take to verify a batch."""
POST_SECONDS = 1.5
"""Between batches."""
DOWN_SECONDS = 0.7
"""Between a kill and the next start, as a supervisor would leave."""
PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What is shown."""

    batches: int = 6
    operators: int = 8
    kill_every: float = 3.0
    """Seconds; 0: never."""


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


@dataclass(slots=True)
class Stage:
    """Everything that can be seen; the painters read it."""

    needed: int
    operators: int
    rows: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    aggregator: str = "starting"


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
    """
    with tempfile.TemporaryDirectory(prefix="aligned-demo-") as folder:
        async with Anvil() as chain:
            painter.event("chain started; deploying contracts, registering operators")
            network = await Network.deploy(chain, stakes=(STAKE,) * plan.operators)
            return await Play(plan, painter, network, Path(folder)).run()


class Play:
    """One performance."""

    def __init__(self, plan: Plan, painter: Painter, network: Network, folder: Path) -> None:
        self._plan = plan
        self._painter = painter
        self._network = network
        self._folder = folder
        self._random = random.SystemRandom()
        self._stage = Stage(needed(plan.operators), plan.operators)
        listen, telemetry = (f"127.0.0.1:{port}" for port in _free_ports(2))
        self._files = files.write(
            folder,
            network.deployment,
            files.Options(
                endpoints=[network.anvil.url],
                listen=listen,
                telemetry=telemetry,
                overrides={"aggregation": {"window": "500ms"}},
            ),
        )
        host, _, port = listen.partition(":")
        self._fleet = Fleet(
            network,
            (host, int(port)),
            keys=network.operators[: self._stage.needed],
            retries=Retries(attempts=100, pause_seconds=0.5),
        )
        self._daemon = Daemon(
            self._files.config, telemetry=telemetry, log=folder / "aggregator.log"
        )

    async def run(self) -> Outcome:
        """Play it to the end; see ``perform``."""
        async with self._daemon, asyncio.TaskGroup() as group:
            self._daemon.start()
            await self._daemon.ready()
            self._stage.aggregator = f"running, pid {self._daemon.pid}"
            self._painter.event(f"aggregator ready, pid {self._daemon.pid}")
            companions = [
                group.create_task(self._fleet.run(), name="operators"),
                group.create_task(self._watch(), name="watch"),
                group.create_task(self._dawdle(), name="dawdle"),
            ]
            if self._plan.kill_every:
                companions.append(group.create_task(self._kill(), name="kill"))
            await self._post()
            await self._all_verified()
            for companion in companions:
                companion.cancel()
        return await self._outcome()

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
            self._daemon.kill()
            killed_at = time.monotonic()
            self._stage.aggregator = "KILLED"
            await asyncio.sleep(_LOOK_SECONDS)  # for replies that were on their way
            held = len(self._fleet.book.acknowledged(row.posted.batch_id))
            gap = Gap(row.number, killed_at, held, self._total())
            self._stage.gaps.append(gap)
            self._painter.event(
                f"aggregator killed (SIGKILL) with {gap.held} of {self._stage.needed} signatures "
                f"of batch {gap.batch} acknowledged"
            )
            await asyncio.sleep(DOWN_SECONDS)
            self._daemon.start()
            await self._daemon.ready()
            self._stage.aggregator = f"running, pid {self._daemon.pid}"
            self._painter.event(f"aggregator started again, pid {self._daemon.pid}")

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
        await self._daemon.terminate()
        kept = await asyncio.to_thread(self._journalled)
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
            kills=len(self._stage.gaps),
            wanted_kills=self._plan.kill_every > 0,
        )

    def _journalled(self) -> set[tuple[BatchId, OperatorId]]:
        """Return what the journal holds; on a chain this short nothing was forgotten yet."""
        with opening.read_only(self._files.config.with_suffix(".db")) as connection:
            loaded = reading.load(connection)
        return {
            (entry.batch_id, entry.operator_id)
            for entries in loaded.entries.values()
            for entry in entries
        }


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
