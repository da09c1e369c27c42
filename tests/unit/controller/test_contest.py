from __future__ import annotations

from typing import Any

from controller.contest import Contests
from tests.fakes.cluster import Time

PATH = ("spec", "selector", "a")


def service(value: str) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "agg", "namespace": "test"},
        "spec": {"selector": {"a": value}},
    }


THEIRS: dict[str, Any] = {
    "metadata": {
        "managedFields": [{"manager": "other", "fieldsV1": {"f:spec": {"f:selector": {"f:a": {}}}}}]
    }
}


def rounds(contests: Contests, time: Time, count: int, value: str = "ours") -> int:
    """Let the other change the field back so often; return how often we answered."""
    answers = 0
    for _ in range(count):
        time.advance(1)
        if contests.held(service(value), THEIRS, (PATH,)) is None:
            contests.applied(service(value), (PATH,))
            answers += 1
    return answers


def test_after_three_rounds_a_field_is_let_be_and_the_other_is_named() -> None:
    time = Time()
    contests = Contests(time)
    assert rounds(contests, time, 10) == 4  # once because we wanted it, three times in answer
    note = contests.held(service("ours"), THEIRS, (PATH,))
    assert note is not None
    assert "other keeps changing spec.selector.a of Service agg" in note.message


def test_it_is_tried_again_later_and_ever_later() -> None:
    time = Time()
    contests = Contests(time)
    rounds(contests, time, 10)
    pauses = []
    for _ in range(4):
        waited = 0
        while contests.held(service("ours"), THEIRS, (PATH,)) is not None:
            time.advance(1)
            waited += 1
        contests.applied(service("ours"), (PATH,))
        pauses.append(waited)
    assert pauses == [54, 120, 240, 480]


def test_another_wish_is_no_contest() -> None:
    time = Time()
    contests = Contests(time)
    rounds(contests, time, 10)
    assert contests.held(service("another"), THEIRS, (PATH,)) is None
    assert rounds(contests, time, 10, "another") == 4


def test_after_a_quiet_while_it_is_over() -> None:
    time = Time()
    contests = Contests(time)
    rounds(contests, time, 10)
    time.advance(601)
    contests.applied(service("ours"), (("spec", "ports"),))
    assert rounds(contests, time, 10) == 4


def test_fields_are_counted_each_by_itself() -> None:
    time = Time()
    contests = Contests(time)
    for value in "abcdefgh":
        contests.applied(service(value), (PATH,))
    assert contests.held(service("h"), THEIRS, (PATH,)) is None


def test_a_field_that_nobody_contests_is_not_held_up_by_one_that_somebody_does() -> None:
    time = Time()
    contests = Contests(time)
    rounds(contests, time, 10)
    both = (PATH, ("spec", "ports"))
    assert contests.held(service("ours"), THEIRS, (PATH,)) is not None
    assert contests.held(service("ours"), THEIRS, both) is None


def test_a_contest_that_goes_on_for_days_is_let_be_for_as_long_each_time() -> None:
    time = Time()
    contests = Contests(time)
    rounds(contests, time, 10)
    for _ in range(60):
        while contests.held(service("ours"), THEIRS, (PATH,)) is not None:
            time.advance(60)
        contests.applied(service("ours"), (PATH,))
    time.advance(479)
    assert contests.held(service("ours"), THEIRS, (PATH,)) is not None
    time.advance(1)
    assert contests.held(service("ours"), THEIRS, (PATH,)) is None
