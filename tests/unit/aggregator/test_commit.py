from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aggregator.batches import Batches
from aggregator.commit import GROUP, HOLD_SECONDS, OVERLAP, Committer
from aggregator.ports import Commit, Standing
from aggregator.receive import Incoming
from aligned.errors import DiskRefused, StoreUnavailable
from aligned.model import Entry
from tests.fakes.builders import a_batch_id, entry, operator_id
from tests.fakes.stages import ListJournal, ManualClock, RecordingCaller


class Sharing:
    """The part of a store that commits use; refuses while ``away``."""

    def __init__(self) -> None:
        self.shared: list[Entry] = []
        self.away = False
        self.refused = asyncio.Event()

    async def put(self, entries: Sequence[Entry]) -> None:
        if self.away:
            self.refused.set()
            msg = "no confirmation"
            raise StoreUnavailable(msg)
        self.shared.extend(entries)


class Outcomes:
    def __init__(self, expected: int) -> None:
        self.done_entries: list[Entry] = []
        self.given_up_entries: list[Entry] = []
        self.commits: list[Commit] = []
        self.complete = asyncio.Event()
        self._expected = expected

    def done(self, incoming: Incoming) -> None:
        self.done_entries.append(incoming.entry)
        self._count()

    def given_up(self, incoming: Incoming) -> None:
        self.given_up_entries.append(incoming.entry)
        self._count()

    def committed(self, commit: Commit) -> None:
        self.commits.append(commit)

    def _count(self) -> None:
        if len(self.done_entries) + len(self.given_up_entries) == self._expected:
            self.complete.set()


class Bench:
    def __init__(self, expected: int) -> None:
        self.batches = Batches()
        self.journal = ListJournal()
        self.store = Sharing()
        self.clock = ManualClock()
        self.outcomes = Outcomes(expected)
        self.committer = Committer(
            self.batches,
            self.journal,
            self.store,
            height=lambda: 5,
            clock=self.clock,
            outcomes=self.outcomes,
        )

    def add(self, number: int, by: int) -> None:
        self.committer.add(
            Incoming(entry(number, by), object(), Standing(), (RecordingCaller(), 0), self.clock())
        )

    async def until_complete(self) -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(self.committer.run())
            await self.outcomes.complete.wait()
            running.cancel()


async def test_the_order_is_memory_journal_store_answer() -> None:
    bench = Bench(1)
    seen = []
    bench.journal.on_append = lambda: seen.append(
        (
            bench.batches.signature(a_batch_id(1), operator_id(1)) is not None,
            list(bench.store.shared),
            list(bench.outcomes.done_entries),
        )
    )
    bench.add(1, 1)
    await bench.until_complete()
    assert seen == [(True, [], [])]
    assert bench.store.shared == [entry()]
    assert bench.outcomes.done_entries == [entry()]


async def test_what_waits_is_committed_together() -> None:
    bench = Bench(GROUP + 5)
    for by in range(GROUP + 5):
        bench.add(1, by)
    await bench.until_complete()
    assert sorted(len(group) for group in bench.journal.groups) == [5, GROUP]
    assert sorted(commit.signatures for commit in bench.outcomes.commits) == [5, GROUP]


async def test_an_error_of_the_disk_ends_the_stage_with_nothing_answered() -> None:
    bench = Bench(1)
    bench.journal.broken = True
    bench.add(1, 1)
    with pytest.raises(ExceptionGroup) as failure:
        await bench.until_complete()
    assert failure.group_contains(DiskRefused)
    assert bench.outcomes.done_entries == []
    assert bench.store.shared == []


async def test_a_store_that_comes_back_in_time_goes_unnoticed() -> None:
    bench = Bench(1)
    bench.store.away = True
    bench.add(1, 1)

    async def come_back() -> None:
        await bench.store.refused.wait()
        bench.store.away = False

    async with asyncio.TaskGroup() as group:
        group.create_task(come_back())
        await bench.until_complete()
    assert bench.outcomes.done_entries == [entry()]
    assert len(bench.journal.groups) == 1


async def test_a_store_that_stays_away_is_given_up_on_with_the_signature_journalled() -> None:
    bench = Bench(1)
    bench.store.away = True
    bench.add(1, 1)
    bench.clock.advance(HOLD_SECONDS)
    await bench.until_complete()
    assert bench.outcomes.given_up_entries == [entry()]
    assert bench.outcomes.done_entries == []
    assert bench.journal.groups == [[entry()]]


async def test_cancelling_answers_nothing_that_is_not_durable() -> None:
    bench = Bench(1)
    bench.journal.free.clear()
    bench.add(1, 1)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(bench.committer.run())
        await bench.journal.entered.wait()
        running.cancel()
    assert bench.batches.signature(a_batch_id(1), operator_id(1)) is not None
    assert bench.outcomes.done_entries == []


async def test_while_the_store_is_away_what_comes_is_journalled_all_the_same() -> None:
    groups = OVERLAP + 2
    bench = Bench(groups * GROUP)
    bench.store.away = True
    for by in range(groups * GROUP):
        bench.add(1, by)

    async def come_back_when_all_are_on_disk() -> None:
        while sum(map(len, bench.journal.groups)) < groups * GROUP:
            bench.store.refused.clear()
            await bench.store.refused.wait()
        assert bench.outcomes.done_entries == []
        bench.store.away = False

    async with asyncio.TaskGroup() as group:
        group.create_task(come_back_when_all_are_on_disk())
        await bench.until_complete()
    assert len(bench.outcomes.done_entries) == groups * GROUP
    assert bench.outcomes.given_up_entries == []
