from __future__ import annotations

from prometheus_client import CollectorRegistry

from aggregator.batches import Batches
from aggregator.outbox import Receipt
from aggregator.ports import Commit
from aggregator.quorum import Tally
from aggregator.story import Measures, Story
from aggregator.telemetry.metrics import Metrics, Snapshot
from aggregator.telemetry.upstream import UpstreamTelemetry
from aligned.model import Stake, TransactionHash, Wei
from tests.fakes.builders import a_batch_id, batch, block
from tests.fakes.stages import ManualClock


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.batches = Batches()
        self.metrics = Metrics.on(CollectorRegistry(), Snapshot)
        upstream = UpstreamTelemetry(None, self.clock)
        self.story = Story(self.metrics, upstream, self.batches, self.clock)

    def receipt(self, gas: int, price: int) -> Receipt:
        return Receipt(
            hash=TransactionHash(bytes(32)),
            block=block(103),
            succeeded=True,
            gas_used=gas,
            gas_price=Wei(price),
        )


async def test_a_batch_is_received_once_however_often_it_is_seen() -> None:
    bench = Bench()
    bench.batches.open(batch())
    bench.batches.open(batch(at=101, fork=1))
    assert bench.metrics.upstream.received_tasks == 1


async def test_the_oldest_batch_without_an_answer_has_an_age() -> None:
    bench = Bench()
    assert bench.story.oldest_open_seconds() is None
    bench.batches.open(batch(1))
    bench.clock.advance(5)
    bench.batches.open(batch(2))
    assert bench.story.oldest_open_seconds() == 5
    bench.batches.answer(a_batch_id(1), block(105))
    assert bench.story.oldest_open_seconds() == 0


async def test_times_from_event_to_quorum_to_answer_are_shown_as_upstream_does() -> None:
    bench = Bench()
    bench.batches.open(batch())
    bench.clock.advance(3)
    bench.story.quorum_reached(batch(), Tally(Stake(67), Stake(100)))
    bench.clock.advance(2)
    bench.batches.answer(a_batch_id(1), block(105))
    shown = bench.metrics.upstream
    assert (shown.quorum_latency, shown.respond_latency) == (3, 2)


async def test_what_an_answer_cost_is_counted_with_what_exceeded_its_limit() -> None:
    bench = Bench()
    bench.story.answer_mined(batch(fee_limit=10**15), bench.receipt(10**5, 10**10))
    shown = bench.metrics.upstream
    assert (shown.aggregated_responses, shown.paid_for_batcher_times) == (1, 0)
    bench.story.answer_mined(batch(fee_limit=10**15), bench.receipt(3 * 10**5, 10**10))
    assert (shown.aggregated_responses, shown.paid_for_batcher_times) == (2, 1)
    assert shown.paid_ether == 0.004
    assert shown.paid_for_batcher_ether == 0.002


async def test_what_verifying_and_committing_took_is_observed() -> None:
    bench = Bench()
    measures = Measures(bench.metrics, UpstreamTelemetry(None, bench.clock), bench.batches)
    measures.verdicts([], 0.5)
    measures.verdicts([], 0.7)
    measures.commit(Commit(signatures=7, journal_seconds=0.25, oldest_seconds=2.0))
    shown = bench.metrics.exposition().decode()
    for line in (
        "aligned_aggregator_verification_seconds_count 2.0",
        "aligned_aggregator_verification_seconds_sum 0.7",
        "aligned_aggregator_journal_commit_size_sum 7.0",
        "aligned_aggregator_journal_commit_seconds_sum 0.25",
        "aligned_aggregator_acknowledge_seconds_sum 2.0",
    ):
        assert line in shown
