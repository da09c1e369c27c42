"""What ``/metrics`` shows: the Go aggregator's names, old and new, and our own.

Stages keep plain counts of their own; a scrape reads them all at once through ``Snapshot``. Only
distributions are observed where they happen, through the histograms of ``Metrics``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aligned.model import OperatorId

PREFIX = "aligned_aggregator_"

MAX_OPERATORS = 1024
"""Operators shown one by one; a deployment has at most 200 of them."""

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SLOW = (0.1, 0.5, 1, 2.5, 5, 15, 30, 60, 120, 300, 900, 3600)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_SHARES = (0.67, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1)


@dataclass(slots=True)
class Upstream:
    """What the Go aggregator counts, since the start. Add to the fields."""

    received_tasks: int = 0
    """Batches seen on chain that were not answered yet."""
    aggregated_responses: int = 0
    """Answers of ours that were mined."""
    price_bumps: int = 0
    """Answers sent again with higher fees."""
    paid_for_batcher_times: int = 0
    """Answers that cost more than the batch's limit."""
    paid_for_batcher_ether: float = 0.0
    """By how much they did."""
    paid_ether: float = 0.0
    """What all answers cost."""
    respond_latency: float = 0.0
    """Seconds from the first broadcast to the receipt, of the last answer."""
    quorum_latency: float = 0.0
    """Seconds from the batch's event to the quorum, of the last batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The stages' counts at the moment of a scrape. Counts are since the start.

    Labels are bounded by whoever fills it in: outcomes, states and reasons are enums, endpoints
    and operators come from the configuration and the chain.
    """

    version: str = ""
    bls_backend: str = ""
    leads: bool = False
    term: int = 0
    """0 before the first."""
    store_reachable: bool | None = None
    """Whether the store that replicas share answers; None without one."""
    outbox_readable: bool | None = None
    """Whether this release can read every row in it; None without one."""
    store_restored: int = 0
    """Signatures that the shared store had forgotten."""
    responses: Mapping[str, int] = field(default_factory=dict)
    """By outcome."""
    calls_held: int = 0
    """Waiting for an operator or the store."""
    connections: int = 0
    connections_closed: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    verification_groups: int = 0
    verified_signatures: int = 0
    """Signatures that were checked, good or bad."""
    journal_commits: int = 0
    journal_entries: int = 0
    journal_bytes: int = 0
    """Size of the file."""
    batches: Mapping[str, int] = field(default_factory=dict)
    """In memory now, by state."""
    signatures: int = 0
    """In memory now."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """Now, by reason."""
    least_signed_share: float | None = None
    """Of the open batches, the smallest part of the stake that has signed; 0 to 1."""
    oldest_open_seconds: float | None = None
    """Age of the oldest open batch."""
    head_block: int | None = None
    head_age_seconds: float | None = None
    endpoints: Mapping[str, bool] = field(default_factory=dict)
    """Whether each is in use or could be, by name."""
    outbox: Mapping[str, int] = field(default_factory=dict)
    """Transactions not final yet, by state."""
    balance_ether: float | None = None
    """Of our account."""
    registered_operators: int = 0
    last_response_seconds: Mapping[OperatorId, float] = field(default_factory=dict)
    """Since each operator's last verified response."""
    telemetry_dropped: int = 0
    """Calls to Aligned's telemetry service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Everything that is shown, bound to one registry."""

    registry: CollectorRegistry
    upstream: Upstream
    loop_lag: Histogram
    """Seconds."""
    acknowledge_seconds: Histogram
    """From the response's arrival to its reply."""
    group_size: Histogram
    """Signatures per verification."""
    group_seconds: Histogram
    """Per verification."""
    commit_seconds: Histogram
    """Per journal commit."""
    commit_entries: Histogram
    """Signatures per journal commit."""
    quorum_seconds: Histogram
    """From the batch's event to the quorum."""
    answer_seconds: Histogram
    """From the quorum to the receipt."""
    answer_share: Histogram
    """Part of the stake that signed, of answers sent."""

    @classmethod
    def on(cls, registry: CollectorRegistry, read: Callable[[], Snapshot]) -> Metrics:
        """Register everything on ``registry``; each scrape calls ``read`` once."""

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(PREFIX + name, text, buckets=buckets, registry=registry)

        upstream = Upstream()
        registry.register(_Scrape(read, upstream))
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        return cls(
            registry=registry,
            upstream=upstream,
            loop_lag=histogram("loop_lag_seconds", "Lateness of the event loop", _FAST),
            acknowledge_seconds=histogram(
                "acknowledge_seconds", "From arrival to reply, the oldest of each commit", _FAST
            ),
            group_size=histogram("verification_group_size", "Signatures checked at once", _SIZES),
            group_seconds=histogram("verification_seconds", "One check of a group", _FAST),
            commit_seconds=histogram("journal_commit_seconds", "One commit with fsync", _FAST),
            commit_entries=histogram("journal_commit_size", "Signatures in a commit", _SIZES),
            quorum_seconds=histogram("quorum_seconds", "From a batch's event to quorum", _SLOW),
            answer_seconds=histogram("answer_seconds", "From quorum to the receipt", _SLOW),
            answer_share=histogram("answer_signed_share", "Stake that signed an answer", _SHARES),
        )

    def exposition(self) -> bytes:
        """Return the Prometheus text format, without the client library's creation times."""
        return generate_latest(_WithoutCreated(self.registry))


@dataclass(frozen=True, slots=True)
class _WithoutCreated:
    """They would double the number of series and say what ``process_start_time_seconds`` says."""

    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


@dataclass(frozen=True, slots=True, eq=False)
class _Scrape:
    """Turns a snapshot into families."""

    read: Callable[[], Snapshot]
    upstream: Upstream

    def describe(self) -> list[Metric]:
        """Nothing: so that registering does not read a snapshot before the stages exist."""
        return []

    def collect(self) -> Iterator[Metric]:
        snapshot = self.read()
        yield from _upstream(self.upstream)
        yield from _counts(snapshot)
        yield from _states(snapshot)
        yield from _operators(snapshot)


def _upstream(counts: Upstream) -> Iterator[Metric]:
    """Yield both spellings.

    The client library would append ``_total`` to what it knows as a counter, so counts go without
    a type, which ``rate()`` does not look at.

    Source: ``metrics/metrics.go`` of aligned_layer, v0.10.1 and later.
    """
    for name, text, value in (
        ("aggregated_responses", "Aggregated responses sent", counts.aggregated_responses),
        ("aggregator_received_tasks", "Tasks received", counts.received_tasks),
        ("operator_responses", "Always 0 on an aggregator", 0),
        ("respond_to_task_gas_price_bumped", "Gas price bumps", counts.price_bumps),
    ):
        yield _untyped(f"aligned_{name}", text, value)
        yield _untyped(f"aligned_{name}_count", text, value)
    yield _untyped(
        "aligned_aggregator_num_times_paid_for_batcher_count",
        "Times an answer cost more than the batch's limit",
        counts.paid_for_batcher_times,
    )
    yield _untyped(
        "aligned_aggregator_gas_cost_paid_total_count", "Ether paid for gas", counts.paid_ether
    )
    for name, text, amount in (
        ("gas_cost_paid_for_batcher_sum", "Ether paid over limits", counts.paid_for_batcher_ether),
        ("respond_to_task_latency", "Seconds to the last receipt", counts.respond_latency),
        ("task_quorum_reached_latency", "Seconds to the last quorum", counts.quorum_latency),
    ):
        yield GaugeMetricFamily(PREFIX + name, text, value=amount)


def _counts(snapshot: Snapshot) -> Iterator[Metric]:
    for name, text, value in (
        ("verification_groups", "Checks of groups of signatures", snapshot.verification_groups),
        ("verified_signatures", "Signatures checked", snapshot.verified_signatures),
        ("journal_commits", "Commits of the journal", snapshot.journal_commits),
        ("journal_entries", "Signatures written to the journal", snapshot.journal_entries),
        ("store_restored", "Signatures the shared store had forgotten", snapshot.store_restored),
        ("upstream_telemetry_dropped", "Telemetry calls not made", snapshot.telemetry_dropped),
    ):
        yield CounterMetricFamily(PREFIX + name, text, value=value)
    yield _labelled(
        CounterMetricFamily(PREFIX + "responses", "Responses received", labels=["outcome"]),
        snapshot.responses,
    )
    yield _labelled(
        CounterMetricFamily(PREFIX + "connections_closed", "By us", labels=["reason"]),
        snapshot.connections_closed,
    )


def _states(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["version", "bls_backend"]
    info = GaugeMetricFamily(PREFIX + "info", "What runs; always 1", labels=labels)
    info.add_metric([snapshot.version, snapshot.bls_backend], 1)
    yield info
    for name, text, value in (
        ("leader", "1 while this replica leads", int(snapshot.leads)),
        ("term", "Period of leadership; rises", snapshot.term),
        ("store_reachable", "1 while the shared store answers", snapshot.store_reachable),
        ("outbox_readable", "1 while the shared outbox can be read", snapshot.outbox_readable),
        ("calls_held", "Calls waiting for an operator or the store", snapshot.calls_held),
        ("connections", "Open connections of operators", snapshot.connections),
        ("journal_bytes", "Size of the journal", snapshot.journal_bytes),
        ("signatures", "Signatures in memory", snapshot.signatures),
        ("least_signed_share", "Least signed open batch, 0 to 1", snapshot.least_signed_share),
        ("oldest_open_seconds", "Age of the oldest open batch", snapshot.oldest_open_seconds),
        ("head_block", "Newest block seen", snapshot.head_block),
        ("head_age_seconds", "Age of the newest block seen", snapshot.head_age_seconds),
        ("balance_ether", "Of the account that answers", snapshot.balance_ether),
        ("registered_operators", "Operators with a known key", snapshot.registered_operators),
    ):
        if value is not None:
            yield GaugeMetricFamily(PREFIX + name, text, value=value)
    for name, text, label, values in (
        ("batches", "Batches in memory", "state", snapshot.batches),
        ("parked_batches", "Batches that cannot be answered now", "reason", snapshot.parked),
        ("outbox_transactions", "Transactions not final", "state", snapshot.outbox),
        ("endpoint_healthy", "1 while usable", "endpoint", snapshot.endpoints),
    ):
        yield _labelled(GaugeMetricFamily(PREFIX + name, text, labels=[label]), values)


def _operators(snapshot: Snapshot) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        PREFIX + "operator_last_response_seconds",
        "Since the operator's last verified response",
        labels=["operator"],
    )
    latest = sorted(snapshot.last_response_seconds.items())[:MAX_OPERATORS]
    yield _labelled(family, {"0x" + operator.hex(): age for operator, age in latest})


def _labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]
) -> Metric:
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _untyped(name: str, text: str, value: float) -> Metric:
    metric = Metric(name, text, "unknown")
    metric.add_sample(name, {}, value)
    return metric
