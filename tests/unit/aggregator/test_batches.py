from __future__ import annotations

from hypothesis import given, strategies as st

from aggregator.batches import ORPHAN_QUOTA, Batches
from aligned.model import BatchId, Entry, OperatorId, Signature
from tests.fakes.builders import (
    a_batch_id,
    batch,
    block,
    entry,
    operator_id,
    operator_set,
    signature,
)


def held(batches: Batches) -> dict[BatchId, dict[OperatorId, Signature]]:
    return {state.batch_id: dict(state.signatures) for state in batches}


def test_a_repeat_counts_once() -> None:
    batches = Batches()
    assert batches.keep([entry()], height=1) == [entry()]
    assert batches.keep([entry()], height=2) == []


def test_the_first_value_stays() -> None:
    batches = Batches()
    batches.keep([entry()], height=1)
    other = Entry(a_batch_id(1), operator_id(1), signature(9, 9))
    assert batches.keep([other], height=1) == []
    assert batches.signature(a_batch_id(1), operator_id(1)) == signature(1, 1)


@given(st.permutations([entry(n, by) for n in (1, 2) for by in (1, 2, 3)]), st.integers(0, 5))
def test_any_order_of_merging_gives_the_same_set(entries: list[Entry], cut: int) -> None:
    ordered, mixed = Batches(), Batches()
    ordered.keep(sorted(entries), height=1)
    mixed.keep(entries[cut:], height=1)
    mixed.open(batch(1))
    mixed.keep(entries, height=7)
    assert held(mixed) == held(ordered)


def test_an_early_signature_joins_its_batch() -> None:
    batches = Batches()
    batches.keep([entry()], height=99)
    batches.open(batch())
    state = batches.get(a_batch_id(1))
    assert state is not None
    assert state.is_open
    assert state.orphan_since is None
    assert operator_id(1) in state.signatures


def test_signatures_for_batches_off_chain_are_bounded_per_operator() -> None:
    batches = Batches()
    for number in range(ORPHAN_QUOTA):
        assert batches.has_room(a_batch_id(number), operator_id(1))
        batches.keep([entry(number)], height=1)
    assert not batches.has_room(a_batch_id(ORPHAN_QUOTA), operator_id(1))
    assert batches.has_room(a_batch_id(ORPHAN_QUOTA), operator_id(2))
    assert batches.has_room(a_batch_id(0), operator_id(1))


def test_a_batch_that_appears_gives_its_room_back() -> None:
    batches = Batches()
    for number in range(ORPHAN_QUOTA):
        batches.keep([entry(number)], height=1)
    batches.open(batch(0))
    assert batches.has_room(a_batch_id(ORPHAN_QUOTA), operator_id(1))


def test_forgetting_gives_room_back() -> None:
    batches = Batches()
    for number in range(ORPHAN_QUOTA):
        batches.keep([entry(number)], height=1)
    batches.forget([a_batch_id(3)])
    assert batches.has_room(a_batch_id(ORPHAN_QUOTA), operator_id(1))


def test_a_batch_that_moved_loses_what_was_derived_and_keeps_signatures() -> None:
    batches = Batches()
    batches.open(batch(at=100))
    batches.keep([entry()], height=100)
    batches.set_operators(batch(at=100), operator_set(1))
    batches.open(batch(at=101, fork=1))
    state = batches.get(a_batch_id(1))
    assert state is not None
    assert state.operators is None
    assert operator_id(1) in state.signatures


def test_operators_of_a_block_that_is_gone_are_ignored() -> None:
    batches = Batches()
    batches.open(batch(at=101, fork=1))
    batches.set_operators(batch(at=100), operator_set(1))
    state = batches.get(a_batch_id(1))
    assert state is not None
    assert state.operators is None


def test_a_reorg_of_the_answer_opens_the_batch_again() -> None:
    batches = Batches()
    batches.open(batch(at=100))
    batches.answer(a_batch_id(1), block(105))
    batches.retract([block(105).hash], height=104)
    state = batches.get(a_batch_id(1))
    assert state is not None
    assert state.is_open


def test_a_reorg_of_the_batch_keeps_its_signatures_until_it_is_back() -> None:
    batches = Batches()
    batches.open(batch(at=100))
    batches.keep([entry()], height=100)
    batches.retract([block(100).hash], height=99)
    gone = batches.get(a_batch_id(1))
    assert gone is not None
    assert (gone.batch, gone.orphan_since) == (None, 99)
    batches.open(batch(at=101, fork=1))
    back = batches.get(a_batch_id(1))
    assert back is not None
    assert back.is_open
    assert operator_id(1) in back.signatures


def test_an_evicted_signature_never_comes_back() -> None:
    batches = Batches()
    batches.keep([entry()], height=1)
    batches.evict([entry()])
    assert batches.keep([entry()], height=2) == []
    good = Entry(a_batch_id(1), operator_id(1), signature(9, 9))
    assert batches.keep([good], height=2) == [good]


def test_an_eviction_of_another_value_changes_nothing() -> None:
    batches = Batches()
    batches.keep([entry()], height=1)
    batches.evict([Entry(a_batch_id(1), operator_id(1), signature(9, 9))])
    assert batches.signature(a_batch_id(1), operator_id(1)) == signature(1, 1)


def test_a_final_batch_is_remembered_without_its_signatures() -> None:
    batches = Batches()
    batches.keep([entry()], height=1)
    batches.finish([a_batch_id(1)])
    assert batches.is_final(a_batch_id(1))
    assert batches.get(a_batch_id(1)) is None


def test_listeners_hear_of_everything_that_may_matter() -> None:
    batches = Batches()
    heard: list[BatchId] = []
    batches.on_change(heard.append)
    batches.keep([entry(1), entry(2)], height=1)
    batches.open(batch(1))
    batches.open(batch(1))
    batches.set_operators(batch(1), operator_set(1))
    batches.answer(a_batch_id(1), block(105))
    batches.answer(a_batch_id(1), block(105))
    assert heard == [a_batch_id(n) for n in (1, 2, 1, 1, 1)]
