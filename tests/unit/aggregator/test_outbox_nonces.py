from __future__ import annotations

from collections.abc import Iterable

import pytest

from aggregator.chain.fees import Market
from aggregator.chain.nonces import PATIENCE, Facts, Fate, Ledger
from aggregator.outbox import OutboxRow, Receipt
from aligned.chain.calldata import BatchRecord
from aligned.model import BatchId, Wei
from tests.fakes.builders import batch, block
from tests.fakes.rows import receipt, row

ONE, TWO = batch(1), batch(2)


def facts(
    latest: int,
    *,
    at: int = 120,
    final: int = 0,
    receipts: Iterable[Receipt] = (),
    base_fee: int = 100,
    records: dict[BatchId, BatchRecord] | None = None,
    answered: Iterable[BatchId] = (),
) -> Facts:
    return Facts(
        head=block(at),
        latest=latest,
        final=final,
        market=Market(Wei(base_fee), Wei(10)),
        balance=Wei(10**18),
        receipts={found.hash: found for found in receipts},
        records=records or {},
        answered_finally=frozenset(answered),
    )


def observed(rows: Iterable[OutboxRow], *looks: Facts) -> Ledger:
    ledger = Ledger(rows)
    for look in looks:
        ledger.observe(look, now=0.0)
    return ledger


def fates(ledger: Ledger) -> dict[int, Fate]:
    return {slot.nonce: slot.fate for slot in ledger}


def heads(latest: int, count: int, *, start: int = 121) -> list[Facts]:
    return [facts(latest, at=start + step) for step in range(count)]


# What became of a nonce.


def test_what_is_not_consumed_is_open() -> None:
    assert fates(observed([row(5, ONE)], facts(5))) == {5: Fate.OPEN}


@pytest.mark.parametrize(
    ("succeeded", "fate"),
    [
        pytest.param(True, Fate.MINED, id="success"),
        pytest.param(False, Fate.REVERTED, id="a-revert-is-no-success"),
    ],
)
def test_a_receipt_of_any_attempt_decides(succeeded: bool, fate: Fate) -> None:
    first, second = row(5, ONE), row(5, ONE, attempt=1, max_fee=300)
    ledger = observed([first, second], facts(6, receipts=[receipt(first, succeeded=succeeded)]))
    assert fates(ledger) == {5: fate}


def test_a_consumed_nonce_without_a_receipt_is_foreign_only_after_several_heads() -> None:
    ledger = observed([row(5, ONE)], facts(5))
    seen = []
    for look in heads(6, PATIENCE):
        ledger.observe(look, now=0.0)
        seen.append(fates(ledger)[5])
    assert seen == [Fate.UNSEEN] * (PATIENCE - 1) + [Fate.FOREIGN]


def test_looking_twice_at_one_head_proves_nothing() -> None:
    ledger = observed([row(5, ONE)], facts(5), *[facts(6, at=121)] * 10)
    assert fates(ledger) == {5: Fate.UNSEEN}


def test_a_receipt_that_shows_late_clears_the_suspicion() -> None:
    ours = row(5, ONE)
    ledger = observed([ours], facts(5), *heads(6, PATIENCE + 2))
    ledger.observe(facts(6, at=140, receipts=[receipt(ours)]), now=0.0)
    assert fates(ledger) == {5: Fate.MINED}


def test_a_nonce_used_that_was_never_ours_is_noticed() -> None:
    ledger = observed([], facts(5), *heads(7, PATIENCE))
    assert fates(ledger) == {5: Fate.FOREIGN, 6: Fate.FOREIGN}
    assert not any(slot.inherited for slot in ledger)


def test_what_was_used_before_the_term_is_marked_as_inherited() -> None:
    ledger = observed([row(4, ONE), row(5, TWO)], facts(5), *heads(6, PATIENCE))
    assert [(slot.nonce, slot.inherited) for slot in ledger] == [(4, True), (5, False)]


def test_a_reorg_opens_the_nonce_and_the_same_bytes_are_due() -> None:
    ours = row(5, ONE)
    ledger = observed([ours], facts(5), facts(6, at=121, receipts=[receipt(ours)]))
    (slot,) = ledger
    slot.idle = 0
    ledger.observe(facts(5, at=121), now=0.0)
    assert slot.fate is Fate.OPEN
    assert slot.idle > 0


def test_only_changes_are_reported() -> None:
    ours = row(5, ONE)
    ledger = Ledger([ours])
    mined = facts(6, at=121, receipts=[receipt(ours)])
    reported = [len(ledger.observe(look, now=0.0)) for look in (facts(5), mined, mined)]
    assert reported == [0, 1, 0]


# Who may have which nonce.


def test_the_next_nonce_follows_the_highest_that_is_known() -> None:
    ledger = observed([row(5, ONE), row(6, TWO)], facts(5))
    target = ledger.choose(batch(3).batch_id, 4)
    assert target is not None
    assert (target.nonce, target.attempt, target.replaces) == (7, 0, ())


def test_a_gap_is_filled_first() -> None:
    ledger = observed([row(7, ONE)], facts(5))
    chosen = []
    for number in (3, 4, 5):
        target = ledger.choose(batch(number).batch_id, 4)
        assert target is not None
        chosen.append(target.nonce)
        ledger.add(row(target.nonce, batch(number)), now=0.0)
    assert chosen == [5, 6, 8]


def test_an_open_batch_only_gets_its_own_nonce_again() -> None:
    ledger = observed([row(5, ONE), row(6, TWO)], facts(5))
    target = ledger.choose(ONE.batch_id, 4)
    assert target is not None
    assert (target.nonce, target.attempt) == (5, 1)
    assert [offer.max_fee for offer in target.replaces] == [200]


def test_a_mined_batch_gets_none() -> None:
    ours = row(5, ONE)
    ledger = observed([ours], facts(6, receipts=[receipt(ours)]))
    assert ledger.choose(ONE.batch_id, 4) is None


@pytest.mark.parametrize("succeeded", [True, False], ids=["while-unseen", "after-a-revert"])
def test_another_nonce_only_after_the_first_was_consumed_otherwise(succeeded: bool) -> None:
    ours = row(5, ONE)
    if succeeded:
        ledger = observed([ours], facts(5), facts(6, at=121))
        assert ledger.choose(ONE.batch_id, 4) is None
    else:
        ledger = observed([ours], facts(6, receipts=[receipt(ours, succeeded=False)]))
        target = ledger.choose(ONE.batch_id, 4)
        assert target is not None
        assert target.nonce == 6


def test_a_batch_whose_nonce_another_took_waits_until_it_is_consumed() -> None:
    ours, taker = row(5, ONE), row(5, TWO, attempt=1, max_fee=300)
    ledger = observed([ours, taker], facts(5))
    assert ledger.live(ONE.batch_id) is ledger.live(TWO.batch_id)
    ledger.observe(facts(6, at=121, receipts=[receipt(taker)]), now=0.0)
    assert ledger.live(ONE.batch_id) is None
    assert ledger.live(TWO.batch_id) is not None


def test_no_more_than_allowed_are_in_flight() -> None:
    ledger = observed([row(5, ONE), row(6, TWO)], facts(5))
    assert ledger.room(2) == 0
    assert ledger.choose(batch(3).batch_id, 2) is None


def test_a_nonce_given_up_makes_room_and_goes_first() -> None:
    ledger = observed([row(5, ONE), row(6, TWO)], facts(5))
    slot = ledger.get(5)
    assert slot is not None
    slot.given_up = True
    assert ledger.room(2) == 1
    target = ledger.choose(batch(3).batch_id, 2)
    assert target is not None
    assert (target.nonce, target.attempt) == (5, 1)


# Forgetting.


@pytest.mark.parametrize(
    ("final", "answered", "forgotten"),
    [
        pytest.param(5, [ONE.batch_id], [], id="not-final"),
        pytest.param(6, [ONE.batch_id], [5], id="final-and-answered"),
        pytest.param(6, [], [], id="an-answer-that-storage-does-not-show-is-kept"),
    ],
)
def test_a_mined_answer_is_kept_until_it_is_final(
    final: int, answered: list[BatchId], forgotten: list[int]
) -> None:
    ours = row(5, ONE)
    look = facts(6, final=final, receipts=[receipt(ours)], answered=answered)
    ledger = observed([ours], look)
    assert [slot.nonce for slot in ledger.finished(look)] == forgotten


def test_a_final_nonce_that_others_used_is_forgotten_once_that_is_sure() -> None:
    looks = [facts(6, at=at, final=6) for at in range(120, 120 + PATIENCE)]
    ledger = observed([row(5, ONE)], *looks[:-1])
    assert not ledger.finished(looks[-2])
    ledger.observe(looks[-1], now=0.0)
    assert [slot.nonce for slot in ledger.finished(looks[-1])] == [5]
