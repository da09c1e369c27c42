"""Pure: what is reported, ``.status`` of a resource. ``conditions`` says what is so.

The same facts give the same bytes, so steady state writes nothing: times are those of changes, and
nothing is counted.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from controller import conditions, names
from controller.api.spec import RedisMode
from controller.api.status import (
    AggregatorStatus,
    Condition,
    ConditionType,
    FailoverRecord,
    Leader,
    RedisStatus,
    ResolvedNetwork,
)
from controller.conditions import (
    Facts,
    Verdict,
    Work,
    asked_image,
    asked_redis_image,
    leading_pod,
)
from controller.desired import deployments
from controller.observed import ReplicaView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from controller.desired.known import Release
    from controller.observed import Note, Observed, SetView
    from controller.resource import Resource

FAILOVERS = 10
"""That are kept."""

_LONGEST_NAME = 253
"""Of a pod."""

_LONGEST_IMAGE = 512
"""That is recorded."""

_OF_THE_MOMENT = frozenset({"replicas", "readyReplicas", "leader"})
"""Fields that are true of a pass that looked."""

FIRST_TERM = 1
"""Nobody led before it: its begin is no change of leader."""

VERDICTS: Mapping[ConditionType, Callable[[Facts], Verdict]] = {
    ConditionType.READY: conditions.ready,
    ConditionType.LEADER_ELECTED: conditions.leader_elected,
    ConditionType.STORE_HEALTHY: conditions.store_healthy,
    ConditionType.STATE_DURABLE: conditions.state_durable,
    ConditionType.CHAIN_REACHABLE: conditions.chain_reachable,
    ConditionType.SUBMISSION_HEALTHY: conditions.submission_healthy,
    ConditionType.FAULT_TOLERANT: conditions.fault_tolerant,
    ConditionType.UP_TO_DATE: conditions.up_to_date,
    ConditionType.RECONCILING: conditions.reconciling,
    ConditionType.STALLED: conditions.stalled,
}

Status = dict[str, Any]
"""As JSON has it."""


def compute_status(
    resource: Resource, observed: Observed, work: Work, release: Release, now: datetime
) -> Status:
    """Return the status of a resource whose spec was understood.

    Args:
        resource: With its former status, of which only what happened is carried on.
        observed: What runs.
        work: How far this pass came.
        release: What would run if nothing was asked for.
        now: Of changes that are seen for the first time.
    """
    before, observed = resource.status, _without_former(observed, resource.uid)
    facts = Facts(
        resource=resource,
        observed=observed,
        work=work,
        release=release,
        was_rolled_out=_was_rolled_out(before, resource.generation),
    )
    group = observed.aggregator
    deployment = deployments.resolve(resource.spec)
    is_managed = resource.spec.redis.mode is RedisMode.MANAGED
    verdicts = {of: judge(facts) for of, judge in VERDICTS.items()}
    status = AggregatorStatus(
        observed_generation=resource.generation,
        replicas=0 if group is None else len(group.pods),
        ready_replicas=0 if group is None else len(group.serving),
        selector=",".join(
            f"{key}={value}"
            for key, value in names.selector(resource.name, names.AGGREGATOR).items()
        ),
        leader=_leader(resource, observed, now),
        network=ResolvedNetwork(chain_id=deployment.chain_id, contracts=deployment.contracts),
        redis=_redis(resource, observed, work) if is_managed else None,
        image=_image(group, asked_image(resource.spec), before, work),
        highest_term=highest_term(before, observed),
        failovers=_failovers(before, observed, now),
        conditions=_conditions(verdicts, resource.generation, before, now),
    )
    return _dumped(status)


def stalled_status(manifest: Mapping[str, Any], note: Note, now: datetime) -> Status:
    """Return the status of a resource that cannot be run as it is.

    Of what runs nevertheless it says nothing; what happened and what has to be known later stays.

    Args:
        manifest: The resource.
        note: Why.
        now: Of changes.
    """
    before = manifest.get("status") or {}
    generation = manifest["metadata"].get("generation", 0)
    unknown = Verdict("Unknown", note.reason, "Nothing was looked at.")
    verdicts = dict.fromkeys(VERDICTS, unknown) | {
        ConditionType.READY: Verdict("False", note.reason, note.message),
        ConditionType.STALLED: Verdict("True", note.reason, note.message),
        ConditionType.RECONCILING: Verdict("False", "Stalled", "Only a person can help."),
    }
    told = _conditions(verdicts, generation, before, now)
    kept = {key: value for key, value in before.items() if key not in _OF_THE_MOMENT}
    return kept | {
        "observedGeneration": generation,
        "conditions": [_dumped(each) for each in told],
    }


def highest_term(before: Mapping[str, Any], observed: Observed) -> int:
    """Return the highest term ever seen."""
    told = (replica.number("role", "term") for replica in observed.replicas.values())
    fences = (replica.number("replicas", "fence", "term") for replica in observed.replicas.values())
    terms = [each for each in (*told, *fences) if each is not None]
    lease = 0 if observed.lease is None else observed.lease.term
    return max(int(before.get("highestTerm") or 0), lease, *terms, 0)


def condition_of(status: Mapping[str, Any], of: ConditionType) -> Mapping[str, Any]:
    """Return one condition; empty: it was not told yet."""
    for each in status.get("conditions") or ():
        if each.get("type") == of:
            return each  # type: ignore[no-any-return]  # JSON
    return {}


def _was_rolled_out(before: Mapping[str, Any], generation: int) -> bool:
    ready = condition_of(before, ConditionType.READY)
    is_same = ready.get("observedGeneration") == generation
    return is_same and conditions.is_rolled_out(str(ready.get("reason")))


def _conditions(
    verdicts: Mapping[ConditionType, Verdict],
    generation: int,
    before: Mapping[str, Any],
    now: datetime,
) -> tuple[Condition, ...]:
    told = []
    for of, verdict in verdicts.items():
        former = condition_of(before, of)
        same = former.get("status") == verdict.status and former.get("lastTransitionTime")
        told.append(
            Condition(
                type=of.value,
                status=verdict.status,
                observed_generation=generation,
                last_transition_time=str(former["lastTransitionTime"]) if same else _text(now),
                reason=verdict.reason,
                message=verdict.message[:4096],
            )
        )
    return tuple(told)


def _without_former(observed: Observed, uid: str) -> Observed:
    """Leave out what pods say that a deleted resource of the same name left behind."""
    pods = () if observed.aggregator is None else observed.aggregator.pods
    former = {pod.name for pod in pods if pod.resource_uid not in {"", uid}}
    said = {pod: said for pod, said in observed.replicas.items() if pod not in former}
    return replace(observed, replicas=said)


def _redis(resource: Resource, observed: Observed, work: Work) -> RedisStatus:
    """Return the addresses; while a Service is missing the former, which it is to have again."""
    former = resource.status.get("redis") or {}
    return RedisStatus(
        addresses=observed.redis_addresses or tuple(former.get("addresses") or ()),
        image=_image(observed.redis, asked_redis_image(resource.spec), former, work),
    )


def _leader(resource: Resource, observed: Observed, now: datetime) -> Leader | None:
    leader, lease = leading_pod(resource, observed), observed.lease
    if not leader:
        return None
    former = resource.status.get("leader") or {}
    if lease is not None and lease.holder:
        term, acquired = lease.term, lease.acquired
    else:  # the only replica leads by itself; it alone knows its term
        replica = observed.replicas.get(leader)
        said = None if replica is None else replica.number("role", "term")
        term, acquired = int(former.get("term") or 0) if said is None else said, ""
    pod = leader[:_LONGEST_NAME]
    is_same = (former.get("pod"), former.get("term")) == (pod, term)
    since = acquired or (str(former["since"]) if is_same else _text(now))
    return Leader(pod=pod, term=term, since=since)


def _image(group: SetView | None, asked: str | None, before: Mapping[str, Any], work: Work) -> str:
    """Return the image that stays when none is asked for any more; empty: none was proven yet.

    It is the one that was asked for, once everything was applied and all pods serve with it; what
    a webhook made of it is not what to ask for next. Until then it is the one before.
    """
    former = str(before.get("image") or "")
    proven = None if group is None else group.proven_image
    if proven is None or work.stalled is not None or work.waiting is not None:
        return former
    image = asked or former or proven
    return image if len(image) <= _LONGEST_IMAGE else former  # cut off it would be another one


def _failovers(
    before: Mapping[str, Any], observed: Observed, now: datetime
) -> tuple[FailoverRecord, ...]:
    """Return what replicas recorded and what was known already, latest first."""
    known = {
        record.term: record
        for record in map(FailoverRecord.model_validate, before.get("failovers") or ())
    }
    for pod, replica in observed.replicas.items():
        for each in replica.items("replicas", "failovers"):
            record = _record(pod, ReplicaView(said=each), now)
            if record is not None and record.term not in known:
                known[record.term] = record
    records = [known[term] for term in sorted(known, reverse=True)][:FAILOVERS]
    former = before.get("leader") or {}
    return tuple(_with_origin(record, records, former) for record in records)


def _record(pod: str, said: ReplicaView, now: datetime) -> FailoverRecord | None:
    term = said.number("term")
    if term is None or term <= FIRST_TERM:
        return None
    over = str(said.find("over") or "")[:_LONGEST_NAME]
    return FailoverRecord.model_validate(
        {
            "at": _moment(said.find("at")) or _text(now),
            "from": over.rpartition(".")[0] or over,
            "to": pod,
            "term": term,
            "reason": "LeaseExpired" if over else "Handover",
            "detect_ms": said.number("detect_ms") or 0,
            "elect_ms": said.number("elect_ms") or 0,
            "resume_ms": said.number("resume_ms") or 0,
            "planned": not over,
        }
    )


def _moment(said: object) -> str:
    """Return a time as the API server takes it; empty: it is none."""
    try:
        moment = datetime.fromisoformat(str(said)).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _with_origin(
    record: FailoverRecord, records: Iterable[FailoverRecord], leader: Mapping[str, Any]
) -> FailoverRecord:
    """Say who gave the place up, where the new leader could not know."""
    if record.from_:
        return record
    earlier = {each.term: each.to for each in records if each.term < record.term}
    if int(leader.get("term") or 0) < record.term:
        earlier[int(leader.get("term") or 0)] = str(leader.get("pod") or "")
    latest = max(earlier, default=None)
    return record if latest is None else record.model_copy(update={"from_": earlier[latest]})


def _dumped(part: AggregatorStatus | Condition) -> Status:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
