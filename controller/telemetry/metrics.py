"""Metrics of the controller, bound to a registry of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What is counted. All labels are of closed sets; none names a resource."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make all metrics.

        Args:
            registry: Of this process.
        """
        self._registry = registry
        self._passes = Counter(
            "controller_reconciles",
            "Passes over a resource, by how they ended: done, conflict, away, refused, late.",
            ["result"],
            registry=registry,
        )
        self._errors = Counter(
            "controller_reconcile_errors",
            "Passes that failed and come again.",
            registry=registry,
        )
        self._seconds = Histogram(
            "controller_reconcile_seconds",
            "Duration of passes.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._drift = Counter(
            "controller_drift_repaired",
            "Passes that no event asked for and that changed an object: what watches missed.",
            registry=registry,
        )
        self._writes = Counter(
            "controller_writes",
            "Writes to the API server, by kind of object and verb.",
            ["kind", "verb"],
            registry=registry,
        )
        self._watches_ended = Counter(
            "controller_watches_ended",
            "Times that the watches ended by themselves and were begun anew.",
            registry=registry,
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Show a value as it is when it is asked for.

        Args:
            name: Of the metric.
            what: It says.
            value: Returns at once.
        """
        Gauge(name, what, registry=self._registry).set_function(value)

    def passed(self, result: str, seconds: float) -> None:
        """Count a pass."""
        self._passes.labels(result).inc()
        self._seconds.observe(seconds)
        if result not in {"done", "conflict"}:
            self._errors.inc()

    def drifted(self) -> None:
        """Count drift."""
        self._drift.inc()

    def wrote(self, kind: str, verb: str) -> None:
        """Count a write."""
        self._writes.labels(kind, verb).inc()

    def watches_ended(self) -> None:
        """Count an end of the watches."""
        self._watches_ended.inc()

    def exposition(self) -> bytes:
        """Return all of it in the text format."""
        return generate_latest(self._registry)
