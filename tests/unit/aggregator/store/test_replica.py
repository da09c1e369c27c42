from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aggregator.batches import Batches
from aggregator.journal.format import Fence
from aggregator.journal.journal import Journal
from aggregator.outbox import OutboxRow
from aggregator.store.records import News, row_key
from aggregator.store.replica import Held
from aligned.model import Entry, Term
from tests.fakes.builders import a_batch_id, batch, block, entry, operator_id
from tests.fakes.redis import PastInMemory, a_row, identity


class Bench:
    def __init__(self, path: Path) -> None:
        self.batches = Batches()
        self.journal = Journal.open(path, identity())
        self.chain = PastInMemory()
        self.held = Held(self.batches, self.journal, self.chain)

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


async def test_a_row_that_the_store_confirmed_takes_the_place_of_another_in_the_journal(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    lost, won = a_row(0), a_row(0, raw=b"other")
    bench.held.hear(News(rows=(lost,)))
    bench.held.hear(News(rows=(won,)))
    await bench.written()
    assert bench.held.rows() == [won]
    loaded = bench.journal.load()
    assert loaded.outbox == [won]
    assert lost.raw in loaded.hints.values()
    [line] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "the store's counts" in line.msg
    assert (vars(line)["transaction"], vars(line)["replaced"]) == (won.hash, lost.hash)


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


# What the chain has settled.


def remembering(bench: Bench, *rows: OutboxRow) -> Held:
    """Return what a start finds: signatures of two batches and ``rows`` in its journal."""
    bench.batches.keep([entry(1, 1), entry(2, 1)], height=7)
    ids = [a_batch_id(1), a_batch_id(2)]
    return Held(bench.batches, bench.journal, bench.chain, rows=rows, remembered=ids)


async def test_nothing_of_a_journal_is_shared_before_the_chain_was_asked(bench: Bench) -> None:
    held = remembering(bench, a_row(4), a_row(5))
    assert (held.batch_ids(), held.signatures(a_batch_id(1)), held.rows()) == ([], {}, [])
    held.hear(News(entries=(entry(3, 1),), rows=(a_row(6),)))  # what comes since is
    assert (held.batch_ids(), held.rows()) == ([a_batch_id(3)], [a_row(6)])
    assert not held.is_caught_up
    bench.chain.settled = {a_batch_id(1)}
    bench.chain.nonces = 5
    bench.chain.read.set()
    await held.catch_up()
    assert held.is_caught_up
    assert set(held.batch_ids()) == {a_batch_id(2), a_batch_id(3)}
    assert held.rows() == [a_row(5), a_row(6)]


async def test_a_chain_that_is_away_is_waited_for_before_a_journal_is_shared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.store.replica._CHAIN_RETRY_SECONDS", 0.0)
    held = remembering(bench, a_row(4))
    bench.chain.read.set()
    bench.chain.away = True
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        catching_up = group.create_task(held.catch_up())
        for _ in range(10):
            await asyncio.sleep(0)
        assert held.rows() == []
        bench.chain.away = False
        await catching_up
    assert held.rows() == [a_row(4)]


async def test_rows_that_were_settled_meanwhile_are_forgotten_here_and_on_disk(
    bench: Bench,
) -> None:
    bench.held.hear(News(rows=(a_row(4), a_row(5))))
    bench.chain.nonces, bench.chain.away = 5, True
    await bench.held.settle()
    assert bench.held.rows() == [a_row(4), a_row(5)]  # rather too many than too few
    bench.chain.away = False
    await bench.held.settle()
    assert bench.held.rows() == [a_row(5)]
    await bench.written()
    assert bench.journal.load().outbox == [a_row(5)]


async def test_a_batch_that_the_chain_settled_is_not_shared_any_more(bench: Bench) -> None:
    bench.held.hear(News(entries=(entry(1, 1), entry(2, 1))))
    bench.chain.settled = {a_batch_id(2)}
    assert bench.held.batch_ids() == [a_batch_id(1)]
    assert bench.held.signatures(a_batch_id(2)) == {}
