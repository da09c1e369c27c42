from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aggregator.batches import Batches
from aggregator.chain.signer import SignerUnavailable
from aggregator.outbox import Standing
from aggregator.parking import CannotSend, Reason
from aggregator.submit import Submitter
from aligned.chain import abi
from aligned.errors import ChainUnavailable, Deposed, StoreUnavailable
from aligned.model import Batch, Entry, Term
from tests.fakes.builders import batch, block, operator_id, operator_set, signature
from tests.fakes.prover import FakeProver, Heard
from tests.fakes.stages import ManualClock
from tests.fakes.store import MemoryStore
from tests.fakes.transactor import FakeTransactor

ONE, TWO, THREE = batch(1), batch(2), batch(3)
WINDOW = 15.0
EVERYBODY = (1, 2, 3, 4)


async def settle() -> None:
    """Let every task run until it waits for something from outside."""
    for _ in range(60):
        await asyncio.sleep(0)


class World:
    def __init__(self) -> None:
        self.batches = Batches()
        self.prover = FakeProver()
        self.store = MemoryStore()
        self.transactor = FakeTransactor()
        self.clock = ManualClock()
        self.heard = Heard()
        self.begun: list[tuple[Term, str, tuple[Term, str]]] = []
        """Terms that were told to have begun, with the fence as it was."""
        self.submitter = Submitter(
            batches=self.batches,
            prover=self.prover,
            store=self.store,
            transactor=self.transactor,
            window=WINDOW,
            clock=self.clock,
            milestones=self.heard,
            luck=lambda: 0.0,
        )

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            term = group.create_task(self.submitter.run(Term(1), "me", self._begun))
            await settle()
            yield
            term.cancel()

    def _begun(self, term: Term, holder: str) -> None:
        self.begun.append((term, holder, self.store.fence))

    async def open(self, one: Batch, *signers: int) -> None:
        """Show a batch with four members of equal stake, and hold these signatures."""
        self.batches.open(one)
        self.batches.set_operators(one, operator_set(100, 100, 100, 100))
        await self.sign(one, *signers)

    async def sign(self, one: Batch, *signers: int) -> None:
        entries = [Entry(one.batch_id, operator_id(by), signature(1, by)) for by in signers]
        self.batches.keep(entries, height=100)
        await settle()

    async def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.submitter.look_again()
        await settle()

    @property
    def answered(self) -> list[Batch]:
        by_id = {one.batch_id: one for one in (ONE, TWO, THREE)}
        return [by_id[batch_id] for batch_id, _ in self.transactor.answered]

    def reason(self, one: Batch) -> Reason | None:
        found = [p.reason for p in self.submitter.parked if p.batch_id == one.batch_id]
        return found[0] if found else None


@pytest.fixture
def world() -> World:
    return World()


# When.


async def test_everybodys_signatures_fire_at_once(world: World) -> None:
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.answered == [ONE]
    assert world.heard.sent == [(ONE.batch_id, 400)]


async def test_a_quorum_waits_for_the_window(world: World) -> None:
    async with world.leading():
        await world.open(ONE, 1, 2, 3)
        await world.after(WINDOW - 1)
        assert not world.answered
        await world.after(1)
        assert world.answered == [ONE]


async def test_the_last_signature_ends_the_window(world: World) -> None:
    async with world.leading():
        await world.open(ONE, 1, 2, 3)
        assert not world.answered
        await world.sign(ONE, 4)
        assert world.answered == [ONE]
    assert world.heard.quorums == [ONE.batch_id]


async def test_too_little_stake_never_fires(world: World) -> None:
    async with world.leading():
        await world.open(ONE, 1, 2)
        await world.after(10_000)
        assert not world.answered


async def test_a_batch_not_on_chain_waits_for_it(world: World) -> None:
    async with world.leading():
        await world.sign(ONE, *EVERYBODY)
        assert not world.answered
        await world.open(ONE)
        assert world.answered == [ONE]


async def test_what_was_there_before_the_term_is_found(world: World) -> None:
    await world.open(ONE, *EVERYBODY)
    async with world.leading():
        assert world.answered == [ONE]


async def test_what_changes_while_the_term_is_claimed_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.submit._CLAIM_RETRY_SECONDS", 0.0)
    world.store.fail = True
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert not world.begun
        world.store.fail = False
        await settle()
        assert world.answered == [ONE]


async def test_without_a_term_nothing_is_noted_for_one(world: World) -> None:
    async with world.leading():
        pass
    await world.open(TWO, *EVERYBODY)
    world.batches.finish([TWO.batch_id])
    assert not world.submitter._dirty
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.answered == [ONE]
    assert not world.submitter._dirty


async def test_an_answered_batch_is_left_alone(world: World) -> None:
    await world.open(ONE, *EVERYBODY)
    world.batches.answer(ONE.batch_id, block(101))
    async with world.leading():
        await world.after(100)
        assert not world.answered


async def test_an_answer_that_a_reorg_took_back_is_due_again(world: World) -> None:
    await world.open(ONE, *EVERYBODY)
    world.batches.answer(ONE.batch_id, block(101))
    async with world.leading():
        world.batches.retract([block(101).hash], height=101)
        await settle()
        assert world.answered == [ONE]


# How many.


async def test_what_is_under_way_is_not_prepared_again(world: World) -> None:
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        for _ in range(3):
            await world.after(60)
        assert world.answered == [ONE]


async def test_no_more_are_prepared_than_there_is_room_for(world: World) -> None:
    world.transactor.free = 2
    async with world.leading():
        for one in (ONE, TWO, THREE):
            await world.open(one, *EVERYBODY)
        assert world.answered == [ONE, TWO]
        assert world.submitter.waiting() == 1
        world.transactor.free = 1
        await world.after(0)
        assert world.answered == [ONE, TWO, THREE]


async def test_a_stale_answer_is_replaced_without_room(world: World) -> None:
    world.transactor.free = 0
    world.transactor.standings[ONE.batch_id] = Standing.STALE
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.answered == [ONE]


async def test_a_nonce_that_others_consumed_frees_its_batch(world: World) -> None:
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        world.transactor.standings[ONE.batch_id] = Standing.FREE
        await world.after(0)
        assert world.answered == [ONE, ONE]


# With what.


async def test_non_signers_are_asked_about_ascending(world: World) -> None:
    async with world.leading():
        await world.open(ONE, 2, 4, 3)
        await world.after(WINDOW)
    assert world.transactor.surveyed == [(ONE.batch_id, (operator_id(1),))]


async def test_who_signs_while_the_chain_is_asked_is_used(world: World) -> None:
    late = Entry(ONE.batch_id, operator_id(4), signature(1, 4))

    def sign_late() -> None:
        world.batches.keep([late], height=100)

    world.transactor.on_survey = sign_late
    async with world.leading():
        await world.open(ONE, 1, 2, 3)
        await world.after(WINDOW)
    assert world.heard.sent == [(ONE.batch_id, 400)]
    ((_, data),) = world.transactor.answered
    assert data.startswith(abi.RESPOND_TO_TASK_V2)
    assert len(data) == 868


async def test_a_batch_that_moves_meanwhile_is_built_anew(world: World) -> None:
    moved = batch(1, at=101)

    def move() -> None:
        world.transactor.on_survey = lambda: None
        world.batches.open(moved)
        world.batches.set_operators(moved, operator_set(100, 100, 100, 100, at=101))

    world.transactor.on_survey = move
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert len(world.transactor.answered) == 1
    assert len(world.transactor.surveyed) == 2


# What is bad.


async def test_bad_signatures_are_evicted_everywhere_and_the_rest_goes_on(world: World) -> None:
    bad = Entry(ONE.batch_id, operator_id(2), signature(1, 2))
    world.prover.bad = {operator_id(2)}
    world.store.entries.add(bad)
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert not world.answered
        await world.after(WINDOW)
        assert world.answered == [ONE]
    assert world.batches.signature(ONE.batch_id, operator_id(2)) is None
    assert world.store.refuted == {bad}
    assert world.batches.keep([bad], height=100) == []


async def test_an_eviction_that_the_store_does_not_confirm_is_tried_again(world: World) -> None:
    world.prover.bad = {operator_id(2)}
    async with world.leading():
        world.store.fail = True
        await world.open(ONE, *EVERYBODY)
        assert world.reason(ONE) is Reason.STORE_AWAY
        world.store.fail = False
        await world.after(60)
        await world.after(WINDOW)
        assert world.answered == [ONE]
    assert world.store.refuted


# Parking.


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        pytest.param(CannotSend(Reason.PAUSED, "so"), Reason.PAUSED, id="refused"),
        pytest.param(ChainUnavailable("so"), Reason.CHAIN_AWAY, id="chain"),
        pytest.param(StoreUnavailable("so"), Reason.STORE_AWAY, id="store"),
        pytest.param(SignerUnavailable("so"), Reason.SIGNER_AWAY, id="signer"),
    ],
)
async def test_what_cannot_be_sent_is_parked_and_tried_again(
    world: World, problem: Exception, reason: Reason
) -> None:
    world.transactor.refuse = problem
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.reason(ONE) is reason
        await world.after(4.9)
        assert len(world.transactor.surveyed) == 1
        await world.after(0.1)
        assert len(world.transactor.surveyed) == 2
        world.transactor.refuse = None
        await world.after(10)
        assert world.answered == [ONE]
        assert world.reason(ONE) is None


async def test_each_reason_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.transactor.refuse = CannotSend(Reason.PAUSED, "so")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        for _ in range(3):
            await world.after(1000)
        world.transactor.refuse = CannotSend(Reason.BATCHER_FUNDS, "so")
        await world.after(1000)
    told = [record.__dict__["reason"] for record in caplog.records if "parked" in record.message]
    assert told == [Reason.PAUSED, Reason.BATCHER_FUNDS]


async def test_too_early_is_tried_at_the_next_head(world: World) -> None:
    world.transactor.refuse = CannotSend(Reason.TOO_EARLY, "so")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        world.transactor.refuse = None
        await world.after(0)
        assert world.answered == [ONE]


async def test_a_parked_batch_in_another_block_is_another_case(world: World) -> None:
    world.transactor.refuse = CannotSend(Reason.NO_QUORUM_DATA, "so")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        world.transactor.refuse = None
        moved = batch(1, at=101)
        await world.open(moved)
        assert world.answered == [ONE]


async def test_an_unknown_key_is_named_and_waited_for(world: World) -> None:
    world.prover.refuse = CannotSend(Reason.NO_QUORUM_DATA, "the key of 0b is not known")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.submitter.parked[0].detail == "the key of 0b is not known"


async def test_while_nothing_may_be_sent_batches_show_why(world: World) -> None:
    world.transactor.blocked = CannotSend(Reason.FOREIGN_NONCE, "nonce 5")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.reason(ONE) is Reason.FOREIGN_NONCE
        assert not world.transactor.surveyed
        world.transactor.blocked = None
        await world.after(0)
        assert world.answered == [ONE]


async def test_what_an_earlier_term_sent_is_not_sent_anew_once_the_account_is_known(
    world: World,
) -> None:
    world.transactor.blocked = CannotSend(Reason.CHAIN_AWAY, "the account was not looked at yet")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        world.transactor.standings[ONE.batch_id] = Standing.UNDER_WAY
        world.transactor.blocked = None
        await world.after(0)
        assert not world.answered
        # undone: now it is due
        world.transactor.standings[ONE.batch_id] = Standing.FREE
        await world.after(0)
        assert world.answered == [ONE]


async def test_an_answer_that_reverts_each_time_waits_longer_each_time(world: World) -> None:
    waits = []
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        for _ in range(4):
            world.transactor.standings[ONE.batch_id] = Standing.FREE
            world.transactor.free = 4
            world.submitter.park(ONE.batch_id, CannotSend(Reason.REVERT, "mined and reverted"))
            (parked,) = world.submitter.parked
            waits.append(parked.retry_at - world.clock())
            sent = len(world.answered)
            await world.after(waits[-1] - 1)
            assert len(world.answered) == sent
            await world.after(1)
            assert len(world.answered) == sent + 1
    assert waits == [5.0, 10.0, 20.0, 40.0]


async def test_the_oldest_batches_are_answered_first(world: World) -> None:
    late, early = batch(1, at=90), batch(2, at=80)
    async with world.leading():
        world.transactor.free = 0
        await world.open(late, *EVERYBODY)
        await world.open(early, *EVERYBODY)
        world.transactor.free = 2
        await world.after(0)
    answered = [batch_id for batch_id, _ in world.transactor.answered]
    assert answered == [early.batch_id, late.batch_id]


async def test_a_parked_batch_that_is_answered_is_forgotten(world: World) -> None:
    world.transactor.refuse = CannotSend(Reason.ANSWERED, "so")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        world.batches.answer(ONE.batch_id, block(101))
        await settle()
        assert not world.submitter.parked


# The term.


async def test_a_claim_that_is_not_confirmed_is_repeated(world: World) -> None:
    world.store.fail = True
    async with asyncio.TaskGroup() as group:
        term = group.create_task(world.submitter.run(Term(1), "me"))
        await settle()
        assert world.transactor.desk is None
        term.cancel()


async def test_a_claim_that_is_not_confirmed_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.submit._CLAIM_RETRY_SECONDS", 0.0)
    world.store.fail = True
    async with world.leading():
        await settle()
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one.msg.split(":")[0] for one in warnings] == ["the term cannot begin"]


async def test_a_term_has_begun_when_it_is_claimed_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.submit._CLAIM_RETRY_SECONDS", 0.0)
    world.store.fail = True
    async with world.leading():
        assert world.begun == []
        world.store.fail = False
        await settle()
        assert world.begun == [(Term(1), "me", (Term(1), "me"))]


async def test_a_refused_claim_begins_no_term(world: World) -> None:
    world.store.fence = (Term(9), "another")
    with pytest.raises(Deposed):
        await world.submitter.run(Term(1), "me")
    assert world.transactor.desk is None


@pytest.mark.parametrize("where", ["run", "answer"])
async def test_the_end_of_the_term_ends_its_work(world: World, where: str) -> None:
    setattr(world.transactor, {"run": "fail_run", "answer": "refuse"}[where], Deposed("over"))
    await world.open(ONE, *EVERYBODY)
    with pytest.raises(ExceptionGroup) as ended:
        await world.submitter.run(Term(1), "me")
    assert ended.group_contains(Deposed)


async def test_a_term_that_is_over_shows_nothing_that_waits(world: World) -> None:
    world.transactor.refuse = CannotSend(Reason.PAUSED, "so")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        assert world.reason(ONE) is Reason.PAUSED
        world.transactor.blocked = CannotSend(Reason.FOREIGN_NONCE, "nonce 5")
    assert world.submitter.parked == []
    assert world.transactor.blocked is None


async def test_the_next_term_starts_afresh(world: World) -> None:
    world.transactor.refuse = CannotSend(Reason.PAUSED, "so")
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
    world.transactor.refuse = None
    async with asyncio.TaskGroup() as group:
        term = group.create_task(world.submitter.run(Term(2), "me"))
        await settle()
        assert world.answered == [ONE]
        term.cancel()


async def test_observing_looks_once_and_tells(world: World) -> None:
    world.transactor.is_observing = True
    async with world.leading():
        await world.open(ONE, *EVERYBODY)
        await world.after(1000)
        assert world.answered == [ONE]
        assert world.submitter.observed == {ONE.batch_id: ONE.created}
    assert not world.heard.sent
