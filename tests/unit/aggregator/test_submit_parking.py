from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aggregator import parking
from aggregator.parking import ADVICE, ALARMING, QUIET, CannotSend, Parked, Reason
from tests.fakes.builders import a_batch_id, block

REASONS = st.sampled_from(Reason)


def park(before: Parked | None, reason: Reason, *, fork: int = 0, now: float = 100.0) -> Parked:
    problem = CannotSend(reason, "so it is")
    return parking.park(before, a_batch_id(1), block(9, fork), problem, now=now, luck=0.0)


def test_the_first_attempt_follows_soon() -> None:
    parked = park(None, Reason.PAUSED)
    assert (parked.attempts, parked.since, parked.retry_at) == (1, 100.0, 105.0)


def test_the_same_reason_waits_longer_each_time() -> None:
    first = park(None, Reason.PAUSED)
    second = park(first, Reason.PAUSED, now=105.0)
    assert (second.attempts, second.since, second.retry_at) == (2, 100.0, 115.0)


@pytest.mark.parametrize(
    ("reason", "fork"),
    [
        pytest.param(Reason.FEE_LIMIT, 0, id="another-reason"),
        pytest.param(Reason.PAUSED, 1, id="another-block"),
    ],
)
def test_another_case_starts_over(reason: Reason, fork: int) -> None:
    before = park(park(None, Reason.PAUSED), Reason.PAUSED)
    assert park(before, reason, fork=fork, now=200.0).retry_at == 205.0


@given(REASONS, st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_long_and_never_nothing(reason: Reason, attempts: int, luck: float) -> None:
    assert 3.75 <= parking.delay(reason, attempts, luck) <= parking.CAP_SECONDS


@pytest.mark.parametrize("reason", Reason)
def test_what_does_not_pass_by_itself_says_what_to_do(reason: Reason) -> None:
    assert (reason in QUIET) != (reason in ADVICE)
    assert reason not in QUIET & ALARMING
