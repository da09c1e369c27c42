"""Pure: the next step of a rolling change. One step a pass, and none that cannot be taken again.

A pod that serves is replaced because a person set something else since it was made, never for how
it was rendered. In this order, and never before everything else that runs is ready:

* pods that are not ready and are outdated, or lack an image and were made from another template:
  they serve nobody, and what broke them may be mended
* Redis: the replicas of the primary, then the primary, whose stop rule gives its place away
* the aggregator: standbys; then its leader hands over to one of the new ones; then the old leader,
  unless all the new ones say that they cannot lead

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

AGAIN_SECONDS = 5.0
"""After which a leader that declined is asked again, and for the next pod: what it knows of its
peers is as old as their last word."""

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

_LONGEST_WORD = 100
"""Of a pod, what it lacks to lead."""

WAITS = frozenset({"ContainerCreating", "CreateContainerConfigError", "Unschedulable"})
"""Troubles that end when something appears that others make: a Secret, a volume, a node."""

UNPULLED = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName"})
"""Troubles of an image that no node gets. A pod in them has run nothing, and holds nothing."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Every pod is as it should be."""


@dataclass(frozen=True, slots=True)
class Evict:
    """Replace this pod."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class Handover:
    """Have the leader hand over to this pod."""

    to: str
    ask: bool = True
    """It has to be asked; else it was, and its answer is waited for."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Something is under way."""

    note: Note


@dataclass(frozen=True, slots=True)
class Stuck:
    """Only a person can help."""

    note: Note


Step: TypeAlias = Nothing | Evict | Handover | Wait | Stuck


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """That the leader was asked to hand over since it leads."""

    to: str
    """Pod that it was last asked for."""
    seconds: float
    """Since it was first asked."""
    last_seconds: float
    """Since it was last asked."""


def plan(observed: Observed, *, paused: bool, asked: Asked | None = None) -> Step:
    """Return the next step.

    Args:
        observed: What runs.
        paused: No pod may be replaced.
        asked: How the present leader was asked to hand over; None: it was not.
    """
    groups = [group for group in (observed.redis, observed.aggregator) if group is not None]
    broken = [pod for group in groups if (pod := _outdated_and_down(group, observed.lease))]
    if paused and (broken or any(group.outdated for group in groups)):
        return Wait(
            Note("RolloutPaused", "Pods wait to be replaced until spec.rollout.paused is false.")
        )
    if broken:
        return Evict(broken[0])
    return _halt(groups) or _replace(observed, asked)


def _replace(observed: Observed, asked: Asked | None) -> Step:
    redis, aggregator = observed.redis, observed.aggregator
    if redis is not None and redis.outdated:
        return _redis(observed, redis)
    if aggregator is not None and aggregator.outdated:
        return (
            _unmerged(observed, aggregator)
            or _unled(observed.lease, asked)
            or _aggregator(observed, aggregator, asked)
        )
    return Nothing()


def _outdated_and_down(group: SetView, lease: LeaseView | None) -> PodView | None:
    down = [
        pod
        for pod in group.pods
        if not pod.ready and not pod.terminating and pod.ordinal < group.replicas
        if _is_made_otherwise(group, pod)
    ]
    leader = _leader(lease)
    return min(down, key=lambda pod: (pod.name == leader, -pod.ordinal), default=None)


def _is_made_otherwise(group: SetView, pod: PodView) -> bool:
    """Tell whether a pod that is down may come up if it is made anew.

    Not all that a person sets is among a pod's settings: the image of a Redis pod's first step
    is not, so that another one restarts no Redis. Where an image cannot be had the template tells.
    What crashes starts again in its pod, with its journal if that is ephemeral, so it is kept.
    """
    if pod in group.outdated:
        return bool(pod.trouble) or pod.seconds >= DOWN_SECONDS
    return pod.trouble in UNPULLED and bool(group.revision) and pod.revision != group.revision


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


def _unled(lease: LeaseView | None, asked: Asked | None) -> Wait | Handover | None:
    """Return what to wait for while the place of the leader changes hands."""
    if lease is None or _is_overdue(asked):
        return None
    leader = _leader(lease)
    if lease.heir:
        return Handover(lease.heir, ask=False)
    if lease.term and not leader and lease.silent_seconds < ELECTION_SECONDS:
        return Wait(Note("ElectionUnderWay", "Replicas choose a leader."))
    return None


def _aggregator(observed: Observed, group: SetView, asked: Asked | None) -> Step:
    lease, leader = observed.lease, _leader(observed.lease)
    *others, last = sorted(group.outdated, key=lambda pod: (pod.name == leader, -pod.ordinal))
    if others:
        return Evict(others[0])
    fenced = frozenset() if lease is None else lease.fenced
    heirs = [pod.name for pod in _renewed(group) if pod.name not in fenced]
    lacks = {name: why for name in heirs if (why := _unfit(observed, name))}
    if heirs and len(lacks) == len(heirs):
        says = "; ".join(f"{name}: {why}" for name, why in lacks.items())
        return Wait(Note("NoFitHeir", f"{last.name} stays until a new pod can lead. {says}."))
    if not heirs or last.name != leader or _is_overdue(asked):
        return Evict(last)
    if asked is not None and asked.last_seconds < AGAIN_SECONDS:
        return Handover(asked.to, ask=False)
    return Handover(_next([name for name in heirs if name not in lacks], asked))


def _unfit(observed: Observed, pod: str) -> str:
    """Return what a pod itself says that it lacks to lead; empty: nothing."""
    replica = observed.replicas.get(pod)
    said = None if replica is None else replica.find("replicas", "unfit")
    return said[:_LONGEST_WORD] if isinstance(said, str) else ""


def _is_overdue(asked: Asked | None) -> bool:
    return asked is not None and asked.seconds >= HANDOVER_SECONDS


def _next(heirs: list[str], asked: Asked | None) -> str:
    """Return who comes after the one that was last asked for."""
    at = heirs.index(asked.to) + 1 if asked is not None and asked.to in heirs else 0
    return heirs[at % len(heirs)]


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
