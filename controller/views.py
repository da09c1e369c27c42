"""Pure: objects of the API server as what they mean to us."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from controller import names, ports
from controller.observed import LeaseView, PodView, SetView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controller.observed import ReplicaView
    from controller.ports import Manifest
    from controller.resource import Resource

LEASE_MILLISECONDS = f"{names.DOMAIN}/lease-milliseconds"
HANDOVER_TO = f"{names.DOMAIN}/handover-to"
"""Annotation: the pod that shall lead. It and the next are the replicas', see their election."""
FENCED = f"{names.DOMAIN}/fenced"

CRASHES = 2
"""Restarts after which a container that ended badly counts as crashing between them, too."""

YOUNG_SECONDS = 120.0
"""For which a container may run after it crashed, and still crash again. Where it ran for longer
before it crashed, so long."""

BACK_OFF_SECONDS = 300.0
"""Longest pause that the kubelet makes before it starts a container that crashed."""

SOUND_SECONDS = 600.0
"""A container that ran for so long is in no loop: the kubelet, too, counts anew then. It ended with
its node, or for another reason of its own."""


def set_view(statefulset: Manifest, pods: Iterable[Manifest], now: datetime) -> SetView:
    """Return one set and its pods."""
    metadata, spec = statefulset["metadata"], statefulset["spec"]
    template = spec["template"]
    annotations = template.get("metadata", {}).get("annotations") or {}
    status = statefulset.get("status") or {}
    is_present = status.get("observedGeneration") == metadata.get("generation")
    views = [
        view
        for pod in pods
        if (view := pod_view(pod, metadata["name"], now)) is not None
        and _owner(pod) in {None, metadata["uid"]}
    ]
    return SetView(
        uid=metadata["uid"],
        replicas=spec.get("replicas", 1),
        settings_hash=annotations.get(names.SETTINGS_HASH, ""),
        image=main_image(template),
        revision=status.get("updateRevision", "") if is_present else "",
        restarted_at=annotations.get(names.RESTARTED_AT),
        pods=tuple(sorted(views, key=lambda view: view.ordinal)),
    )


def left_over(pods: Iterable[Manifest], set_name: str, now: datetime) -> SetView | None:
    """Return pods that are there without their set; None: there are none.

    No settings are theirs, as nothing says what they are to be like.
    """
    views = [view for pod in pods if (view := pod_view(pod, set_name, now)) is not None]
    if not views:
        return None
    return SetView(
        uid="",
        replicas=len(views),
        settings_hash="",
        image="",
        pods=tuple(sorted(views, key=lambda view: view.ordinal)),
    )


def pod_view(pod: Manifest, set_name: str, now: datetime) -> PodView | None:
    """Return one pod; None: it is not one of that set."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    name, _, ordinal = metadata["name"].rpartition("-")
    if name != set_name or not ordinal.isdigit():
        return None
    ready = condition(status, "Ready")
    trouble, message = trouble_of(pod, now)
    since = ready.get("lastTransitionTime") or metadata.get("creationTimestamp")
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        ordinal=int(ordinal),
        ready=ready.get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        settings_hash=(metadata.get("annotations") or {}).get(names.SETTINGS_HASH, ""),
        revision=(metadata.get("labels") or {}).get("controller-revision-hash", ""),
        resource_uid=(metadata.get("labels") or {}).get(names.OWNER_UID, ""),
        node=pod["spec"].get("nodeName", ""),
        address=status.get("podIP", ""),
        trouble=trouble,
        trouble_message=message,
        seconds=seconds_since(since, now),
    )


def main_image(template: Mapping[str, Any]) -> str:
    """Return the image of a set's main container; empty: it has none.

    The container is called as the component is. Others may be put before it.
    """
    name = (template["metadata"].get("labels") or {}).get(names.COMPONENT)
    containers = template["spec"]["containers"]
    return next((each.get("image", "") for each in containers if each["name"] == name), "")


def condition(status: Mapping[str, Any], of: str) -> Mapping[str, Any]:
    """Return a condition of a pod; empty: there is none."""
    for each in status.get("conditions") or ():
        if each["type"] == of:
            return each  # type: ignore[no-any-return]  # JSON
    return {}


def trouble_of(pod: Manifest, now: datetime) -> tuple[str, str]:
    """Return why a pod's containers do not run, in words that do not change by the minute."""
    status = pod.get("status") or {}
    scheduled = condition(status, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return "Unschedulable", f"no node takes it: {scheduled.get('message', '')}"
    images = {
        container["name"]: container.get("image", "")
        for container in (
            *(pod["spec"].get("initContainers") or ()),
            *(pod["spec"].get("containers") or ()),
        )
    }
    for container in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        if trouble := _trouble_of_container(container, images.get(container["name"], ""), now):
            return trouble
    return "", ""


def _trouble_of_container(container: Manifest, image: str, now: datetime) -> tuple[str, str] | None:
    name, state = container["name"], container.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    reason = waiting.get("reason", "")
    if reason in {"ErrImagePull", "ImagePullBackOff"}:
        return "ImagePullBackOff", f"image {image} cannot be pulled."
    crashes = container.get("restartCount", 0) >= CRASHES and not container.get("ready")
    loops = reason == "CrashLoopBackOff" or (crashes and _is_between_crashes(state, ended, now))
    if ended.get("exitCode", 0) != 0 and loops:
        why = f"{ended.get('reason', 'Error')}, exit status {ended['exitCode']}"
        return "CrashLoopBackOff", f"container {name} ends again and again: {why}."
    if reason in {"ContainerCreating", "PodInitializing"}:
        return ("ContainerCreating", "") if reason == "ContainerCreating" else None
    return (reason, f"container {name}: {waiting.get('message', reason)}") if reason else None


def _is_between_crashes(state: Manifest, ended: Manifest, now: datetime) -> bool:
    """Tell whether a container that ended badly may do so again soon.

    Ends of long ago say nothing of one that runs: nodes restart, and a cold start takes minutes.
    A time that is not told counts as now.
    """
    ended_ago = seconds_since(ended.get("finishedAt"), now)
    ran = seconds_since(ended.get("startedAt"), now) - ended_ago
    if ran >= SOUND_SECONDS:
        return False
    running = state.get("running")
    if running is None:
        return "terminated" in state
    young = max(YOUNG_SECONDS, ran)
    return (
        ended_ago < young + BACK_OFF_SECONDS
        and seconds_since(running.get("startedAt"), now) < young
    )


def lease_view(lease: Manifest, silent_seconds: float) -> LeaseView:
    """Return what a Lease says. What cannot be read counts as not said."""
    metadata, spec = lease["metadata"], lease.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    holder = str(spec.get("holderIdentity") or "")
    fenced = (pod.strip() for pod in annotations.get(FENCED, "").split(","))
    milliseconds = _number(annotations.get(LEASE_MILLISECONDS))
    return LeaseView(
        holder=holder,
        pod=pod_of(holder),
        term=_number(spec.get("leaseTransitions")),
        acquired=str(spec.get("acquireTime") or ""),
        silent_seconds=silent_seconds,
        lease_seconds=milliseconds / 1000 or _number(spec.get("leaseDurationSeconds")),
        handover_to=annotations.get(HANDOVER_TO, "").strip(),
        fenced=frozenset(pod for pod in fenced if pod),
        renewed=str(spec.get("renewTime") or ""),
        resource_version=metadata["resourceVersion"],
    )


def pod_of(holder: str) -> str:
    """Return the pod of a holder, which is a pod's name, a dot and the boot."""
    return holder.rpartition(".")[0] or holder


def redis_addresses(resource: Resource, objects: Mapping[tuple[str, str], Manifest]) -> list[str]:
    """Return the ClusterIPs of the Redis pods' Services; empty until all have one."""
    addresses = []
    for ordinal in range(names.REDIS_PODS):
        service = objects.get((ports.SERVICES.kind, names.redis_service(resource.name, ordinal)))
        address = (service or {}).get("spec", {}).get("clusterIP") or ""
        if not address or (service or {})["metadata"].get("deletionTimestamp"):
            return []
        addresses.append(address)
    return addresses


def seconds_since(text: str | None, now: datetime) -> float:
    """Return the seconds since an RFC 3339 time; 0 for one that is not understood."""
    with suppress(ValueError):
        return max(0.0, (now - datetime.fromisoformat(text or "")).total_seconds())
    return 0.0


def _owner(pod: Manifest) -> str | None:
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def _number(value: object) -> int:
    try:
        return max(int(str(value or 0)), 0)
    except ValueError:
        return 0


def template(
    objects: Mapping[tuple[str, str], Manifest], pods: Iterable[Manifest], name: str, uid: str
) -> Mapping[str, Any]:
    """Return what pods of a set are made from; without the set, one of the pods it left.

    Args:
        objects: That the resource controls.
        pods: Those of a deleted resource of the same name may be among them, and say nothing of
            what this one is to be. Nor do those that are about to go.
        name: Of the set.
        uid: Of the resource.
    """
    found = objects.get((ports.STATEFUL_SETS.kind, name))
    if found is not None:
        return found["spec"]["template"]  # type: ignore[no-any-return]  # JSON
    left = [
        pod
        for pod in pods
        if pod["metadata"]["name"].rpartition("-")[0] == name
        and "deletionTimestamp" not in pod["metadata"]
        and (pod["metadata"].get("labels") or {}).get(names.OWNER_UID, uid) == uid
    ]
    return max(left, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default={})


def templates(objects: Mapping[tuple[str, str], Manifest]) -> list[Manifest]:
    """Return what pods of every set are made from."""
    return [
        each["spec"]["template"]
        for (kind, _), each in objects.items()
        if kind == ports.STATEFUL_SETS.kind
    ]


def restarted_at(template: Mapping[str, Any]) -> str | None:
    """Return when ``kubectl rollout restart`` was last asked for."""
    annotations = template.get("metadata", {}).get("annotations") or {}
    return annotations.get(names.RESTARTED_AT)


def account(replica: ReplicaView) -> str:
    """Return the account that a replica signs with; empty: it does not say."""
    said = replica.find("submission", "account")
    return said if isinstance(said, str) else ""
