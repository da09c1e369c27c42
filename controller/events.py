"""Events for people, of what changed in the status. Nobody depends on them.

Whoever wrote a status tells what changed in it, so nothing is told twice: it is written only over
the one that was read. What was written last by a process that ended then is not told. One name
stands for one change; a reason that comes again while the condition stays as it is has its name.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from controller import names
from controller.errors import ClusterError, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from controller.ports import Cluster, Manifest

logger = logging.getLogger(__name__)

ABNORMAL = frozenset({"Reconciling", "Stalled"})
"""Conditions that are true when something is not as it should be."""

_DIGITS = 16


def events(
    resource: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    now: datetime,
) -> Iterator[Manifest]:
    """Return an Event for every condition that says another thing than before.

    No news: what is as it should be or not known at first, the steps of work that goes on, and
    that a group is not ready while it is being worked on.
    """
    former = {each["type"]: each for each in before.get("conditions") or ()}
    told = {each["type"]: each for each in after.get("conditions") or ()}
    is_working = told.get("Reconciling", {}).get("status") == "True"
    for of, condition in told.items():
        status, was = condition["status"], former.get(of)
        is_covered = of == "Ready" and is_working
        is_work = is_covered or of == "Reconciling"
        is_quiet = status in {"Unknown", "False" if of in ABNORMAL else "True"}
        if was is None:
            is_news = not is_quiet
        elif was["status"] == status:
            is_news = was["reason"] != condition["reason"] and not is_quiet and not is_work
        else:
            is_news = True
        if is_news and not is_covered:
            severity = "Normal" if is_quiet or is_work else "Warning"
            yield _event(resource, condition, now, severity)


async def record(cluster: Cluster, manifest: Manifest) -> None:
    """Record an Event if it can be; a pass never fails for one."""
    try:
        await cluster.record(manifest)
    except Conflict:
        return  # it is there already
    except ClusterError as failure:
        logger.info(
            "an Event was not recorded",
            extra={"event": manifest["metadata"]["name"], "why": str(failure)},
        )


def _event(
    resource: Mapping[str, Any], condition: Mapping[str, Any], now: datetime, severity: str
) -> Manifest:
    metadata = resource["metadata"]
    told = (
        metadata["uid"],
        condition["type"],
        condition["status"],
        condition["reason"],
        str(condition["observedGeneration"]),
        condition["lastTransitionTime"],
    )
    digest = hashlib.sha256("/".join(told).encode()).hexdigest()[:_DIGITS]
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    says = f"{condition['type']}={condition['status']}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": severity,
        "reason": condition["reason"],
        "message": f"{says}: {condition['message']}"[:1024],
        "source": {"component": names.MANAGER},
        "reportingComponent": names.MANAGER,
        "reportingInstance": names.MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
