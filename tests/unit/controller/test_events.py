from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controller.events import events

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RESOURCE = {"metadata": {"name": "agg", "namespace": "test", "uid": "uid-1"}}


SINCE = "2026-03-01T12:00:00Z"


def told(
    *conditions: tuple[str, str, str], generation: int = 1, since: str = SINCE
) -> dict[str, Any]:
    return {
        "conditions": [
            {
                "type": of,
                "status": status,
                "reason": reason,
                "message": "why",
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
            for of, status, reason in conditions
        ]
    }


def recorded(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["type"], each["reason"]) for each in events(RESOURCE, before, after, NOW)]


def test_only_changes_are_told() -> None:
    one = told(("Ready", "True", "Serving"), ("Stalled", "False", "NotStalled"))
    assert recorded(one, one) == []
    other = told(("Ready", "False", "NoLeader"), ("Stalled", "False", "NotStalled"))
    assert recorded(one, other) == [("Warning", "NoLeader")]
    assert recorded(other, one) == [("Normal", "Serving")]


def test_a_new_generation_alone_is_no_news() -> None:
    one = told(("Ready", "True", "Serving"))
    assert recorded(one, told(("Ready", "True", "Serving"), generation=2)) == []


def test_the_first_status_tells_what_goes_on_and_what_is_wrong() -> None:
    first = told(
        ("Ready", "False", "Creating"),
        ("StoreHealthy", "Unknown", "NoReplica"),
        ("UpToDate", "True", "Current"),
        ("Reconciling", "True", "Creating"),
        ("Stalled", "False", "NotStalled"),
    )
    assert recorded({}, first) == [("Normal", "Creating")]
    stalled = told(("Stalled", "True", "NameConflict"))
    assert recorded({}, stalled) == [("Warning", "NameConflict")]


def test_work_is_told_when_it_begins_and_ends() -> None:
    def state(ready: str, reconciling: str, reason: str) -> dict[str, Any]:
        return told(("Ready", ready, reason), ("Reconciling", reconciling, reason))

    idle, one = state("True", "False", "Settled"), state("False", "True", "RollingOut")
    another = state("False", "True", "PodStarting")
    assert recorded(idle, one) == [("Normal", "RollingOut")]
    assert recorded(one, another) == []
    assert recorded(another, idle) == [("Normal", "Settled"), ("Normal", "Settled")]
    unled = state("False", "False", "NoLeader")
    assert recorded(another, unled) == [("Warning", "NoLeader"), ("Normal", "NoLeader")]


def test_another_reason_for_what_is_wrong_is_news() -> None:
    one, another = told(("Stalled", "True", "Refused")), told(("Stalled", "True", "NameConflict"))
    assert recorded(one, another) == [("Warning", "NameConflict")]
    fine, better = told(("UpToDate", "True", "Current")), told(("UpToDate", "True", "Newest"))
    assert recorded(fine, better) == []


def test_the_same_change_has_the_same_name_and_another_another() -> None:
    def name(*condition: str, generation: int = 1, since: str = SINCE) -> str:
        of, status, reason = condition
        after = told((of, status, reason), generation=generation, since=since)
        before = told((of, "Unknown", "Before"))
        [event] = events(RESOURCE, before, after, NOW)
        return str(event["metadata"]["name"])

    first = name("Ready", "False", "NoLeader")
    assert first == name("Ready", "False", "NoLeader")
    others = {
        name("Ready", "False", "NoLeader", generation=2),
        name("Ready", "False", "RollingOut"),
        name("Ready", "True", "NoLeader"),
        name("Stalled", "False", "NoLeader"),
        name("Ready", "False", "NoLeader", since="2026-03-01T13:00:00Z"),
    }
    assert len(others | {first}) == 6
    assert all(each.startswith("agg.") and len(each) < 253 for each in others)
