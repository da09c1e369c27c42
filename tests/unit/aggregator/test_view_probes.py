from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from aggregator.group import Group
from aggregator.leadership.elected import ElectedLeadership, Health
from aggregator.leadership.election import PROFILES, STORE_SECONDS, Candidate, Vitals
from aggregator.leadership.lock import Lock, LockAway
from aggregator.store.single import SingleStore
from aggregator.view import ELECTOR_SECONDS, Parts, Role, View
from aligned.model import BlockRef
from tests.fakes.builders import block
from tests.fakes.candidates import ClaimsInMemory, FenceInMemory
from tests.fakes.stages import ManualClock


@dataclass
class Beating:
    is_alive: bool = True


@dataclass
class Counts:
    busy_since: float | None = None


@dataclass
class Disk:
    counts: Counts = field(default_factory=Counts)


@dataclass
class Listening:
    is_open: bool = True


@dataclass
class Operators:
    known: int = 4
    synced: BlockRef | None = None

    def __len__(self) -> int:
        return self.known


@dataclass
class Shown:
    """The parts that probes look at; among peers unless ``group`` is another one."""

    clock: ManualClock = field(default_factory=ManualClock)
    role: Role = field(default_factory=Role)
    heartbeat: Beating = field(default_factory=Beating)
    journal: Disk = field(default_factory=Disk)
    ingress: Listening = field(default_factory=Listening)
    registry: Operators = field(default_factory=Operators)
    knew_operators: bool = False
    stuck: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.elected = ElectedLeadership(
            Candidate(me="pod-0 boot", pod="pod-0", profile=PROFILES["normal"]),
            self.lock,
            ClaimsInMemory(FenceInMemory()),
            Health(lambda: 0.0, lambda: True, lambda: False, lambda: False),
            clock=self.clock,
        )
        store = cast("SingleStore", None)
        self.group = Group(name="pod-0", store=store, leadership=self.elected, elected=self.elected)

    def lock(self) -> Lock:
        """Keep the elector's thread, as a machine without memory or processor does."""
        self.stuck.wait()
        raise LockAway

    @asynccontextmanager
    async def stuck_election(self) -> AsyncIterator[None]:
        """Run the election; its elector decides nothing."""
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.elected.run())
                await asyncio.sleep(0)
                try:
                    yield
                finally:
                    running.cancel()
                    self.stuck.set()
        except* LockAway:
            pass  # what the lock raises once it is let go

    def alone(self) -> Shown:
        self.group = Group(name="pod-0", store=self.group.store, leadership=self.group.leadership)
        return self

    def hears_of(self, *pods: str) -> None:
        self.elected._vitals = Vitals(peers=frozenset(pods), store=self.clock())

    @property
    def view(self) -> View:
        return View(cast("Parts", self))


@pytest.fixture
def shown() -> Shown:
    return Shown()


# Alive.


def test_an_election_that_has_not_begun_keeps_nobody_from_living(shown: Shown) -> None:
    shown.clock.advance(10 * ELECTOR_SECONDS)
    assert shown.view.alive() == {"loop": True, "journal": True, "elector": True}


async def test_an_elector_that_never_decides_counts_as_dead(shown: Shown) -> None:
    async with shown.stuck_election():
        shown.clock.advance(ELECTOR_SECONDS - 0.1)
        assert shown.view.alive()["elector"]
        shown.clock.advance(0.2)
        assert not shown.view.alive()["elector"]


async def test_an_election_that_ended_for_a_stop_keeps_nobody_from_living(shown: Shown) -> None:
    async with shown.stuck_election():
        shown.clock.advance(2 * ELECTOR_SECONDS)
        shown.role.stopping = True
        assert shown.view.alive()["elector"]


def test_without_an_election_nothing_is_told_of_one(shown: Shown) -> None:
    assert shown.alone().view.alive() == {"loop": True, "journal": True}


def test_the_slowest_elector_decides_well_before_it_counts_as_dead() -> None:
    slowest = max(PROFILES.values(), key=lambda profile: profile.deadline)
    one_call = slowest.deadline / 2 + slowest.renew / 2
    assert 4 * one_call < ELECTOR_SECONDS / 2  # twice: a write, then a read


# Ready.


def test_who_has_read_the_registry_is_ready(shown: Shown) -> None:
    shown.registry.synced = block(100)
    shown.hears_of("pod-1")
    assert all(shown.view.ready().values())


def test_who_reads_it_for_the_first_time_leaves_calls_to_a_peer_that_is_fit(shown: Shown) -> None:
    shown.hears_of("pod-1")
    assert not shown.view.ready()["operators"]
    shown.knew_operators = True  # a restart; the chain may be away
    assert shown.view.ready()["operators"]


def test_a_peer_that_the_store_has_not_told_of_lately_is_none_to_leave_calls_to(
    shown: Shown,
) -> None:
    shown.hears_of("pod-1")
    shown.clock.advance(STORE_SECONDS + 0.1)  # it may have gone together with the store
    assert shown.view.ready()["operators"]


@pytest.mark.parametrize("is_alone", [False, True], ids=["no peer is fit", "no peers"])
def test_who_reads_it_for_the_first_time_takes_calls_that_nobody_else_can_answer(
    is_alone: bool, shown: Shown
) -> None:
    assert (shown.alone() if is_alone else shown).view.ready()["operators"]


def test_who_knows_no_operator_at_all_is_not_ready(shown: Shown) -> None:
    shown.registry = Operators(known=0, synced=block(100))
    assert not shown.view.ready()["operators"]
