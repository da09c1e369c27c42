"""One pass: read, look, render, apply, take one step of a roll, report.

A pass believes nothing but what it reads, can end anywhere, and may run beside another one. What
is remembered between passes is a hint: when something was first seen.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from controller import names, observe, ports, rollout, views
from controller.api.spec import RedisMode, SubmissionMode
from controller.api.status import ConditionType
from controller.apply import Application, NotYet, OnlyAPerson
from controller.conditions import LEADERLESS_SECONDS, Work, patience_left
from controller.contest import Contests
from controller.desired import access, deployments, is_waiting, redis, render
from controller.desired.known import Known
from controller.errors import ClusterAway, Gone, InvalidSpec, Refused
from controller.events import events, record
from controller.observed import Note, Observed
from controller.resource import parse
from controller.status import compute_status, condition_of, highest_term, stalled_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from controller.desired.known import Release
    from controller.observe import Live, Replicas
    from controller.observed import LeaseView, PodView, SetView
    from controller.ports import Cluster, Manifest
    from controller.resource import Resource
    from controller.status import Status

logger = logging.getLogger(__name__)

STEP_SECONDS = 1.0
"""Until the next pass after a pod was replaced or a handover asked for."""

PROGRESS_SECONDS = 5.0
"""Until the next pass while something is under way."""

TROUBLE_SECONDS = 15.0
"""Until the next pass while something is not as it should be."""

CALM_SECONDS = 60.0
"""Until replicas are asked again how they are; nothing else tells us."""

WITHOUT_HURRY = frozenset({ConditionType.FAULT_TOLERANT.value, ConditionType.UP_TO_DATE.value})
"""Conditions that change by events alone."""

Key = tuple[str, str]
"""Namespace and name of a resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a pass ended."""

    requeue_after: float | None = None
    """Seconds after which to look again; None: not before something happens."""
    wrote: int = 0
    """Requests that may have changed something; Events are not counted."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """That a leader was asked to hand over."""

    leader: tuple[str, int]
    """Holder and term that are to end."""
    to: str
    """Pod that it was last asked for."""
    since: datetime
    last: datetime
    """When it was last asked."""

    def until(self, now: datetime) -> rollout.Asked:
        """Return how long ago that was."""
        return rollout.Asked(
            to=self.to,
            seconds=(now - self.since).total_seconds(),
            last_seconds=(now - self.last).total_seconds(),
        )


@dataclass(slots=True)
class _Memory:
    """When things of one resource were first seen."""

    uid: str
    renewal: tuple[str, str, datetime] | None = None
    """Holder and time of the Lease's last renewal, and when it was first seen."""
    asked: _Asked | None = None
    """Kept where the Lease says it no more, as the leader declined."""
    signs: tuple[int, str] | None = None
    """Chain and account that it sends answers with, as its replicas last said."""


class Reconciler:
    """Makes what runs what is asked for. One pass for a resource at a time, any number at once."""

    def __init__(
        self,
        cluster: Cluster,
        release: Release,
        replicas: Replicas,
        clock: Callable[[], datetime],
        token: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        """Prepare.

        Args:
            cluster: The API server.
            release: What this release of the controller brings along.
            replicas: The replicas' own word.
            clock: Now, with its zone.
            token: Makes passwords.
        """
        self._cluster = cluster
        self._release = release
        self._replicas = replicas
        self._clock = clock
        self._token = token
        self._contests = Contests(clock)
        self._memories: dict[Key, _Memory] = {}

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Take one resource a step further.

        Raises:
            ClusterAway: Try again later.
            Conflict: Something changed meanwhile; try again.
            Refused: The controller lacks a right to read, or to report.
        """
        manifest = await self._cluster.get(ports.AGGREGATORS, namespace, name)
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            self._memories.pop((namespace, name), None)  # the garbage collector does the rest
            return Outcome()
        try:
            resource = parse(manifest)
            return await self._pass(manifest, resource)
        except InvalidSpec as invalid:
            note = Note("InvalidSpec", str(invalid))
            status = stalled_status(manifest, note, self._clock())
            return await self._report(manifest, status, Outcome())

    async def _pass(self, manifest: Manifest, resource: Resource) -> Outcome:
        live = await observe.look(self._cluster, resource)
        application = Application(self._cluster, resource, live.objects, self._contests)
        work, is_applied, failure = Work(), False, None
        try:
            await self._apply(application, live)
            is_applied = True
        except OnlyAPerson as stalled:
            work = Work(stalled=stalled.note)
        except NotYet as waiting:
            work = Work(waiting=waiting.note)
        except ClusterAway as away:  # of one object perhaps, for good: that has to be told
            failure = away
            why = f"The API server does not take an object now: {away}."
            work = Work(waiting=Note("CannotApply", why))
        observed = await self._observe(resource, live)
        stepped = 0
        if is_applied:
            try:
                work, stepped = await self._step(application, observed)
            except ClusterAway as away:  # of evictions perhaps, for good
                failure = away
                why = f"The API server does not let a pod be replaced now: {away}."
                work = Work(waiting=Note("CannotApply", why))
        work = replace(work, contested=next(iter(application.contested), None))
        status = compute_status(resource, observed, work, self._release, self._clock())
        outcome = Outcome(
            requeue_after=_next_look(
                status, work, observed.lease, self._clock(), is_stepping=bool(stepped)
            ),
            wrote=application.wrote + stepped,
        )
        reported = await self._report(manifest, status, outcome)
        if failure is not None:
            raise failure
        return reported

    # Applying.

    async def _apply(self, application: Application, live: Live) -> None:
        """Apply everything; Services of Redis first, whose addresses the rest depends on.

        Raises:
            OnlyAPerson, NotYet, ClusterAway, Conflict: As ``Application.ensure``.
            InvalidSpec: Nothing was applied.
        """
        resource = application.resource
        known = self._known(resource, live)
        if is_waiting(resource, known):
            former = (resource.status.get("redis") or {}).get("addresses") or ()
            for service, address in zip(redis.redis_services(resource), former, strict=False):
                await application.restore(service, address)  # so that no pod has to be told
            for manifest in render(resource, known):
                await application.ensure(manifest)
            addresses = views.redis_addresses(resource, application.live)
            known = replace(known, redis_addresses=tuple(addresses))
        wanted = set()
        if (lease := access.lease(resource, known)) is not None:
            await application.ensure_once(lease)
            wanted.add((lease["kind"], lease["metadata"]["name"]))
        await self._ensure_passwords(application, live)
        manifests: Sequence[Manifest] = render(resource, known)
        if resource.spec.suspend:  # pods go also where something else cannot be applied
            manifests = sorted(manifests, key=lambda each: each["kind"] != ports.STATEFUL_SETS.kind)
        for manifest in manifests:
            await application.ensure(manifest)
            wanted.add((manifest["kind"], manifest["metadata"]["name"]))
        if not is_waiting(resource, known):
            await application.prune(wanted, [*live.pods, *views.templates(application.live)])

    def _known(self, resource: Resource, live: Live) -> Known:
        redis_name = names.redis(resource.name)
        aggregator = views.template(live.objects, live.pods, resource.name, resource.uid)
        server = views.template(live.objects, live.pods, redis_name, resource.uid)
        lease = live.objects.get((ports.LEASES.kind, resource.name))
        seen = Observed(lease=None if lease is None else views.lease_view(lease, 0.0))
        former = resource.status.get("redis") or {}
        return Known(
            release=self._release,
            running_image=resource.status.get("image") or _proven(self._set(live, resource.name)),
            running_redis_image=former.get("image") or _proven(self._set(live, redis_name)),
            redis_addresses=tuple(views.redis_addresses(resource, live.objects)),
            restarted_at=views.restarted_at(aggregator),
            redis_restarted_at=views.restarted_at(server),
            term=highest_term(resource.status, seen),
        )

    async def _ensure_passwords(self, application: Application, live: Live) -> None:
        """Create the Secret of a managed Redis if there is none.

        The controller must not read Secrets, so it tries where one may be missing: the group is
        new, or a pod does not get ready. Servers that run know the passwords of a Secret that is
        gone, and learn no others; new ones are for a new group, which the journals fill. So the
        set goes first, and is what tells that it has to, wherever a pass ends.

        Raises:
            NotYet: The Secret was lost, and the group is made anew.
        """
        resource, name = application.resource, names.redis(application.resource.name)
        if resource.spec.redis.mode is not RedisMode.MANAGED:
            return
        group = self._set(live, name)
        if all(_serves(each) for each in (group, self._set(live, resource.name))):
            return
        secret = redis.redis_secret(resource, redis.new_passwords(self._token))
        if (ports.STATEFUL_SETS.kind, name) not in application.live:
            await application.create_unseen(secret)
        elif await application.is_missing(secret):
            await application.remove(ports.STATEFUL_SETS, name)
            logger.warning(
                "the Secret with the passwords of a managed Redis was lost; its pods are made anew "
                "with other ones, and the journals fill them. Nothing has to be done",
                extra={"resource": resource.name, "secret": name},
            )
            why = f"Secret {name} was lost; Redis is made anew with other passwords."
            raise NotYet(Note("PasswordsLost", why))

    # Looking.

    async def _observe(self, resource: Resource, live: Live) -> Observed:
        aggregator = self._set(live, resource.name)
        pods = () if aggregator is None else aggregator.pods
        replicas = await observe.ask(self._replicas, pods)
        memory = self._memory(resource)
        accounts = [found for each in replicas.values() if (found := views.account(each))]
        if resource.spec.submission.mode is not SubmissionMode.ACTIVE or not pods:
            memory.signs = None
        elif accounts:
            memory.signs = deployments.resolve(resource.spec).chain_id, accounts[0]
        is_managed = resource.spec.redis.mode is RedisMode.MANAGED
        return Observed(
            aggregator=aggregator,
            redis=self._set(live, names.redis(resource.name)) if is_managed else None,
            lease=self._lease(resource, live, memory),
            replicas=replicas,
            redis_addresses=tuple(views.redis_addresses(resource, live.objects)),
            same_signer=tuple(
                key
                for key, other in sorted(self._memories.items())
                if memory.signs is not None
                and other.signs == memory.signs
                and key != (resource.namespace, resource.name)
            ),
        )

    def _set(self, live: Live, name: str) -> SetView | None:
        found = live.objects.get((ports.STATEFUL_SETS.kind, name))
        if found is None:
            return views.left_over(live.pods, name, self._clock())
        return views.set_view(found, live.pods, self._clock())

    def _memory(self, resource: Resource) -> _Memory:
        memory = self._memories.get((resource.namespace, resource.name))
        if memory is None or memory.uid != resource.uid:
            memory = _Memory(resource.uid)
            self._memories[resource.namespace, resource.name] = memory
        return memory

    def _lease(self, resource: Resource, live: Live, memory: _Memory) -> LeaseView | None:
        """Return the Lease.

        Its silence is counted by our own clock from when we first saw it, so that a clock that
        differs from the pods' accuses nobody. A Lease that was never seen before may have been
        silent for long: its time is believed where it is older than clocks should differ. The
        next renewal sets that right where they do.
        """
        lease = live.objects.get((ports.LEASES.kind, resource.name))
        if lease is None:
            return None
        now, view = self._clock(), views.lease_view(lease, 0.0)
        seen = view.holder, view.renewed
        age = views.seconds_since(view.renewed, now)
        if memory.renewal is None and age >= LEADERLESS_SECONDS + view.lease_seconds:
            memory.renewal = (*seen, now - timedelta(seconds=age))
        elif memory.renewal is None or memory.renewal[:2] != seen:
            memory.renewal = (*seen, now)
        silent = (now - memory.renewal[2]).total_seconds()
        return replace(view, silent_seconds=min(silent, age) if view.renewed else silent)

    # Rolling.

    async def _step(self, application: Application, observed: Observed) -> tuple[Work, int]:
        """Take the next step of a roll; return what is so then, and what was written."""
        resource, lease = application.resource, observed.lease
        memory, now = self._memory(resource), self._clock()
        asked = _asked(memory.asked, lease, now)
        step = rollout.plan(
            observed,
            paused=resource.spec.rollout.paused,
            asked=None if asked is None else asked.until(now),
        )
        # A leader that stays for another reason is asked afresh when it is to go.
        memory.asked = asked if isinstance(step, rollout.Handover | rollout.Evict) else None
        try:
            work, wrote = await self._act(application, step)
        except Refused as refused:
            return Work(stalled=Note("Forbidden", f"A pod cannot be replaced: {refused}.")), 0
        if wrote and isinstance(step, rollout.Handover) and lease is not None:
            since = now if asked is None else asked.since
            memory.asked = _Asked((lease.holder, lease.term), step.to, since, now)
        return work, wrote

    async def _act(self, application: Application, step: rollout.Step) -> tuple[Work, int]:
        match step:
            case rollout.Nothing():
                return Work(), 0
            case rollout.Wait(note):
                return Work(waiting=note), 0
            case rollout.Stuck(note):
                return Work(stalled=note), 0
            case rollout.Evict(pod):
                return await self._evict(application.resource, pod)
            case rollout.Handover(to, ask):
                wrote = await self._hand_over(application, to) if ask else 0
                return Work(waiting=Note("HandoverUnderWay", f"{to} is to lead.")), wrote

    async def _evict(self, resource: Resource, pod: PodView) -> tuple[Work, int]:
        if not await self._cluster.evict(resource.namespace, pod.name, uid=pod.uid):
            why = f"A disruption budget does not let {pod.name} be replaced now."
            return Work(waiting=Note("DisruptionBudget", why)), 0
        logger.info("replaced a pod", extra={"resource": resource.name, "pod": pod.name})
        return Work(waiting=Note("RollingOut", f"{pod.name} is being replaced.")), 1

    async def _hand_over(self, application: Application, to: str) -> int:
        """Ask the leader to hand over; return how many requests changed something."""
        lease = application.live[ports.LEASES.kind, application.resource.name]
        metadata = lease["metadata"]
        annotated = {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "annotations": {views.HANDOVER_TO: to},
        }
        try:
            await self._cluster.patch(
                {"apiVersion": lease["apiVersion"], "kind": lease["kind"], "metadata": annotated}
            )
        except Gone:
            return 0
        return 1

    # Reporting.

    async def _report(self, manifest: Manifest, status: Status, outcome: Outcome) -> Outcome:
        """Write the status if it is another one, of the resource as it was read."""
        before = manifest.get("status") or {}
        if status == before:
            return outcome
        metadata = {
            name: manifest["metadata"][name]
            for name in ("name", "namespace", "uid", "resourceVersion")
        }
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": metadata,
            "status": status,
        }
        try:
            await self._cluster.apply(body, subresource="status")
        except Gone:
            return Outcome(wrote=outcome.wrote)
        for event in events(manifest, before, status, self._clock()):
            await record(self._cluster, event)
        return replace(outcome, wrote=outcome.wrote + 1)


def _asked(known: _Asked | None, lease: LeaseView | None, now: datetime) -> _Asked | None:
    """Return how the present leader was asked to hand over, by us or by what the Lease says."""
    if lease is None:
        return None
    leader = lease.holder, lease.term
    if known is not None and known.leader == leader:
        return known
    return _Asked(leader, lease.heir, now, now) if lease.heir else None


def _next_look(
    status: Status, work: Work, lease: LeaseView | None, now: datetime, *, is_stepping: bool
) -> float:
    if is_stepping:
        return STEP_SECONDS
    if condition_of(status, ConditionType.RECONCILING)["status"] == "True":
        return PROGRESS_SECONDS
    conditions = (each for each in status["conditions"] if each["type"] not in WITHOUT_HURRY)
    abnormal = {ConditionType.RECONCILING.value, ConditionType.STALLED.value}
    is_calm = all(
        each["status"] == ("False" if each["type"] in abnormal else "True") for each in conditions
    )
    pause = CALM_SECONDS if is_calm and work.contested is None else TROUBLE_SECONDS
    return pause if lease is None else min(pause, _until_silent(lease, now))


def _until_silent(lease: LeaseView, now: datetime) -> float:
    """Return seconds until a Lease that looks silent counts as such; its renewals are not watched.

    By the time that is written in it, which is of another clock: that is reason enough to look
    again sooner, not to tell anything.
    """
    left = patience_left(lease)
    if left <= 0 or views.seconds_since(lease.renewed, now) <= lease.lease_seconds:
        return CALM_SECONDS
    return max(left, STEP_SECONDS)


def _serves(group: SetView | None) -> bool:
    """Tell whether a set is there with all the pods that are asked for."""
    return group is not None and bool(group.uid) and len(group.serving) >= group.replicas


def _proven(group: SetView | None) -> str | None:
    """Return the image of a set that was rolled out, where the status does not tell any more."""
    return None if group is None else group.proven_image
