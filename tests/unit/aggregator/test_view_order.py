from __future__ import annotations

from aggregator.batches import Batches
from aggregator.ingress.statistics import Ending, Statistics
from aggregator.view import in_order
from aligned.telemetry.plain import plain
from tests.fakes.builders import a_batch_id, batch, entry


def test_batches_that_anybody_may_invent_are_listed_last() -> None:
    batches = Batches()
    batches.keep([entry(9)], height=1)
    batches.open(batch(2, at=200))
    batches.open(batch(1, at=100))
    assert [state.batch_id for state in in_order(batches)] == [a_batch_id(n) for n in (1, 2, 9)]


def test_counts_by_reason_are_shown_by_reason() -> None:
    statistics = Statistics()
    statistics.connections_ended[Ending.EVICTED] = 16
    shown = plain(statistics)
    assert isinstance(shown, dict)
    assert shown["connections_ended"] == {"evicted": 16}
