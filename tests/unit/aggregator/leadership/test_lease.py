from __future__ import annotations

from typing import Any

import pytest

from aggregator.leadership.election import Record
from aggregator.leadership.lease import (
    FENCED,
    HANDOVER_TO,
    LEASE_MILLISECONDS,
    micro_time,
    parse,
    render,
)


def a_lease(annotations: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "demo",
            "resourceVersion": "17",
            "labels": {"app": "demo"},
            "annotations": annotations,
            "managedFields": [{"manager": "somebody"}],
        },
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("lease", "record"),
    [
        pytest.param({}, Record(), id="nothing"),
        pytest.param({"metadata": None, "spec": None}, Record(), id="nulls"),
        pytest.param(
            a_lease(holderIdentity="a b", leaseTransitions=7, leaseDurationSeconds=15),
            Record(holder="a b", term=7, lease=15.0),
            id="somebody else's tool",
        ),
        pytest.param(
            a_lease({LEASE_MILLISECONDS: "1500"}, holderIdentity="a b", leaseDurationSeconds=2),
            Record(holder="a b", lease=1.5),
            id="the annotation is exact",
        ),
        pytest.param(
            a_lease({LEASE_MILLISECONDS: "soon"}, leaseDurationSeconds=2, leaseTransitions=-4),
            Record(lease=2.0),
            id="nonsense counts as not said",
        ),
        pytest.param(
            a_lease({HANDOVER_TO: " pod-2\n", FENCED: "pod-0, pod-1,,"}),
            Record(handover_to="pod-2", fenced=frozenset({"pod-0", "pod-1"})),
            id="what people ask for",
        ),
    ],
)
def test_a_lease_is_read(lease: dict[str, Any], record: Record) -> None:
    assert parse(lease).record == record


def test_the_version_is_that_of_the_object() -> None:
    assert parse(a_lease()).version == "17"


def test_what_is_written_reads_the_same() -> None:
    record = Record(holder="pod-0 boot", term=8, lease=1.5)
    assert parse(render(parse(a_lease({HANDOVER_TO: "pod-0"})), record, 0.0)).record == record


def test_what_is_not_ours_is_kept() -> None:
    seen = parse(a_lease({FENCED: "pod-1", "note": "hello"}, preferredHolder="x"))
    written = render(seen, Record(holder="a", term=1, lease=5.0), 0.0)
    assert written["metadata"]["labels"] == {"app": "demo"}
    assert written["metadata"]["resourceVersion"] == "17"
    assert written["metadata"]["annotations"]["note"] == "hello"
    assert written["metadata"]["annotations"][FENCED] == "pod-1"
    assert written["spec"]["preferredHolder"] == "x"
    assert "managedFields" not in written["metadata"]
    assert seen.source == a_lease({FENCED: "pod-1", "note": "hello"}, preferredHolder="x")


def test_the_time_of_acquisition_changes_with_the_term_only() -> None:
    first = render(parse(a_lease()), Record(holder="a", term=1, lease=5.0), 0.0)
    renewed = render(parse(first), Record(holder="a", term=1, lease=5.0), 9.0)
    again = render(parse(renewed), Record(holder="a", term=2, lease=5.0), 10.0)
    times = [(one["spec"]["acquireTime"], one["spec"]["renewTime"]) for one in (renewed, again)]
    assert times == [(micro_time(0.0), micro_time(9.0)), (micro_time(10.0), micro_time(10.0))]


@pytest.mark.parametrize(
    ("lease", "seconds"), [(1.5, 2), (5.0, 5), (0.0, 1)], ids=["rounded up", "whole", "none"]
)
def test_the_duration_is_a_whole_positive_number(lease: float, seconds: int) -> None:
    written = render(parse(a_lease()), Record(lease=lease), 0.0)
    assert written["spec"]["leaseDurationSeconds"] == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01T00:00:00.000000Z"), (1.5, "1970-01-01T00:00:01.500000Z")],
)
def test_times_have_six_fractional_digits(seconds: float, text: str) -> None:
    assert micro_time(seconds) == text
