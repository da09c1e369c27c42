"""Tells metrics and upstream's telemetry how signatures and batches get on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.batches import Batches
    from aggregator.outbox import Receipt
    from aggregator.ports import Clock, Commit
    from aggregator.quorum import Tally
    from aggregator.receive import Incoming
    from aggregator.telemetry.metrics import Metrics
    from aggregator.telemetry.upstream import UpstreamTelemetry
    from aligned.model import Batch, BatchId, TransactionHash

_ETHER = 10**18


class Story:
    """Tells metrics and upstream's telemetry how batches get on; implements ``Milestones``.

    Args:
        metrics: Ours.
        upstream: Aligned's telemetry service.
        batches: The memory.
        clock: Seconds.
    """

    def __init__(
        self, metrics: Metrics, upstream: UpstreamTelemetry, batches: Batches, clock: Clock
    ) -> None:
        self._metrics = metrics
        self._upstream = upstream
        self._batches = batches
        self._clock = clock
        self._opened: dict[BatchId, float] = {}
        self._reached: dict[BatchId, float] = {}
        batches.on_change(self._changed)

    def _changed(self, batch_id: BatchId) -> None:
        state = self._batches.get(batch_id)
        if state is None or state.batch is None:
            self._opened.pop(batch_id, None)
            self._reached.pop(batch_id, None)
        elif state.is_open:
            if batch_id not in self._opened:
                self._opened[batch_id] = self._clock()
                self._metrics.upstream.received_tasks += 1
                self._upstream.init_task(state.batch.merkle_root)
        elif batch_id in self._opened:
            self._answered(state.batch)

    def _answered(self, batch: Batch) -> None:
        del self._opened[batch.batch_id]
        reached = self._reached.pop(batch.batch_id, None)
        if reached is not None:
            seconds = self._clock() - reached
            self._metrics.answer_seconds.observe(seconds)
            self._metrics.upstream.respond_latency = seconds
        self._upstream.finish_task(batch.merkle_root)

    def oldest_open_seconds(self) -> float | None:
        """Return for how long this process has known the batch that waits longest."""
        return self._clock() - min(self._opened.values()) if self._opened else None

    def quorum_reached(self, batch: Batch, counted: Tally) -> None:
        """See ``Milestones.quorum_reached``."""
        del counted
        now = self._clock()
        self._reached[batch.batch_id] = now
        seconds = now - self._opened.get(batch.batch_id, now)
        self._metrics.quorum_seconds.observe(seconds)
        self._metrics.upstream.quorum_latency = seconds
        self._upstream.quorum_reached(batch.merkle_root)

    def answer_mined(self, batch: Batch, receipt: Receipt) -> None:
        """See ``Milestones.answer_mined``."""
        counts = self._metrics.upstream
        counts.aggregated_responses += 1
        paid = receipt.gas_used * receipt.gas_price
        counts.paid_ether += paid / _ETHER
        if paid > batch.fee_limit:
            counts.paid_for_batcher_times += 1
            counts.paid_for_batcher_ether += (paid - batch.fee_limit) / _ETHER
        self._upstream.task_sent(batch.merkle_root, receipt.hash, receipt.gas_price)

    def answer_sent(self, batch: Batch, transaction: TransactionHash, counted: Tally) -> None:
        """See ``Milestones.answer_sent``."""
        del batch, transaction
        self._metrics.answer_share.observe(counted.signed / counted.total)


class Measures:
    """Tells metrics and upstream's telemetry what verifying and committing took."""

    def __init__(self, metrics: Metrics, upstream: UpstreamTelemetry, batches: Batches) -> None:
        self._metrics = metrics
        self._upstream = upstream
        self._batches = batches
        self._seconds = 0.0

    def verdicts(self, verdicts: Sequence[tuple[Incoming, bool]], seconds: float) -> None:
        """Take one call of the backend; ``seconds`` are those of all calls so far."""
        self._metrics.group_size.observe(len(verdicts))
        self._metrics.group_seconds.observe(seconds - self._seconds)
        self._seconds = seconds
        if self._upstream.is_told:
            for incoming, is_good in verdicts:
                state = self._batches.get(incoming.entry.batch_id)
                if is_good and state is not None and state.batch is not None:
                    self._upstream.operator_response(
                        state.batch.merkle_root, incoming.entry.operator_id
                    )

    def commit(self, commit: Commit) -> None:
        """Take one commit."""
        self._metrics.commit_entries.observe(commit.signatures)
        self._metrics.commit_seconds.observe(commit.journal_seconds)
        self._metrics.acknowledge_seconds.observe(commit.oldest_seconds)
