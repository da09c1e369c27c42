"""Pure: the next step of a rolling change. One step a pass, and none that cannot be taken again.

A pod is replaced because a person set something else since it was made, never for how it was
rendered. In this order, and never before everything else that runs is ready:

* pods that are not ready and are outdated: they serve nobody, and what broke them may be mended
* Redis: the replicas of the primary, then the primary, whose stop rule gives its place away
* the aggregator: standbys; then its leader hands over to one of the new ones; then the old leader

Between two steps the new pods must hold everything that the shared store holds. Where the
controller cannot ask them, being ready for a while has to do: a pod merges within a second, and
what it had not merged is in its journal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from controller import names
from controller.observed import Note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.observed import LeaseView, Observed, PodView, SetView

SILENT_SECONDS = 60.0
"""That a new pod must be ready for where it cannot be asked whether it has merged."""

REDIS_SECONDS = 60.0
"""That a new Redis pod must be ready for where the aggregator does not merge with it: what is
being rolled out may be what it needs for that."""

DOWN_SECONDS = 15.0
"""That a pod whose containers run must not be ready before it counts as serving nobody: probes of
all pods may be late at one time, and none of them must be replaced for that."""

HANDOVER_SECONDS = 30.0
"""After which the old leader is stopped: it then gives its place away to anybody."""

ELECTION_SECONDS = 10.0
"""That a Lease may be without a holder before it counts as nobody's."""

BROKEN_SECONDS = {
    "InvalidImageName": 0.0,
    "ErrImageNeverPull": 30.0,
    "ImagePullBackOff": 30.0,
    "CrashLoopBackOff": 60.0,
    "CreateContainerError": 60.0,
    "RunContainerError": 60.0,
}
"""By trouble: after so long only a person can help."""

PATIENCE_SECONDS = 1800.0
"""After which a pod that runs and is not ready counts as broken: a cold scan of the registry
takes minutes."""

WAITS = frozenset({"ContainerCreating", "CreateContainerConfigError", "Unschedulable"})
"""Troubles that end when something appears that others make: a Secret, a volume, a node."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Every pod is as it should be."""


@dataclass(frozen=True, slots=True)
class Evict:
    """Replace this pod."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class Handover:
    """Ask the leader to hand over to this pod."""

    to: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Something is under way."""

    note: Note


@dataclass(frozen=True, slots=True)
class Stuck:
    """Only a person can help."""

    note: Note


Step: TypeAlias = Nothing | Evict | Handover | Wait | Stuck


def plan(observed: Observed, *, paused: bool, handover_seconds: float = 0.0) -> Step:
    """Return the next step.

    Args:
        observed: What runs.
        paused: No pod may be replaced.
        handover_seconds: For which the handover that the Lease asks for has been waited for.
    """
    groups = [group for group in (observed.redis, observed.aggregator) if group is not None]
    if paused and any(group.outdated for group in groups):
        return Wait(
            Note("RolloutPaused", "Pods wait to be replaced until spec.rollout.paused is false.")
        )
    for group in groups:
        if (broken := _outdated_and_down(group, observed.lease)) is not None:
            return Evict(broken)
    return _halt(groups) or _replace(observed, handover_seconds)


def _replace(observed: Observed, handover_seconds: float) -> Step:
    redis, aggregator = observed.redis, observed.aggregator
    if redis is not None and redis.outdated:
        return _redis(observed, redis)
    if aggregator is not None and aggregator.outdated:
        return (
            _unmerged(observed, aggregator)
            or _unled(observed.lease, handover_seconds)
            or _aggregator(observed.lease, aggregator, handover_seconds)
        )
    return Nothing()


def _outdated_and_down(group: SetView, lease: LeaseView | None) -> PodView | None:
    down = [
        pod
        for pod in group.outdated
        if not pod.ready and not pod.terminating and pod.ordinal < group.replicas
        if pod.trouble or pod.seconds >= DOWN_SECONDS
    ]
    leader = _leader(lease)
    return min(down, key=lambda pod: (pod.name == leader, -pod.ordinal), default=None)


def _halt(groups: Iterable[SetView]) -> Wait | Stuck | None:
    """Return why no pod that serves may be taken away, if so."""
    halts = [halt for group in groups if (halt := _down(group)) is not None]
    stuck = [halt for halt in halts if isinstance(halt, Stuck)]
    return next(iter(stuck or halts), None)


def _down(group: SetView) -> Wait | Stuck | None:
    halts = [
        judge(pod)
        for pod in group.pods
        if not pod.ready and not pod.terminating and pod.ordinal < group.replicas
    ]
    for halt in halts:
        if isinstance(halt, Stuck):
            return halt
    if going := [pod.name for pod in group.pods if pod.terminating]:
        return Wait(Note("PodsStopping", f"{_all(going)} is stopping."))
    if group.missing:
        return Wait(Note("PodsMissing", f"{len(group.missing)} pods are being made."))
    if surplus := [pod.name for pod in group.pods if pod.ordinal >= group.replicas]:
        return Wait(Note("PodsStopping", f"{_all(surplus)} is one too many."))
    return next(iter(halts), None)


def judge(pod: PodView) -> Wait | Stuck:
    """Return what a pod that is not ready means."""
    if pod.trouble in WAITS:
        return Wait(Note("PodWaiting", f"{pod.name} waits: {_why(pod)}"))
    patience = BROKEN_SECONDS.get(pod.trouble, PATIENCE_SECONDS)
    if pod.seconds >= patience:
        return Stuck(
            Note(
                pod.trouble or "PodNotReady",
                f"{pod.name} does not get ready: {_why(pod)} Look at its log and its events, and"
                " change the spec; the pod is then replaced.",
            )
        )
    return Wait(Note("PodStarting", f"{pod.name} is not ready yet."))


def _why(pod: PodView) -> str:
    if pod.trouble_message:
        return pod.trouble_message
    return f"{pod.trouble}." if pod.trouble else "its probes fail."


def _redis(observed: Observed, group: SetView) -> Step:
    renewed = _renewed(group)
    fresh = min((pod.seconds for pod in renewed), default=REDIS_SECONDS)
    says = [replica.in_sync for replica in observed.replicas.values()]
    if renewed and fresh < REDIS_SECONDS and (False in says or True not in says):
        return Wait(
            Note("RedisMerging", "A new Redis pod is being filled; the next one waits for that.")
        )
    primary = _primary(observed)
    return Evict(
        min(group.outdated, key=lambda pod: (pod.ordinal == primary, -pod.ordinal)),
    )


def _primary(observed: Observed) -> int | None:
    """Return the ordinal of the primary as most replicas see it."""
    ordinals = {
        _server(address): ordinal for ordinal, address in enumerate(observed.redis_addresses)
    }
    seen = Counter(
        ordinals[primary]
        for replica in observed.replicas.values()
        if (primary := str(replica.find("replicas", "store", "primary"))) in ordinals
    )
    return seen.most_common(1)[0][0] if seen else None


def _server(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{names.REDIS_PORT}"


def _unmerged(observed: Observed, group: SetView) -> Wait | None:
    for pod in _renewed(group):
        if not _has_merged(observed, pod):
            why = f"{pod.name} does not hold everything yet; the next pod waits for that."
            return Wait(Note("PodMerging", why))
    return None


def _unled(lease: LeaseView | None, handover_seconds: float) -> Wait | None:
    """Return what to wait for while the place of the leader changes hands."""
    if lease is None or handover_seconds >= HANDOVER_SECONDS:
        return None
    leader = _leader(lease)
    if lease.handover_to not in {"", leader}:
        return Wait(Note("HandoverUnderWay", f"{lease.handover_to} is to lead."))
    if lease.term and not leader and lease.silent_seconds < ELECTION_SECONDS:
        return Wait(Note("ElectionUnderWay", "Replicas choose a leader."))
    return None


def _aggregator(lease: LeaseView | None, group: SetView, handover_seconds: float) -> Step:
    leader = _leader(lease)
    standbys = [pod for pod in group.outdated if pod.name != leader]
    if standbys:
        return Evict(max(standbys, key=lambda pod: pod.ordinal))
    fenced = frozenset() if lease is None else lease.fenced
    heirs = [pod.name for pod in _renewed(group) if pod.name not in fenced]
    if not heirs or handover_seconds >= HANDOVER_SECONDS:
        return Evict(group.outdated[0])
    return Handover(heirs[0])


def _renewed(group: SetView) -> list[PodView]:
    return [pod for pod in group.pods if pod.settings_hash == group.settings_hash]


def _has_merged(observed: Observed, pod: PodView) -> bool:
    replica = observed.replicas.get(pod.name)
    if replica is None or replica.said is None:
        return pod.seconds >= SILENT_SECONDS
    return replica.in_sync is not False


def _leader(lease: LeaseView | None) -> str:
    return "" if lease is None or not lease.holder else lease.pod


def _all(pods: list[str]) -> str:
    return ", ".join(sorted(pods))
