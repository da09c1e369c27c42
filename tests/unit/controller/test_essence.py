from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from controller import names
from controller.essence import Key, Seen, key_of

OWNER = {
    "apiVersion": names.API_VERSION,
    "kind": names.KIND,
    "name": "demo",
    "uid": "u-1",
    "controller": True,
}


def an_object(kind: str, **parts: object) -> dict[str, Any]:
    metadata = {"name": "one", "namespace": "test", "uid": "u-2", "resourceVersion": "1"}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **parts}


def a_lease() -> dict[str, Any]:
    spec = {"holderIdentity": "a", "leaseTransitions": 3, "renewTime": "12:00:00"}
    return an_object("Lease", spec=spec)


def a_pod() -> dict[str, Any]:
    container = {
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "image": "image:1",
        "state": {"running": {"startedAt": "12:00:00"}},
    }
    status = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": "12:00:00"}],
        "containerStatuses": [container],
    }
    return an_object("Pod", spec={"nodeName": "node-1"}, status=status)


def put(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed: Any = deepcopy(manifest)
    at = changed
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("|")]
    for step in steps:
        at = at[step] if isinstance(step, int) else at.setdefault(step, {})
    at[last] = value
    assert isinstance(changed, dict)
    return changed


def is_news(before: dict[str, Any], after: dict[str, Any]) -> bool:
    seen = Seen()
    assert seen.is_news("ADDED", before)
    return seen.is_news("MODIFIED", after)


HANDOVER = f"metadata|annotations|{names.DOMAIN}/handover-to"
FENCED = f"metadata|annotations|{names.DOMAIN}/fenced"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec|renewTime", "12:00:01"),
        ("spec|acquireTime", "12:00:01"),
        ("spec|leaseDurationSeconds", 5),
        (f"metadata|annotations|{names.DOMAIN}/lease-milliseconds", "5000"),
        ("metadata|resourceVersion", "2"),
        ("metadata|managedFields", [{"manager": "elector"}]),
    ],
)
def test_a_renewal_of_a_lease_is_no_news(path: str, value: object) -> None:
    assert not is_news(a_lease(), put(a_lease(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec|holderIdentity", "b"),
        ("spec|leaseTransitions", 4),
        (HANDOVER, "pod-1"),
        (FENCED, "pod-1"),
        ("metadata|deletionTimestamp", "12:00:00"),
        ("metadata|ownerReferences", [OWNER]),
        ("metadata|labels", {"theirs": "yes"}),
    ],
)
def test_another_leader_or_a_wish_of_a_person_is_news(path: str, value: object) -> None:
    assert is_news(a_lease(), put(a_lease(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("status|conditions|0|lastProbeTime", "12:00:01"),
        ("status|containerStatuses|0|state|running|startedAt", "12:00:01"),
        ("status|startTime", "12:00:01"),
        ("status|qosClass", "Burstable"),
        ("metadata|managedFields", [{"manager": "kubelet"}]),
    ],
)
def test_what_kubelets_note_by_the_way_is_no_news(path: str, value: object) -> None:
    assert not is_news(a_pod(), put(a_pod(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("status|conditions|0|status", "False"),
        ("status|phase", "Failed"),
        ("status|podIP", "10.0.0.2"),
        ("status|containerStatuses|0|ready", False),
        ("status|containerStatuses|0|restartCount", 1),
        ("status|containerStatuses|0|state", {"waiting": {"reason": "ImagePullBackOff"}}),
        ("status|initContainerStatuses", [{"name": "first", "state": {"running": {}}}]),
        ("spec|nodeName", "node-2"),
        ("metadata|annotations|settings", "other"),
        ("metadata|deletionTimestamp", "12:00:00"),
    ],
)
def test_a_pod_that_runs_or_stops_is_news(path: str, value: object) -> None:
    assert is_news(a_pod(), put(a_pod(), path, value))


@pytest.mark.parametrize("path", ["spec|port", "status|loadBalancer", "data|key", "rules|0"])
def test_anything_else_of_an_object_is_news(path: str) -> None:
    service = an_object("Service", rules=[1])
    assert is_news(service, put(service, path, "other"))
    assert not is_news(service, put(service, "metadata|resourceVersion", "2"))


def test_deletions_are_news_and_forgotten() -> None:
    seen = Seen()
    assert seen.is_news(None, a_pod())
    assert seen.is_news("DELETED", a_pod())
    assert seen.is_news("DELETED", a_pod())
    assert seen.is_news("ADDED", a_pod())


def test_a_list_after_a_gap_brings_only_what_changed() -> None:
    seen = Seen()
    assert seen.is_news(None, a_pod())
    assert not seen.is_news(None, a_pod())


def test_what_is_remembered_is_bounded() -> None:
    seen = Seen(remembered=2)
    for uid in "abc":
        seen.is_news("ADDED", put(a_pod(), "metadata|uid", uid))
    assert len(seen._digests) == 2
    assert not seen.is_news("MODIFIED", put(a_pod(), "metadata|uid", "c"))
    assert seen.is_news("MODIFIED", put(a_pod(), "metadata|uid", "a"))


def test_a_resource_is_its_own_key() -> None:
    assert key_of(an_object(names.KIND)) == Key("test", "one")


def test_an_object_belongs_to_whom_controls_it() -> None:
    labelled = put(a_pod(), "metadata|labels", {names.OWNER: "other"})
    assert key_of(put(labelled, "metadata|ownerReferences", [OWNER])) == Key("test", "demo")
    assert key_of(labelled) == Key("test", "other")


@pytest.mark.parametrize(
    "other",
    [
        {**OWNER, "controller": False},
        {**OWNER, "kind": "StatefulSet"},
        {**OWNER, "apiVersion": "example.org/v1"},
    ],
)
def test_an_object_of_others_belongs_to_nobody(other: dict[str, Any]) -> None:
    assert key_of(put(a_pod(), "metadata|ownerReferences", [other])) is None
