from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aggregator.batches import Batches
from aggregator.journal.format import Fence
from aggregator.journal.journal import Journal
from aggregator.store.records import News, row_key
from aggregator.store.replica import Held
from aligned.model import Entry, Term
from tests.fakes.builders import a_batch_id, batch, block, entry, operator_id
from tests.fakes.redis import a_row, identity


class Bench:
    def __init__(self, path: Path) -> None:
        self.batches = Batches()
        self.journal = Journal.open(path, identity())
        self.held = Held(self.batches, self.journal, [], lambda: 7)

    async def written(self) -> set[Entry]:
        """Wait until everything heard so far is on disk; return the entries there."""
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.held.run())
            done = asyncio.Event()

            async def mark() -> None:
                done.set()

            self.held._later(mark)
            await done.wait()
            running.cancel()
        await self.journal.save_hint("written", b"")
        return {each for some in self.journal.load().entries.values() for each in some}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "journal.db")
    yield bench
    bench.journal.close()


async def test_what_peers_wrote_is_in_memory_at_once_and_on_disk_soon(bench: Bench) -> None:
    bench.held.hear(News(entries=(entry(1, 1), entry(2, 1)), rows=(a_row(0),)))
    assert bench.held.signatures(a_batch_id(1)).keys() == {operator_id(1)}
    assert set(bench.held.batch_ids()) == {a_batch_id(1), a_batch_id(2)}
    assert await bench.written() == {entry(1, 1), entry(2, 1)}
    assert bench.journal.load().outbox == [a_row(0)]


async def test_what_peers_dropped_or_evicted_goes_here_too(bench: Bench) -> None:
    bench.held.hear(News(entries=(entry(1, 1), entry(1, 2)), rows=(a_row(0), a_row(1))))
    bench.held.hear(News(dropped=(row_key(a_row(0)),), evicted=(entry(1, 2),)))
    assert await bench.written() == {entry(1, 1)}
    assert bench.held.rows() == [a_row(1)]
    loaded = bench.journal.load()
    assert (loaded.outbox, loaded.refuted) == ([a_row(1)], [entry(1, 2)])
    bench.held.hear(News(entries=(entry(1, 2),)))
    assert bench.held.signatures(a_batch_id(1)).keys() == {operator_id(1)}


async def test_a_later_term_is_kept_and_an_earlier_one_changes_nothing(bench: Bench) -> None:
    bench.held.learn(Fence(Term(5), "a"))
    bench.held.learn(Fence(Term(4), "b"))
    await bench.written()
    assert bench.journal.load().fence == Fence(Term(5), "a")


async def test_another_row_under_a_known_key_leaves_the_journal_as_it_is(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.held.hear(News(rows=(a_row(0),)))
    bench.held.hear(News(rows=(a_row(0, raw=b"other"),)))
    await bench.written()
    assert bench.held.rows() == [a_row(0, raw=b"other")]
    assert bench.journal.load().outbox == [a_row(0)]
    assert "does not fit this replica's journal" in caplog.text


async def test_nothing_finished_comes_back_from_a_peer(bench: Bench) -> None:
    bench.batches.open(batch(1))
    bench.batches.answer(a_batch_id(1), block(105))
    bench.batches.finish([a_batch_id(1)])
    bench.held.hear(News(entries=(entry(1, 1),)))
    assert bench.held.batch_ids() == []


async def test_what_was_given_up_comes_back_only_with_its_batch(bench: Bench) -> None:
    bench.held.hear(News(entries=(entry(1, 1),)))
    bench.held.forget([a_batch_id(1)])
    bench.batches.forget([a_batch_id(1)])
    bench.held.hear(News(entries=(entry(1, 1),)))
    assert bench.held.batch_ids() == []
    bench.batches.open(batch(1))
    bench.held.hear(News(entries=(entry(1, 1),)))
    assert bench.held.batch_ids() == [a_batch_id(1)]
