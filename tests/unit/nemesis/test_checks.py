"""Every check passes a good history and fails one that is spoiled in one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.nemesis import checks
from tests.nemesis.history import Call, Exit, History, Post, Row, Sent
from tests.nemesis.judge import judged
from tests.nemesis.plan import Options
from tests.unit.nemesis.histories import (
    BOUNDS,
    OPERATORS,
    POSTED,
    acknowledged,
    answered,
    batch,
    claims,
    good,
    leads,
    row,
    transaction,
)

FIRST = POSTED + 10
"""When batch 1 was posted and term 1 began."""
SECOND = POSTED + 20


def lose(history: History, pair: tuple[int, int]) -> None:
    """Take a pair of batch number and operator from every disk."""
    for kept in history.kept.values():
        kept.discard((batch(pair[0]), OPERATORS[pair[1]]))


def test_a_good_history_has_no_problems() -> None:
    outcome = judged(good(), Options(seed=1, minutes=1), Path())
    assert outcome.problems == ()
    assert (outcome.signatures.acknowledged, outcome.signatures.counted) == (10, 10)
    assert (outcome.answers.posted, outcome.answers.answered) == (2, 2)
    assert (outcome.terms.terms, outcome.terms.effects) == (2, 2)
    assert outcome.longest_without_acknowledgement == pytest.approx(9.6)


# Signatures.


def test_a_signature_acknowledged_before_the_term_that_answered_without_it_is_lost() -> None:
    history = good()
    history.calls[5] = acknowledged(2, 0, SECOND - 0.001)
    history.mined[1] = answered(2, without=[0])
    found = checks.signatures(history, BOUNDS)
    assert (found.lost, found.late, found.counted) == (1, 0, 9)
    assert "answered without it in term 2" in found.problems[0]


def test_one_acknowledged_when_the_answer_was_being_made_may_come_too_late() -> None:
    history = good()
    history.calls[5] = acknowledged(2, 0, SECOND + 3)
    history.mined[1] = answered(2, without=[0])
    found = checks.signatures(history, BOUNDS)
    assert (found.lost, found.late, found.counted, found.problems) == (0, 1, 9, ())


@pytest.mark.parametrize(("after", "lost"), [(0.9, 1), (1.1, 0)])
def test_one_acknowledged_long_before_the_decision_is_lost(after: float, lost: int) -> None:
    """An answer without it: four others, then the window, less what a signature may take."""
    history = good()
    history.mined[1] = answered(2, without=[0])
    quorum = SECOND + 7.0
    history.calls[9] = acknowledged(2, 4, quorum + 0.1, opened=quorum)
    history.calls[5] = acknowledged(2, 0, quorum + after)
    found = checks.signatures(history, BOUNDS)
    assert (found.lost, found.late) == (lost, 1 - lost)


def test_the_first_acknowledgement_counts_and_a_repeat_does_not() -> None:
    history = good()
    history.calls[5] = acknowledged(2, 0, SECOND - 1)
    history.calls.append(acknowledged(2, 0, SECOND + 30))
    history.mined[1] = answered(2, without=[0])
    assert checks.signatures(history, BOUNDS).lost == 1


def test_a_signature_missing_on_one_disk_is_lost_while_its_batch_is_not_final() -> None:
    history = good()
    history.kept["replica-1"].discard((batch(1), OPERATORS[3]))
    found = checks.signatures(history, BOUNDS)
    assert found.lost == 1
    assert "not in the journal of replica-1" in found.problems[0]
    history.final.add(batch(1))
    assert checks.signatures(history, BOUNDS).lost == 0


def test_a_signature_on_a_batch_that_was_never_answered_must_be_on_disk() -> None:
    history = good()
    del history.mined[1]
    assert checks.signatures(history, BOUNDS).lost == 0
    lose(history, (2, 1))
    assert checks.signatures(history, BOUNDS).lost == 1


def test_an_answer_that_reverted_counts_nobody() -> None:
    history = good()
    history.mined[1] = answered(2, succeeded=False)
    lose(history, (2, 1))
    found = checks.signatures(history, BOUNDS)
    assert (found.counted, found.lost) == (5, 1)


def test_what_was_never_acknowledged_may_be_missing() -> None:
    history = good()
    history.calls[6] = Call(batch(2), OPERATORS[1], SECOND, SECOND + 1, None, "connection lost")
    history.mined[1] = answered(2, without=[1])
    lose(history, (2, 1))
    found = checks.signatures(history, BOUNDS)
    assert (found.acknowledged, found.problems) == (9, ())


def test_an_honest_signature_that_is_refused_is_a_problem() -> None:
    history = good()
    history.calls[6] = Call(batch(2), OPERATORS[1], SECOND, SECOND + 1, 1)
    assert "got reply 1" in checks.signatures(history, BOUNDS).problems[0]


# Answers.


def test_a_batch_answered_twice_is_a_problem() -> None:
    history = good()
    history.verified[batch(1)].append(transaction(9))
    found = checks.answers(history)
    assert (found.twice, found.answered) == (1, 2)
    assert "batch 1" in found.problems[0]


def test_a_batch_never_answered_is_a_problem() -> None:
    history = good()
    history.posts.append(Post(3, batch(3), SECOND + 10))
    found = checks.answers(history)
    assert (found.posted, found.answered) == (3, 2)
    assert found.problems == (f"batch 3 ({batch(3).hex()[:8]}) was not answered once: never",)


def test_a_second_answer_that_reverted_is_counted_as_wasted() -> None:
    history = good()
    history.mined.append(answered(1, name=9, succeeded=False))
    history.rows.append(row(9, 2, SECOND + 5))
    found = checks.answers(history)
    assert (found.wasted, found.twice) == (1, 0)
    assert "300000 gas wasted" in found.problems[0]


def test_a_transaction_that_nobody_wrote_down_is_a_problem() -> None:
    history = good()
    del history.rows[0]
    assert "is in no outbox" in checks.answers(history).problems[0]


# Terms.


def test_two_leaders_in_a_term_are_a_problem() -> None:
    history = good()
    history.leading.append(leads(2, SECOND + 1, "replica-0.else"))
    assert checks.terms(history).problems == ("term 2 had 2 leaders: replica-0.else, replica-2.2",)


def test_a_leader_that_leads_its_term_again_is_none() -> None:
    history = good()
    history.leading.append(leads(2, SECOND + 5))
    history.claims.append(claims(2, SECOND + 4.9))
    assert checks.terms(history).problems == ()


def test_a_claim_that_nobody_confirmed_is_none() -> None:
    history = good()
    history.claims.append(claims(2, SECOND - 0.2, "replica-0.else"))
    history.claims.append(claims(3, SECOND - 0.2))
    assert checks.terms(history).problems == ()


def test_terms_that_fall_are_a_problem() -> None:
    history = good()
    history.leading.append(leads(3, FIRST - 5))
    history.claims.append(claims(3, FIRST - 5.1))
    assert any("after term 3" in problem for problem in checks.terms(history).problems)


def test_an_effect_of_an_older_term_after_a_newer_one_began_is_a_problem() -> None:
    history = good()
    history.rows.append(row(9, 1, SECOND - 0.05))
    history.sent.append(Sent("replica-1", transaction(9), SECOND + 3))
    [problem] = checks.terms(history).problems
    assert "of term 1 was written down" in problem
    assert "after term 2 began" in problem


def test_it_is_one_after_the_newer_ones_first_effect_even_if_no_claim_was_seen() -> None:
    history = good()
    history.claims.clear()
    history.rows.append(row(9, 1, SECOND + 2.001))
    history.mined.append(answered(1, name=9))
    assert any("of term 1 was written" in problem for problem in checks.terms(history).problems)


def test_a_late_broadcast_of_what_was_written_down_in_time_is_none() -> None:
    history = good()
    history.sent[0] = replace(history.sent[0], at=SECOND + 50)
    history.rows.append(row(1, 1, SECOND + 40))  # brought back after Redis had forgotten it
    assert checks.terms(history).problems == ()


def test_a_row_of_an_older_term_that_nobody_ever_sent_is_none() -> None:
    history = good()
    history.rows.append(row(9, 1, SECOND + 5))
    assert checks.terms(history).problems == ()


def test_an_effect_of_a_term_that_nobody_led_is_a_problem() -> None:
    history = good()
    history.rows.append(row(9, 7, SECOND + 5))
    history.mined.append(answered(2, name=9))
    assert any("term 7, which nobody led" in problem for problem in checks.terms(history).problems)


def test_a_row_that_only_a_journal_has_is_known_and_has_no_place_in_the_order() -> None:
    history = good()
    history.rows.append(Row(transaction(9), 1, batch(1), None, "replica-0"))
    history.mined.append(answered(1, name=9))
    assert checks.terms(history).problems == ()
    assert checks.answers(history).problems == ()


# Calls.


def test_a_call_that_is_never_answered_nor_closed_is_a_problem() -> None:
    history = good()
    history.calls.append(Call(batch(2), OPERATORS[0], history.ended - 61))
    found = checks.calls(history, BOUNDS)
    assert "is open after 61.0 s" in found.problems[0]


def test_a_call_that_was_opened_just_now_is_none() -> None:
    history = good()
    history.calls.append(Call(batch(2), OPERATORS[0], history.ended - 59))
    assert checks.calls(history, BOUNDS).problems == ()


def test_a_call_that_hung_and_ended_at_last_is_a_problem() -> None:
    history = good()
    history.calls.append(
        Call(batch(2), OPERATORS[0], SECOND, SECOND + 62, None, "connection lost: reset")
    )
    found = checks.calls(history, BOUNDS)
    assert "ended (connection lost: reset) after 62.0 s" in found.problems[0]
    assert found.longest == 62


# Recovery.


def test_a_replica_that_ends_by_itself_is_a_problem() -> None:
    history = good()
    history.exits.append(Exit("replica-1", 1, SECOND))
    assert checks.recovery(history) == (f"replica-1 ended with 1 at {SECOND:.3f}",)


def test_what_was_not_mended_is_a_problem_of_the_whole() -> None:
    history = good()
    history.unmended.append("after step 3: nobody leads")
    assert judged(history, Options(seed=1, minutes=1), Path()).problems == (
        "after step 3: nobody leads",
    )
