from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from aggregator.telemetry.metrics import MAX_OPERATORS, Metrics, Snapshot
from aligned.model import OperatorId

V10 = (
    "aligned_aggregated_responses",
    "aligned_aggregator_received_tasks",
    "aligned_operator_responses",
)
LATE = (
    "aligned_aggregated_responses_count",
    "aligned_aggregator_received_tasks_count",
    "aligned_operator_responses_count",
    "aligned_aggregator_gas_cost_paid_for_batcher_sum",
    "aligned_aggregator_num_times_paid_for_batcher_count",
    "aligned_aggregator_gas_cost_paid_total_count",
    "aligned_respond_to_task_gas_price_bumped_count",
    "aligned_aggregator_respond_to_task_latency",
    "aligned_aggregator_task_quorum_reached_latency",
)


def metrics(snapshot: Snapshot | None = None) -> Metrics:
    return Metrics.on(CollectorRegistry(), lambda: snapshot or Snapshot())


def lines(shown: Metrics) -> list[str]:
    return shown.exposition().decode().splitlines()


def value(shown: Metrics, series: str) -> float:
    (line,) = [line for line in lines(shown) if line.startswith(series + " ")]
    return float(line.removeprefix(series + " "))


@pytest.mark.parametrize("name", [*V10, *LATE])
def test_the_names_of_the_go_aggregator_are_there_to_the_letter(name: str) -> None:
    assert value(metrics(), name) == 0.0


def test_both_spellings_count_the_same() -> None:
    shown = metrics()
    shown.upstream.received_tasks += 3
    shown.upstream.aggregated_responses += 2
    for suffix in ("", "_count"):
        assert value(shown, f"aligned_aggregator_received_tasks{suffix}") == 3
        assert value(shown, f"aligned_aggregated_responses{suffix}") == 2


def test_a_scrape_reads_the_stages_once_and_at_that_moment() -> None:
    terms = iter(range(1, 10))
    shown = Metrics.on(CollectorRegistry(), lambda: Snapshot(term=next(terms)))
    assert value(shown, "aligned_aggregator_term") == 1
    assert value(shown, "aligned_aggregator_term") == 2


def test_what_the_stages_know_is_shown() -> None:
    shown = metrics(
        Snapshot(
            version="1.2",
            bls_backend="arkworks",
            leads=True,
            outbox_readable=False,
            responses={"accepted": 5, "refused": 1},
            batches={"open": 2},
            parked={"fee_limit": 1},
            endpoints={"local": True, "far": False},
            outbox={"in_flight": 4},
            head_age_seconds=1.5,
            last_response_seconds={OperatorId(b"\x01" * 32): 9.0},
        )
    )
    prefix = "aligned_aggregator_"
    assert value(shown, prefix + 'info{bls_backend="arkworks",version="1.2"}') == 1
    assert value(shown, prefix + "leader") == 1
    assert value(shown, prefix + "outbox_readable") == 0
    assert value(shown, prefix + 'responses_total{outcome="accepted"}') == 5
    assert value(shown, prefix + 'batches{state="open"}') == 2
    assert value(shown, prefix + 'parked_batches{reason="fee_limit"}') == 1
    assert value(shown, prefix + 'endpoint_healthy{endpoint="far"}') == 0
    assert value(shown, prefix + 'outbox_transactions{state="in_flight"}') == 4
    assert value(shown, prefix + "head_age_seconds") == 1.5
    operator = "0x" + "01" * 32
    assert value(shown, prefix + f'operator_last_response_seconds{{operator="{operator}"}}') == 9


def test_what_is_not_known_is_not_shown() -> None:
    text = metrics().exposition().decode()
    assert "aligned_aggregator_head_age_seconds" not in text
    assert "aligned_aggregator_balance_ether" not in text
    assert "aligned_aggregator_outbox_readable" not in text


def test_distributions_are_observed_where_they_happen() -> None:
    shown = metrics()
    shown.loop_lag.observe(0.02)
    shown.commit_seconds.observe(0.004)
    assert value(shown, 'aligned_aggregator_loop_lag_seconds_bucket{le="0.025"}') == 1
    assert value(shown, "aligned_aggregator_journal_commit_seconds_count") == 1


def test_operators_are_bounded() -> None:
    ages = {OperatorId(number.to_bytes(32)): 1.0 for number in range(MAX_OPERATORS + 5)}
    shown = lines(metrics(Snapshot(last_response_seconds=ages)))
    series = [line for line in shown if "operator_last_response_seconds{" in line]
    assert len(series) == MAX_OPERATORS


def test_there_are_no_creation_times() -> None:
    assert "_created" not in metrics().exposition().decode()


def test_the_process_is_shown() -> None:
    assert value(metrics(), "process_resident_memory_bytes") > 0


def test_the_text_is_what_prometheus_reads() -> None:
    text = metrics(Snapshot(endpoints={'odd"\n': True})).exposition().decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert "aligned_aggregated_responses" in names


def test_two_registries_know_nothing_of_each_other() -> None:
    one, other = metrics(), metrics()
    one.upstream.received_tasks += 1
    one.loop_lag.observe(1)
    assert value(other, "aligned_aggregator_received_tasks") == 0
    assert value(other, "aligned_aggregator_loop_lag_seconds_count") == 0
