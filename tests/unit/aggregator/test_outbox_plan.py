from __future__ import annotations

from collections.abc import Iterable

import pytest

from aggregator.chain.fees import Market, Offer, Policy, Unaffordable
from aggregator.chain.nonces import PATIENCE, REPEAT, Facts, Ledger, Slot
from aggregator.chain.plan import Action, Cancel, GiveUp, Raise, Repeat, Rules, plan
from aggregator.outbox import OutboxRow
from aligned.chain.calldata import BatchRecord
from aligned.model import BatchId, Wei
from tests.fakes.builders import batch, block
from tests.fakes.rows import row

ONE, TWO = batch(1), batch(2)
RULES = Rules(policy=Policy(), resubmit_after=36.0)
LIMIT = 315_000 * 250
"""Pays 250 per gas for a row of 300,000 gas."""


def record(*, created: int = 100, responded: bool = False, limit: int = LIMIT) -> BatchRecord:
    return BatchRecord(created_block=created, responded=responded, fee_limit=Wei(limit))


class Story:
    """A ledger that sees heads go by."""

    def __init__(self, *rows: OutboxRow, latest: int = 5) -> None:
        self.ledger = Ledger(rows, now=0.0)
        self.latest = latest
        self.head = 120
        self.base_fee = 100
        self.balance = 10**18
        self.records: dict[BatchId, BatchRecord] = {
            ONE.batch_id: record(),
            TWO.batch_id: record(),
        }
        self.waiting = 0
        self.rules = RULES

    def facts(self) -> Facts:
        return Facts(
            head=block(self.head),
            latest=self.latest,
            final=0,
            market=Market(Wei(self.base_fee), Wei(10)),
            balance=Wei(self.balance),
            receipts={},
            records=self.records,
        )

    def look(self, now: float = 0.0) -> list[Action]:
        """See one more head and return what is to do, with broadcasts and withdrawals done."""
        self.head += 1
        self.ledger.observe(self.facts(), now=now)
        actions = plan(self.ledger, self.facts(), self.rules, waiting=self.waiting, now=now)
        for action in actions:
            if isinstance(action, Repeat):
                self.slot(action.row.nonce).idle = 0
            if isinstance(action, GiveUp):
                self.slot(action.nonce).given_up = True
        return actions

    def looks(self, count: int) -> list[list[Action]]:
        return [self.look() for _ in range(count)]

    def slot(self, nonce: int) -> Slot:
        slot = self.ledger.get(nonce)
        assert slot is not None
        return slot


def kinds(actions: Iterable[Action]) -> list[tuple[str, int]]:
    return [(type(a).__name__, a.row.nonce if isinstance(a, Repeat) else a.nonce) for a in actions]


def test_known_bytes_are_broadcast_at_once_lowest_first() -> None:
    story = Story(row(6, TWO), row(5, ONE))
    assert kinds(story.look()) == [("Repeat", 5), ("Repeat", 6)]


def test_the_same_bytes_are_repeated_every_few_heads() -> None:
    story = Story(row(5, ONE))
    repeated = [bool(actions) for actions in story.looks(1 + 2 * REPEAT)]
    assert repeated == [True] + ([False] * (REPEAT - 1) + [True]) * 2


def test_nothing_is_to_do_about_what_is_mined() -> None:
    assert Story(row(5, ONE), latest=6).look() == []


# Raising.


def test_a_transaction_un_mined_for_long_is_raised() -> None:
    story = Story(row(5, ONE))
    story.look()
    assert story.look(now=36.0) == [Raise(5, Offer(Wei(226), Wei(12)))]


def test_only_the_lowest_is_raised() -> None:
    story = Story(row(5, ONE), row(6, TWO))
    story.look()
    assert kinds(story.look(now=36.0)) == [("Raise", 5)]


def test_the_next_gets_its_own_time_as_the_lowest() -> None:
    story = Story(row(5, ONE), row(6, TWO))
    story.look()
    story.latest = 6
    assert kinds(story.look(now=36.0)) == []
    assert kinds(story.look(now=72.0)) == [("Raise", 6)]


def test_no_raise_above_the_batchs_limit() -> None:
    story = Story(row(5, ONE, max_fee=240))
    story.look()
    assert kinds(story.look(now=36.0)) == []


def test_no_raise_above_our_own_cap() -> None:
    story = Story(row(5, ONE))
    story.rules = Rules(policy=Policy(max_fee=Wei(220)), resubmit_after=36.0)
    story.look()
    assert kinds(story.look(now=36.0)) == []


def test_no_raise_that_the_account_cannot_pay() -> None:
    story = Story(row(5, ONE))
    story.balance = 300_000 * 225
    story.look()
    assert kinds(story.look(now=36.0)) == []


def test_a_replacement_that_a_node_refused_is_raised_further() -> None:
    story = Story(row(5, ONE, max_fee=100), row(5, ONE, attempt=1, max_fee=113))
    story.look()
    story.slot(5).refused = True
    assert kinds(story.look()) == [("Raise", 5)]


def test_priced_out_and_able_to_pay_is_raised_before_its_time() -> None:
    story = Story(row(5, ONE, max_fee=90))
    assert [kinds(actions)[-1][0] for actions in story.looks(PATIENCE) if actions][-1] == "Raise"


def test_a_cancellation_is_raised_too() -> None:
    story = Story(row(5, gas=21_000), row(6, ONE))
    story.look()
    assert kinds(story.look(now=36.0)) == [("Raise", 5)]


# Giving up.


def priced_out(*more: OutboxRow) -> Story:
    """One's answer pays 150 at most, and the base fee is 200."""
    story = Story(row(5, ONE, max_fee=150, gas=300_000), *more)
    story.records[ONE.batch_id] = record(limit=315_000 * 150)
    story.records[TWO.batch_id] = record(limit=315_000 * 1000)
    story.base_fee = 200
    return story


def test_priced_out_and_nobody_waits_it_stays() -> None:
    story = priced_out()
    assert {name for actions in story.looks(20) for name, _ in kinds(actions)} == {"Repeat"}


def test_priced_out_it_is_offered_to_who_waits() -> None:
    story = priced_out()
    story.waiting = 1
    *before, last = story.looks(PATIENCE)
    assert not any(name == "GiveUp" for actions in before for name, _ in kinds(actions))
    (action,) = last
    assert action == GiveUp(5, ONE.batch_id, Unaffordable(Wei(266), Wei(150)))


def test_priced_out_it_is_cancelled_for_those_behind() -> None:
    story = priced_out(row(6, TWO, max_fee=900))
    *_, last = story.looks(PATIENCE)
    assert kinds(last)[:2] == [("GiveUp", 5), ("Cancel", 5)]


def test_offered_and_not_taken_it_is_cancelled() -> None:
    story = priced_out()
    story.waiting = 1
    names = [kinds(actions) for actions in story.looks(2 * PATIENCE)]
    assert [("Cancel", 5)] in names
    assert names.index([("GiveUp", 5)]) < names.index([("Cancel", 5)])


def test_offered_and_those_who_waited_cannot_pay_it_is_cancelled_at_once() -> None:
    story = priced_out()
    story.waiting = 1
    story.looks(PATIENCE)
    story.waiting = 0
    assert kinds(story.look()) == [("Cancel", 5)]


def test_a_cancellation_outbids_what_it_replaces() -> None:
    story = priced_out(row(6, TWO, max_fee=900))
    cancel = story.looks(PATIENCE)[-1][1]
    assert isinstance(cancel, Cancel)
    assert cancel.offer.max_fee * 100 >= 150 * 113
    assert cancel.offer.tip * 100 >= 10 * 113


def test_a_market_that_comes_back_takes_the_offer_back() -> None:
    story = priced_out()
    story.waiting = 1
    story.looks(PATIENCE)
    story.base_fee = 100
    assert kinds(story.look()) in ([], [("Repeat", 5)])
    assert not story.slot(5).given_up


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(record(responded=True), id="answered-otherwise"),
        pytest.param(record(created=0), id="reorged-away"),
        pytest.param(record(created=101), id="in-another-block"),
    ],
)
def test_an_answer_without_a_use_makes_way(found: BatchRecord) -> None:
    story = Story(row(5, ONE), row(6, TWO))
    story.records[ONE.batch_id] = found
    *_, last = story.looks(PATIENCE)
    assert kinds(last)[:2] == [("GiveUp", 5), ("Cancel", 5)]
    assert last[0] == GiveUp(5, ONE.batch_id, None)


def test_a_nonce_that_a_reorg_brought_back_is_not_used_for_a_batch_that_got_another() -> None:
    story = Story(row(5, ONE), row(6, ONE))
    assert kinds(story.look())[:2] == [("GiveUp", 5), ("Cancel", 5)]


# Gaps.


def test_a_gap_is_filled_for_those_behind() -> None:
    assert kinds(Story(row(6, ONE)).look()) == [("Cancel", 5), ("Repeat", 6)]


def test_a_gap_is_left_to_a_batch_that_is_ready() -> None:
    story = Story(row(6, ONE))
    story.waiting = 1
    assert kinds(story.look()) == [("Repeat", 6)]


# Limits.


def test_nothing_is_raised_while_no_block_comes() -> None:
    story = Story(row(5, ONE, max_fee=150))
    story.look()
    story.ledger.add(row(5, ONE, attempt=1, max_fee=170, tip=12), now=36.0)
    for now in (72.0, 720.0, 7200.0):  # the same head, however late
        story.ledger.observe(story.facts(), now=now)
        actions = plan(story.ledger, story.facts(), story.rules, waiting=0, now=now)
        assert "Raise" not in {name for name, _ in kinds(actions)}
    assert kinds(story.look(now=7200.0)) == [("Raise", 5)]


def test_a_cancellation_is_raised_to_a_multiple_of_the_market_and_no_further() -> None:
    story = Story(row(5))
    now, raises = 0.0, 0
    for attempt in range(1, 100):
        now += 36.0
        for action in story.look(now=now):
            if isinstance(action, Raise):
                raises = attempt
                offer = action.offer
                assert offer.max_fee <= 10 * (2 * story.base_fee + 10)
                again = row(5, attempt=attempt, max_fee=offer.max_fee, tip=offer.tip)
                story.ledger.add(again, now=now)
    assert 10 < raises < 40


def test_a_gap_has_room_even_if_all_above_is_taken() -> None:
    story = Story(*(row(nonce, batch(nonce)) for nonce in (6, 7, 8, 9)))
    story.waiting = 1  # so that the gap is left to the one that waits
    assert "Cancel" not in {name for name, _ in kinds(story.look())}
    assert story.ledger.room(4) == 1
    target = story.ledger.choose(batch(3).batch_id, 4)
    assert target is not None
    assert (target.nonce, target.replaces) == (5, ())


@pytest.mark.parametrize(
    ("max_fee", "raises"),
    [
        pytest.param(260, False, id="either-contract-may-have-passed-it"),
        pytest.param(290, True, id="only-one-that-bills-the-limit"),
    ],
)
def test_above_the_batchs_limit_a_raise_needs_a_contract_that_bills_no_more(
    max_fee: int, raises: bool
) -> None:
    story = Story(row(5, ONE, max_fee=max_fee))
    story.rules = Rules(policy=Policy(max_fee=Wei(1000)), resubmit_after=36.0)
    story.look()
    assert (kinds(story.look(now=36.0)) == [("Raise", 5)]) is raises
