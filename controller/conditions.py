"""Pure: what is told about a resource. One function for each condition.

Ready, LeaderElected and FaultTolerant come from pods and the Lease alone, so a controller that is
cut off from the pods' network says nothing false in them. The others are the replicas' own word,
and Unknown while no replica answers. Nothing in a message moves while nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from controller import names
from controller.api.fields import Part, SecretKeyRef
from controller.api.spec import JournalMode, RedisMode, SubmissionMode
from controller.desired import access, overlay
from controller.observed import Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controller.api.spec import AggregatorSpec
    from controller.desired.known import Release
    from controller.observed import LeaseView, Observed, PodView, ReplicaView, SetView
    from controller.resource import Resource

LEADERLESS_SECONDS = 30.0
"""Beyond its lease that a leader may be silent, or missing, before it is told: a change of leader
alone is nobody's business."""

CHAIN_SECONDS = 60.0
"""After which a head that was not seen again counts as lost."""

UNSTARTED = frozenset({"ContainerCreating", "CreateContainerConfigError"})
"""Troubles of a pod whose Secrets are not there."""

UNSTARTED_SECONDS = 15.0
"""After which it is told: volumes and images take their time, too."""

CRASHING = "CrashLoopBackOff"
"""Trouble of a Redis pod whose passwords are not in their Secret, among others."""

PARKED = {
    "own_funds": "the account that signs has too little ether: fund it",
    "batcher_funds": "a batcher's deposit is too small: its owner has to add to it",
    "fee_limit": "the market is above the fee limit: wait, or raise submission.maxFeePerGas",
    "paused": "the service manager is paused",
    "wrong_aggregator": "the service manager takes answers from another account than the signer's",
    "foreign_nonce": "somebody else sends with the signer's key: stop that",
    "chain_away": "no endpoint answers",
    "signer_away": "the signer does not answer: look at it and at the signer section",
    "store_away": "Redis does not answer",
    "no_quorum_data": "keys or stakes at a batch's block cannot be had: endpoints may prune",
    "revert": "the contract refuses for an unknown reason: see the leader's log",
}
"""By reason of the daemon: what to tell. Reasons that pass by themselves are not told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one condition says."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How far a pass came."""

    stalled: Note | None = None
    """Only a person can help."""
    waiting: Note | None = None
    """Something is under way."""
    contested: Note | None = None
    """A field that another manager keeps changing back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What conditions are drawn from."""

    resource: Resource
    observed: Observed
    work: Work
    release: Release
    was_rolled_out: bool
    """This very generation was, as the last status said."""

    @property
    def stalled(self) -> Note | None:
        """What only a person can help with."""
        note, redis = self.work.stalled, self.observed.redis
        if note is None or redis is None or note.reason != CRASHING:
            return note
        crashing = any(pod.trouble == CRASHING and not pod.ready for pod in redis.pods)
        return Note(note.reason, note.message + self._foreign_secret) if crashing else note

    @property
    def waiting(self) -> Note | None:
        """What is under way."""
        return self._without_secrets or self.work.waiting

    @property
    def unfinished(self) -> Note | None:
        """What of this generation is not rolled out; None: nothing.

        It is rolled out once every pod there is to be was made from its settings and was ready at
        one time with all the others. From then on a pod may fail without taking that back.
        """
        if not self.was_rolled_out and (halt := self.stalled or self.waiting) is not None:
            return halt
        notes = (self._unfinished(group) for group in self.groups)
        note = next((note for note in notes if note is not None), None)
        return note and (self.waiting or note)

    def _unfinished(self, group: SetView | None) -> Note | None:
        if group is None or not group.uid:
            return Note("Creating", "Objects are being created.")
        if group.outdated or any(pod.ordinal >= group.replicas for pod in group.pods):
            return Note("RollingOut", "Pods are being replaced.")
        if not self.was_rolled_out and len(group.serving) < group.replicas:
            return Note("PodsStarting", "Pods are starting.")
        return None

    @property
    def _without_secrets(self) -> Note | None:
        """Return that pods may be waiting for Secrets, which the controller must not look at."""
        pods = () if self.observed.aggregator is None else self.observed.aggregator.pods
        waiting = [
            pod.name
            for pod in pods
            if not pod.ready and pod.trouble in UNSTARTED and pod.seconds >= UNSTARTED_SECONDS
        ]
        wanted = sorted({f"{ref.name} (key {ref.key})" for ref in secrets_of(self.resource.spec)})
        if not waiting or not wanted or self.work.stalled is not None:
            return None
        return Note(
            "WaitingForSecrets",
            f"{_all(waiting)} cannot start yet. Create what is missing of the Secrets"
            f" {', '.join(wanted)}.{self._foreign_secret}",
        )

    @property
    def _foreign_secret(self) -> str:
        """Return what to do about a Secret in the place of ours, whose owner we must not look at.

        One that was there before us is used as it is.
        """
        if self.resource.spec.redis.mode is not RedisMode.MANAGED:
            return ""
        return (
            f" If Secret {names.redis(self.resource.name)} is not owned by this resource, delete"
            " it: it is made anew."
        )

    @property
    def groups(self) -> tuple[SetView | None, ...]:
        """Sets that there must be."""
        if self.resource.spec.redis.mode is RedisMode.MANAGED:
            return self.observed.redis, self.observed.aggregator
        return (self.observed.aggregator,)

    @property
    def answers(self) -> tuple[ReplicaView, ...]:
        """Replicas that answered."""
        return tuple(each for each in self.observed.replicas.values() if each.said is not None)

    @property
    def leader(self) -> ReplicaView | None:
        """The leader's own word."""
        pod = leading_pod(self.resource, self.observed)
        found = self.observed.replicas.get(pod)
        return None if found is None or found.said is None else found


def ready(facts: Facts) -> Verdict:
    """Operators are served and a leader answers; the current generation is rolled out."""
    if facts.resource.spec.suspend and facts.work.stalled is None:
        return Verdict("False", "Suspended", "There are no pods until spec.suspend is false.")
    if (unfinished := facts.unfinished) is not None:
        return Verdict("False", unfinished.reason, unfinished.message)
    group = facts.observed.aggregator
    if group is None or not group.serving:
        return Verdict("False", "NoReplicaReady", "No replica takes signatures.")
    elected = leader_elected(facts)
    if elected.status != "True":
        return elected
    return Verdict("True", "Serving", "Signatures are taken and answered.")


def is_rolled_out(reason: str) -> bool:
    """Tell whether Ready says with this reason that its generation is rolled out."""
    return reason in {"Serving", "NoReplicaReady", "NoLeader", "LeaderSilent", "LeaseMissing"}


def leader_elected(facts: Facts) -> Verdict:
    """Somebody leads, as far as the Lease tells."""
    if access.is_elected(facts.resource):
        return _elected(facts.observed.lease)
    if leading_pod(facts.resource, facts.observed):
        return Verdict("True", "OnlyReplica", "The only replica leads.")
    return Verdict("False", "NoReplicaReady", "The only replica is not ready.")


def _elected(lease: LeaseView | None) -> Verdict:
    if lease is None:
        return Verdict("False", "LeaseMissing", "The Lease is not there.")
    if lease.term and patience_left(lease) > 0:
        return Verdict("True", "Leading", "A replica leads.")
    if not lease.holder:
        return Verdict("False", "NoLeader", "No replica leads: see replicas.unfit in each /status.")
    return Verdict(
        "False", "LeaderSilent", f"{lease.pod} does not renew the Lease, and no other replica does."
    )


def patience_left(lease: LeaseView) -> float:
    """Return the seconds that a Lease may yet be silent before nobody counts as leader."""
    return LEADERLESS_SECONDS + lease.lease_seconds - lease.silent_seconds


def store_healthy(facts: Facts) -> Verdict:
    """Replicas reach what they share."""
    if facts.resource.spec.redis.mode is RedisMode.NONE:
        return Verdict("True", "JournalOnly", "The only replica keeps everything itself.")
    if (unknown := _unknown(facts)) is not None:
        return unknown
    away = _those(facts, "replicas", "store", "reachable", value=False)
    if away:
        return Verdict(
            "False",
            "RedisUnreachable",
            f"{_all(away)} cannot write to Redis. Signatures are journalled and held.",
        )
    return Verdict("True", "Reachable", "All replicas that answer reach Redis.")


def state_durable(facts: Facts) -> Verdict:
    """What was acknowledged survives the loss of any one part."""
    spec = facts.resource.spec
    if spec.journal.mode is JournalMode.EPHEMERAL:
        return Verdict(
            "False",
            "EphemeralJournals",
            "Journals go with their pods: all pods lost at once lose what is not answered yet."
            " Set spec.journal.mode to Persistent.",
        )
    if spec.redis.mode is RedisMode.NONE:
        return Verdict("True", "Journalled", "Signatures are on the volume of the only replica.")
    if (unknown := _unknown(facts)) is not None:
        return unknown
    behind = _those(facts, "replicas", "store", "in_sync", value=False)
    if behind:
        return Verdict(
            "False", "Merging", f"{_all(behind)} and Redis do not hold the same signatures yet."
        )
    return Verdict("True", "Replicated", "Signatures are in journals and in Redis.")


def chain_reachable(facts: Facts) -> Verdict:
    """The leader sees the chain; without a leader's word, any replica does."""
    if (unknown := _unknown(facts)) is not None:
        return unknown
    seen_by = facts.leader or facts.answers[0]
    endpoints = seen_by.items("chain", "endpoints")
    down = [str(each.get("name")) for each in endpoints if not each.get("healthy")]
    age = seen_by.find("chain", "seen_seconds_ago")
    is_fresh = isinstance(age, int | float) and age <= CHAIN_SECONDS  # NaN is not
    if not is_fresh or len(down) == len(endpoints):
        return Verdict(
            "False",
            "NoEndpoint",
            "No endpoint shows a fresh head. Check spec.chain.endpoints and their keys.",
        )
    if down:
        return Verdict("True", "SomeEndpointsDown", f"Without use now: {_all(down)}.")
    return Verdict("True", "Reachable", "All endpoints are healthy.")


def submission_healthy(facts: Facts) -> Verdict:
    """The leader can answer on chain."""
    if facts.observed.same_signer:
        # Who may read this namespace need not know of what is in others.
        known = {
            name if namespace == facts.resource.namespace else "a resource of another namespace"
            for namespace, name in facts.observed.same_signer
        }
        return Verdict(
            "False",
            "DuplicateSigner",
            f"{_all(known)} signs with the same account on the same chain."
            " Give each its own, or set submission.mode to Observe in one of them.",
        )
    if facts.resource.spec.submission.mode is SubmissionMode.OBSERVE:
        return Verdict("True", "Observing", "Nothing is sent: submission.mode is Observe.")
    if facts.leader is None:
        return Verdict("Unknown", "LeaderUnreachable", "The leader was not reached.")
    reasons = {_reason(facts.leader.find("submission", "blocked"))} | {
        str(each.get("reason")) for each in facts.leader.items("parked")
    }
    told = sorted(reasons & PARKED.keys())
    if told:
        text = "; ".join(PARKED[reason] for reason in told)
        return Verdict("False", _camel(told[0]), f"Batches wait: {text}.")
    return Verdict("True", "Submitting", "Answers are sent.")


def fault_tolerant(facts: Facts) -> Verdict:
    """Any one pod or node can be lost."""
    group = facts.observed.aggregator
    if group is None or group.replicas < 2:  # noqa: PLR2004 - one is alone
        return Verdict("False", "OneReplica", "There is one replica: its loss is an outage.")
    for each in facts.groups:
        if each is None or len(each.serving) < each.replicas:
            return Verdict("False", "ReplicasMissing", "Not all pods are ready.")
    crowded = sorted({node for each in facts.groups if each for node in _crowded(each)})
    if crowded:
        return Verdict(
            "False",
            "PodsShareNode",
            f"Losing {_all(crowded)} leaves half of the pods or fewer. Have them spread.",
        )
    return Verdict("True", "Spread", "Any one pod or node can be lost.")


def _crowded(group: SetView) -> Iterable[str]:
    """Return nodes without which less than a majority of the pods would be left."""
    for node in {pod.node for pod in group.serving}:
        left = sum(pod.node != node for pod in group.serving)
        if node and left < group.replicas - 1 and left * 2 <= group.replicas:
            yield node


def up_to_date(facts: Facts) -> Verdict:
    """What runs is what this release would run, and what we apply stays."""
    if facts.work.contested is not None:
        return Verdict("False", facts.work.contested.reason, facts.work.contested.message)
    observed, release, spec = facts.observed, facts.release, facts.resource.spec
    for asked, group, newest, field in (
        (asked_image(spec), observed.aggregator, release.image, "spec.image"),
        (
            asked_redis_image(spec),
            observed.redis,
            release.redis_image,
            "spec.redis.managed.image",
        ),
    ):
        if asked is None and group is not None and group.uid and group.image != newest:
            return Verdict(
                "False",
                "NewerImageAvailable",
                f"{group.image} runs. To run {newest}, write it into {field}.",
            )
    return Verdict("True", "Current", "Nothing newer comes with the controller.")


def asked_image(spec: AggregatorSpec) -> str | None:
    """Return the image that is asked for, by template or otherwise; None: whichever runs."""
    return overlay.image(spec.template, names.AGGREGATOR) or spec.image


def asked_redis_image(spec: AggregatorSpec) -> str | None:
    """Return the same of a managed Redis."""
    if (managed := spec.redis.managed) is None:
        return None
    return overlay.image(managed.template, names.REDIS) or managed.image


def reconciling(facts: Facts) -> Verdict:
    """Abnormal: the controller works on this generation."""
    if facts.work.stalled is not None:
        return Verdict("False", "Stalled", "Only a person can help.")
    note = facts.waiting or facts.unfinished
    if note is not None:
        return Verdict("True", note.reason, note.message)
    return Verdict("False", "Settled", "There is nothing to do.")


def stalled(facts: Facts) -> Verdict:
    """Abnormal: only a person can help."""
    if facts.stalled is not None:
        return Verdict("True", facts.stalled.reason, facts.stalled.message)
    return Verdict("False", "NotStalled")


def leading_pod(resource: Resource, observed: Observed) -> str:
    """Return the pod that leads; empty: none that is known."""
    if access.is_elected(resource):
        return "" if observed.lease is None or not observed.lease.holder else observed.lease.pod
    group = observed.aggregator
    serving: tuple[PodView, ...] = () if group is None else group.serving
    return serving[0].name if serving else ""


def secrets_of(part: Part) -> Iterator[SecretKeyRef]:
    """Return every Secret that a spec names."""
    if isinstance(part, SecretKeyRef):
        yield part
        return
    for _, value in part:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Part):
                yield from secrets_of(each)


def _unknown(facts: Facts) -> Verdict | None:
    if facts.answers:
        return None
    if not facts.observed.replicas:
        return Verdict("Unknown", "NoReplica", "There is no replica to ask.")
    return Verdict("Unknown", "NoReplicaAnswers", "No replica was reached by the controller.")


def _those(facts: Facts, *path: str, value: Any) -> list[str]:
    replicas = facts.observed.replicas
    return [name for name, replica in replicas.items() if replica.find(*path) is value]


def _reason(blocked: object) -> str:
    """Return the reason in what the daemon shows of an error: kind, reason, details."""
    parts = str(blocked or "").split(": ")
    return parts[1] if len(parts) > 1 else ""


def _camel(reason: str) -> str:
    return "".join(word.capitalize() for word in reason.split("_"))


def _all(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
