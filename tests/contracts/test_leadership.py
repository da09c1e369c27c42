from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aggregator.journal.journal import Journal
from aggregator.leadership.single import SingleLeadership
from aggregator.store.single import SingleStore
from aligned.errors import Deposed
from aligned.model import Address, BlockHash, Identity, Term
from tests.fakes.builders import entry

IDENTITY = Identity(
    chain_id=1,
    genesis_hash=BlockHash(b"g" * 32),
    service_manager=Address(b"s" * 20),
    deployment_hash=BlockHash(b"d" * 32),
)


class Start:
    """One start of a process over the journal in a folder."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal.open(folder / "journal.db", IDENTITY)
        self.store = SingleStore(self.journal)
        self.leadership = SingleLeadership(lambda: self.journal.fence.term)


async def test_terms_rise_from_start_to_start(tmp_path: Path) -> None:
    terms = []
    for _ in range(3):
        start = Start(tmp_path)
        term, holder = await start.leadership.acquire()
        await start.store.claim(term, holder)
        start.journal.close()
        terms.append(term)
    assert terms == [1, 2, 3]


async def test_terms_rise_within_a_start_also_before_they_are_claimed(tmp_path: Path) -> None:
    start = Start(tmp_path)
    first, _ = await start.leadership.acquire()
    await start.leadership.release(first)
    second, _ = await start.leadership.acquire()
    start.journal.close()
    assert second > first


async def test_each_start_has_a_holder_of_its_own(tmp_path: Path) -> None:
    first = SingleLeadership(lambda: Term(0))
    second = SingleLeadership(lambda: Term(0))
    assert (await first.acquire())[1] != (await second.acquire())[1]


async def test_a_writer_of_an_earlier_start_is_refused(tmp_path: Path) -> None:
    start = Start(tmp_path)
    old = await start.leadership.acquire()
    await start.store.claim(*old)
    start.journal.close()
    again = Start(tmp_path)
    await again.store.claim(*await again.leadership.acquire())
    with pytest.raises(Deposed):
        await again.store.evict(*old, [entry()])
    again.journal.close()


async def test_a_term_is_kept_until_its_keeper_is_cancelled(tmp_path: Path) -> None:
    leadership = SingleLeadership(lambda: Term(0))
    term, _ = await leadership.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await leadership.keep(term)
