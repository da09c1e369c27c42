"""The record as a Kubernetes Lease: pure.

``leaseTransitions`` is the term. A Lease counts whole seconds, so the true length is an
annotation beside it; a Lease without one was written by somebody else's tool.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from math import ceil
from typing import Any, TypeAlias

from aggregator.leadership.election import Record
from aggregator.leadership.lock import Held

Lease: TypeAlias = dict[str, Any]
"""The object as JSON."""

DOMAIN = "aligned-aggregator.io"
LEASE_MILLISECONDS = f"{DOMAIN}/lease-milliseconds"
HANDOVER_TO = f"{DOMAIN}/handover-to"
"""Annotation for people: the name of the pod that shall lead."""
FENCED = f"{DOMAIN}/fenced"
"""Annotation for people: names of pods that shall not lead, with commas."""


def parse(lease: Lease) -> Held:
    """Return what a Lease says. What cannot be read counts as not said."""
    metadata, spec = lease.get("metadata") or {}, lease.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    fenced = (pod.strip() for pod in str(annotations.get(FENCED, "")).split(","))
    record = Record(
        holder=str(spec.get("holderIdentity") or ""),
        term=_number(spec.get("leaseTransitions")),
        lease=_number(annotations.get(LEASE_MILLISECONDS)) / 1000
        or _number(spec.get("leaseDurationSeconds")),
        handover_to=str(annotations.get(HANDOVER_TO, "")).strip(),
        fenced=frozenset(pod for pod in fenced if pod),
    )
    return Held(record, str(metadata.get("resourceVersion", "")), lease)


def _number(value: object) -> int:
    try:
        return max(int(str(value or 0)), 0)
    except ValueError:
        return 0


def render(seen: Held, record: Record, now: float) -> Lease:
    """Return the Lease to write in place of the one seen.

    Args:
        seen: As ``parse`` returned it; what we do not know about is kept.
        record: What it shall say. Who is fenced off is not ours to change.
        now: Wall clock, seconds since 1970.
    """
    lease: Lease = deepcopy(seen.source)
    metadata = lease["metadata"] = lease.get("metadata") or {}
    spec = lease["spec"] = lease.get("spec") or {}
    annotations = metadata["annotations"] = metadata.get("annotations") or {}
    metadata.pop("managedFields", None)
    annotations[LEASE_MILLISECONDS] = str(round(record.lease * 1000))
    if not record.handover_to:
        annotations.pop(HANDOVER_TO, None)
    spec["holderIdentity"] = record.holder
    spec["leaseTransitions"] = record.term
    spec["leaseDurationSeconds"] = ceil(record.lease) or 1
    spec["renewTime"] = micro_time(now)
    if record.term != seen.record.term:
        spec["acquireTime"] = spec["renewTime"]
    return lease


def micro_time(seconds: float) -> str:
    """Return a MicroTime; the API server wants exactly six fractional digits."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
