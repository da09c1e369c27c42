from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from aggregator.journal.journal import Journal
from aggregator.outbox import Kind, OutboxRow
from aggregator.ports import Store
from aggregator.store.single import SingleStore
from aligned.errors import Deposed, StateDamaged
from aligned.model import (
    Address,
    BlockHash,
    Entry,
    Identity,
    Signature,
    Term,
    TransactionHash,
    Wei,
)
from tests.fakes.builders import a_batch_id, block, entry
from tests.fakes.store import MemoryStore

ONE, TWO = Term(1), Term(2)


@dataclass
class Bench:
    """An implementation, and the ways in and out that are not part of the port."""

    store: Store
    share: Callable[[Sequence[Entry]], Awaitable[None]]
    """What a replica does with new entries: journal, then ``Store.put``."""
    entries: Callable[[], set[Entry]]


@pytest.fixture(params=["single", "fake"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        fake = MemoryStore()
        yield Bench(fake, fake.put, lambda: set(fake.entries))
        return
    identity = Identity(
        chain_id=1,
        genesis_hash=BlockHash(b"g" * 32),
        service_manager=Address(b"s" * 20),
        deployment_hash=BlockHash(b"d" * 32),
    )
    journal = Journal.open(tmp_path / "journal.db", identity)
    store = SingleStore(journal)

    async def share(entries: Sequence[Entry]) -> None:
        await journal.append(entries, height=7)
        await store.put(entries)

    def entries() -> set[Entry]:
        return {entry for some in journal.load().entries.values() for entry in some}

    yield Bench(store, share, entries)
    journal.close()


def row(nonce: int = 0, attempt: int = 0, raw: bytes = b"raw") -> OutboxRow:
    return OutboxRow(
        sender=Address(b"\xaa" * 20),
        nonce=nonce,
        attempt=attempt,
        kind=Kind.ANSWER,
        batch_id=a_batch_id(1),
        created=block(100),
        raw=raw,
        hash=TransactionHash(raw.ljust(32, b"\0")),
        gas=250_000,
        max_fee=Wei(2**70),
        max_priority_fee=Wei(10**9),
        term=ONE,
    )


def other_signature(of: Entry) -> Entry:
    return of._replace(signature=Signature(b"\xff" * 64))


async def test_what_is_shared_is_kept_once(bench: Bench) -> None:
    await bench.share([entry(1, 1), entry(1, 2)])
    await bench.share([entry(1, 2), entry(2, 1)])
    assert bench.entries() == {entry(1, 1), entry(1, 2), entry(2, 1)}


async def test_sharing_nothing_is_fine(bench: Bench) -> None:
    await bench.share([])
    assert bench.entries() == set()


async def test_a_claim_returns_the_whole_outbox_in_order(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    rows = [row(2), row(0, 1), row(0, 0), row(10)]
    for item in rows:
        await bench.store.record(ONE, "a", item)
    assert list(await bench.store.claim(TWO, "b")) == [row(0, 0), row(0, 1), row(2), row(10)]


async def test_the_first_claim_finds_an_empty_outbox(bench: Bench) -> None:
    assert list(await bench.store.claim(ONE, "a")) == []


async def test_a_claim_may_be_repeated_by_its_holder(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.store.record(ONE, "a", row())
    assert list(await bench.store.claim(ONE, "a")) == [row()]
    await bench.store.record(ONE, "a", row(1))


@pytest.mark.parametrize(
    ("term", "holder"),
    [
        pytest.param(Term(4), "a", id="lower term of the same holder"),
        pytest.param(Term(4), "b", id="lower term"),
        pytest.param(Term(5), "b", id="equal term of another holder"),
    ],
)
async def test_a_claim_that_is_not_ahead_is_refused(bench: Bench, term: Term, holder: str) -> None:
    await bench.store.claim(Term(5), "a")
    with pytest.raises(Deposed):
        await bench.store.claim(term, holder)
    await bench.store.record(Term(5), "a", row())  # the fence did not move


@pytest.mark.parametrize(
    ("term", "holder"),
    [
        pytest.param(Term(4), "a", id="term that is over"),
        pytest.param(Term(6), "a", id="term not claimed yet"),
        pytest.param(Term(5), "b", id="somebody else's term"),
    ],
)
async def test_writes_of_anybody_but_the_fence_are_refused(
    bench: Bench, term: Term, holder: str
) -> None:
    await bench.store.claim(Term(5), "a")
    await bench.store.record(Term(5), "a", row())
    await bench.share([entry()])
    with pytest.raises(Deposed):
        await bench.store.record(term, holder, row(1))
    with pytest.raises(Deposed):
        await bench.store.drop_rows(term, holder, [row()])
    with pytest.raises(Deposed):
        await bench.store.evict(term, holder, [entry()])
    assert list(await bench.store.claim(Term(5), "a")) == [row()]
    assert bench.entries() == {entry()}


async def test_nobody_writes_before_the_first_claim(bench: Bench) -> None:
    with pytest.raises(Deposed):
        await bench.store.record(ONE, "a", row())


async def test_a_deposed_leader_stays_deposed_after_its_successor_wrote(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.store.claim(TWO, "b")
    await bench.store.record(TWO, "b", row())
    with pytest.raises(Deposed):
        await bench.store.record(ONE, "a", row(1))
    assert list(await bench.store.claim(TWO, "b")) == [row()]


async def test_a_row_may_be_recorded_again_with_the_same_bytes(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.store.record(ONE, "a", row())
    await bench.store.record(ONE, "a", row())
    await bench.store.claim(TWO, "b")
    await bench.store.record(TWO, "b", replace(row(), term=TWO))
    assert list(await bench.store.claim(TWO, "b")) == [row()]


async def test_a_row_is_never_rewritten(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.store.record(ONE, "a", row(raw=b"first"))
    with pytest.raises(StateDamaged):
        await bench.store.record(ONE, "a", row(raw=b"second"))
    assert list(await bench.store.claim(ONE, "a")) == [row(raw=b"first")]


async def test_a_cancellation_needs_no_batch(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    cancel = replace(row(), kind=Kind.CANCEL, batch_id=None, created=None)
    await bench.store.record(ONE, "a", cancel)
    assert list(await bench.store.claim(ONE, "a")) == [cancel]


async def test_dropped_rows_are_gone_and_the_others_stay(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    for nonce in range(3):
        await bench.store.record(ONE, "a", row(nonce))
    await bench.store.drop_rows(ONE, "a", [row(0), row(2), row(9)])
    assert list(await bench.store.claim(ONE, "a")) == [row(1)]


async def test_evicting_takes_out_exactly_the_entry(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.share([entry(1, 1), entry(1, 2), entry(2, 1)])
    await bench.store.evict(ONE, "a", [entry(1, 1), other_signature(entry(1, 2))])
    assert bench.entries() == {entry(1, 2), entry(2, 1)}


async def test_an_evicted_entry_does_not_come_back(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.share([entry()])
    await bench.store.evict(ONE, "a", [entry()])
    await bench.share([entry()])
    assert bench.entries() == set()


async def test_the_right_signature_takes_the_place_of_an_evicted_one(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.share([other_signature(entry())])
    await bench.store.evict(ONE, "a", [other_signature(entry())])
    await bench.share([entry()])
    assert bench.entries() == {entry()}


async def test_forgetting_drops_whole_batches_whoever_leads(bench: Bench) -> None:
    await bench.store.claim(ONE, "a")
    await bench.share([entry(1, 1), entry(1, 2), entry(2, 1), entry(3, 1)])
    await bench.store.evict(ONE, "a", [entry(3, 1)])
    await bench.store.forget([a_batch_id(1), a_batch_id(3), a_batch_id(9)])
    assert bench.entries() == {entry(2, 1)}
    await bench.store.forget([a_batch_id(1)])
    assert bench.entries() == {entry(2, 1)}
