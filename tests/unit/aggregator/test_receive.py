from __future__ import annotations

import pytest

from aggregator.batches import ORPHAN_QUOTA, Batches
from aggregator.ports import ReplyCode
from aggregator.receive import (
    HIGH_WATER,
    HOLD_SECONDS,
    LOW_WATER,
    MAX_FAILURES,
    MAX_HELD,
    OVER_QUOTA,
    TOO_MANY_HELD,
    UNKNOWN_OPERATOR,
    Incoming,
    Intake,
    Neighbours,
)
from tests.fakes.builders import a_batch_id, batch, entry, operator_id, response, signature
from tests.fakes.stages import DictRegistry, ManualClock, RecordingCaller

ACCEPTED, REFUSED = ReplyCode.ACCEPTED, ReplyCode.REFUSED


class Bench:
    """An intake whose verifier and committer are lists."""

    def __init__(self) -> None:
        self.batches = Batches()
        self.registry = DictRegistry(1, 2, 3)
        self.clock = ManualClock()
        self.checking: list[Incoming] = []
        self.committing: list[Incoming] = []
        self.valve: list[str] = []
        self.intake = Intake(
            self.batches,
            self.registry,
            Neighbours(
                check=self.checking.append,
                commit=self.committing.append,
                pause=lambda: self.valve.append("pause"),
                resume=lambda: self.valve.append("resume"),
                measure=lambda commit: None,
            ),
            self.clock,
        )
        self.caller = RecordingCaller()

    def commit_all(self) -> None:
        for incoming in self.committing:
            self.batches.keep([incoming.entry], height=1)
            self.intake.done(incoming)
        self.committing.clear()

    def judge_all(self, *, good: bool = True) -> None:
        checking, self.checking[:] = list(self.checking), []
        self.intake.judge([(incoming, good) for incoming in checking])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_is_answered_before_the_commit(bench: Bench) -> None:
    bench.intake.receive(response(), bench.caller, 7)
    bench.judge_all()
    assert bench.caller.replies == []
    bench.commit_all()
    assert bench.caller.replies == [(7, ACCEPTED)]
    assert bench.intake.unfinished == 0


@pytest.mark.parametrize("judged", [False, True], ids=["while-checked", "while-committed"])
def test_a_repeat_joins_the_one_on_its_way(bench: Bench, judged: bool) -> None:
    again = RecordingCaller()
    bench.intake.receive(response(), bench.caller, 1)
    if judged:
        bench.judge_all()
    bench.intake.receive(response(), again, 2)
    if not judged:
        assert len(bench.checking) == 1
        bench.judge_all()
    assert len(bench.committing) == 1
    assert again.replies == []
    bench.commit_all()
    assert bench.caller.replies == [(1, ACCEPTED)]
    assert again.replies == [(2, ACCEPTED)]


def test_a_repeat_of_what_is_kept_is_committed_again_without_a_check(bench: Bench) -> None:
    bench.batches.keep([entry()], height=1)
    bench.intake.receive(response(), bench.caller, 1)
    assert bench.checking == []
    assert bench.caller.replies == []
    bench.commit_all()
    assert bench.caller.replies == [(1, ACCEPTED)]


def test_a_forged_signature_leaves_no_trace(bench: Bench) -> None:
    bench.intake.receive(response(), bench.caller, 1)
    bench.judge_all(good=False)
    assert bench.caller.replies == [(1, REFUSED)]
    assert bench.committing == []
    assert bench.intake.unfinished == 0
    assert operator_id(1) not in bench.intake.received.last_by_operator


@pytest.mark.parametrize("junk_at", [0, 1, 2], ids=["before", "beside", "after"])
def test_junk_in_somebodys_name_does_not_touch_the_real_one(bench: Bench, junk_at: int) -> None:
    junk = response(sig=signature(66, 66))
    stranger = RecordingCaller("203.0.113.9")
    sends = [(response(), bench.caller)]
    sends.insert(0 if junk_at == 0 else 1, (junk, stranger))
    for seq, (what, caller) in enumerate(sends):
        if junk_at == 2 and caller is stranger:
            bench.judge_all()
            bench.commit_all()
        bench.intake.receive(what, caller, seq)
    bench.intake.judge([(i, i.entry.signature == signature(1, 1)) for i in bench.checking])
    bench.commit_all()
    assert [code for _, code in bench.caller.replies] == [ACCEPTED]
    assert [code for _, code in stranger.replies] == [REFUSED]
    assert bench.batches.signature(a_batch_id(1), operator_id(1)) == signature(1, 1)


def test_the_connection_is_closed_after_three_failures(bench: Bench) -> None:
    for number in range(1, MAX_FAILURES + 1):
        assert not bench.caller.hung_up
        bench.intake.receive(response(number), bench.caller, number)
        bench.caller.standing.failures = number  # the verifier's part
        bench.judge_all(good=False)
    assert bench.caller.hung_up


def test_an_early_signature_is_kept(bench: Bench) -> None:
    bench.intake.receive(response(), bench.caller, 1)
    bench.judge_all()
    bench.commit_all()
    bench.batches.open(batch())
    state = bench.batches.get(a_batch_id(1))
    assert state is not None
    assert operator_id(1) in state.signatures


def test_a_late_signature_of_a_final_batch_is_accepted_and_not_kept(bench: Bench) -> None:
    bench.batches.finish([a_batch_id(1)])
    bench.intake.receive(response(), bench.caller, 1)
    bench.judge_all()
    assert bench.committing == []
    assert bench.caller.replies == [(1, ACCEPTED)]


def test_endless_invented_batches_end_at_the_quota(bench: Bench) -> None:
    for number in range(ORPHAN_QUOTA + 1):
        bench.intake.receive(response(number), bench.caller, number)
        bench.judge_all()
        bench.commit_all()
    assert bench.caller.replies[-1] == (ORPHAN_QUOTA, OVER_QUOTA)
    assert len(bench.batches) == ORPHAN_QUOTA


def test_the_quota_holds_for_what_was_checked_at_once(bench: Bench) -> None:
    for number in range(ORPHAN_QUOTA - 1):
        bench.batches.keep([entry(number)], height=1)
    for number in (ORPHAN_QUOTA, ORPHAN_QUOTA + 1):
        bench.intake.receive(response(number), bench.caller, number)
    for incoming in list(bench.checking):
        bench.intake.judge([(incoming, True)])
        bench.commit_all()
    assert [code for _, code in bench.caller.replies] == [ACCEPTED, OVER_QUOTA]
    assert bench.intake.unfinished == 0


def test_an_unknown_operator_is_held_until_it_is_registered(bench: Bench) -> None:
    bench.intake.receive(response(by=9), bench.caller, 1)
    bench.intake.recheck([operator_id(9)], began=bench.clock() - 1)
    assert bench.caller.replies == []
    assert bench.intake.held_operators == [operator_id(9)]
    bench.registry.register(9)
    bench.intake.recheck([], began=bench.clock() - 1)
    bench.judge_all()
    bench.commit_all()
    assert bench.caller.replies == [(1, ACCEPTED)]
    assert bench.intake.held_operators == []


def test_an_operator_unknown_at_a_later_head_gets_an_error_to_try_again(bench: Bench) -> None:
    bench.intake.receive(response(by=9), bench.caller, 1)
    bench.clock.advance(2)
    bench.intake.recheck([operator_id(8)], began=bench.clock())
    assert bench.caller.replies == []
    bench.intake.recheck([operator_id(9)], began=bench.clock())
    assert bench.caller.replies == [(1, UNKNOWN_OPERATOR)]


@pytest.mark.parametrize("waited", [0.0, HOLD_SECONDS - 1], ids=["at-once", "almost"])
def test_while_the_chain_is_away_unknown_operators_wait(bench: Bench, waited: float) -> None:
    bench.intake.receive(response(by=9), bench.caller, 1)
    bench.clock.advance(waited)
    bench.intake.recheck([], began=bench.clock())
    assert bench.caller.replies == []
    bench.clock.advance(HOLD_SECONDS)
    bench.intake.recheck([], began=bench.clock())
    assert bench.caller.replies == [(1, UNKNOWN_OPERATOR)]


def test_calls_that_are_held_are_bounded(bench: Bench) -> None:
    for seq in range(MAX_HELD + 1):
        bench.intake.receive(response(by=9), bench.caller, seq)
    assert bench.caller.replies == [(MAX_HELD, TOO_MANY_HELD)]


def test_a_connection_that_went_away_is_no_longer_held(bench: Bench) -> None:
    bench.intake.receive(response(by=9), bench.caller, 1)
    bench.intake.dropped(bench.caller)
    assert bench.intake.held_operators == []


def test_what_a_connection_without_merit_leaves_behind_is_withdrawn(bench: Bench) -> None:
    other = RecordingCaller()
    bench.intake.receive(response(1), bench.caller, 1)
    bench.intake.receive(response(2), bench.caller, 2)
    bench.intake.receive(response(2), other, 1)
    bench.intake.dropped(bench.caller)
    assert [incoming.withdrawn for incoming in bench.checking] == [True, False]
    assert bench.intake.unfinished == 1
    bench.judge_all()  # one verdict was on its way already
    bench.commit_all()
    assert bench.caller.replies == []
    assert other.replies == [(1, ACCEPTED)]
    assert bench.intake.unfinished == 0


def test_what_was_withdrawn_may_come_again_before_the_old_verdict(bench: Bench) -> None:
    again = RecordingCaller()
    bench.intake.receive(response(), bench.caller, 1)
    bench.intake.dropped(bench.caller)
    bench.intake.receive(response(), again, 1)
    old, new = bench.checking
    bench.intake.judge([(old, True)])
    assert bench.committing == []
    bench.intake.judge([(new, True)])
    bench.commit_all()
    assert again.replies == [(1, ACCEPTED)]


@pytest.mark.parametrize("verified", [0, 1], ids=["of-a-newcomer", "of-a-proven-one"])
def test_what_is_verified_is_kept_after_its_connection_is_gone(bench: Bench, verified: int) -> None:
    bench.caller.standing.verified = verified
    bench.intake.receive(response(), bench.caller, 1)
    if not verified:
        bench.judge_all()
    bench.intake.dropped(bench.caller)
    bench.judge_all()
    bench.commit_all()
    assert bench.batches.signature(a_batch_id(1), operator_id(1)) == signature(1, 1)


def test_ingress_pauses_while_too_much_is_not_durable(bench: Bench) -> None:
    bench.batches.open(batch(1))
    for by in range(10, 10 + HIGH_WATER):
        bench.registry.register(by)
        assert bench.valve == []
        bench.intake.receive(response(1, by), bench.caller, by)
    assert bench.valve == ["pause"]
    bench.judge_all()
    while bench.intake.unfinished > LOW_WATER:
        assert bench.valve == ["pause"]
        bench.intake.done(bench.committing.pop())
    assert bench.valve == ["pause", "resume"]
