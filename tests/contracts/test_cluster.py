"""What ``Cluster`` promises: the fake in memory, and ours at a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from controller import names, ports
from controller.errors import Conflict, Gone, Refused
from controller.kube import KubeCluster
from controller.kubeconfig import api_server
from controller.ports import (
    CONFIG_MAPS,
    DISRUPTION_BUDGETS,
    PODS,
    VOLUME_CLAIMS,
    Cluster,
    Kind,
    Manifest,
)
from controller.volumes import is_bound
from tests.fakes.cluster import FakeCluster
from tests.kubernetes import Admin, an_aggregator, kubeconfig, path_of
from tests.waiting import until

Edit = Callable[[Manifest], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """One implementation, and a person who may do everything."""

    cluster: Cluster
    namespace: str
    put: Edit
    """Creates as somebody else."""
    edit: Edit
    """Merges as somebody else."""
    run: Callable[[str], Awaitable[object]]
    """Lets a pod be ready."""
    has_garbage_collection: bool


@pytest.fixture(params=["fake", "kube"])
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    if request.param == "fake":
        yield _fake()
        return
    with api_server({}, kubeconfig()) as server:
        cluster = KubeCluster(server, page=2)
        try:
            async with Admin(server) as admin, admin.namespace("contract") as namespace:
                await admin.apply_crd()
                yield _real(cluster, admin, namespace)
        finally:
            await cluster.aclose()


def _fake() -> Case:
    fake = FakeCluster()

    async def put(manifest: Manifest) -> None:
        fake.put(manifest)

    async def edit(manifest: Manifest) -> None:
        fake.edit(manifest)

    async def run(pod: str) -> None:
        stored = fake.stored["Pod", "test", pod]
        stored.manifest["status"] = READY

    return Case(fake, "test", put, edit, run, has_garbage_collection=False)


def _real(cluster: Cluster, admin: Admin, namespace: str) -> Case:
    async def put(manifest: Manifest) -> None:
        kind = ports.kind_of(manifest)
        await admin.call("POST", path_of(kind, namespace), manifest)

    async def edit(manifest: Manifest) -> None:
        kind, name = ports.kind_of(manifest), manifest["metadata"]["name"]
        await admin.merge(path_of(kind, namespace, name), manifest)

    async def run(pod: str) -> None:
        await admin.merge(path_of(PODS, namespace, pod, "status"), {"status": READY})

    return Case(cluster, namespace, put, edit, run, has_garbage_collection=True)


READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def a_map(case: Case, name: str = "one", **data: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": case.namespace, "labels": {"test": "yes"}},
        "data": data,
    }


def a_pod(case: Case, name: str = "pod") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": case.namespace, "labels": {"app": "test"}},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": "none.invalid/none:1"}],
        },
    }


def a_claim(case: Case, size: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "claim", "namespace": case.namespace},
        "spec": {
            "storageClassName": "none",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        },
    }


def but(manifest: Manifest, **metadata: str) -> Manifest:
    return manifest | {"metadata": manifest["metadata"] | metadata}


def version(manifest: Manifest) -> str:
    return str(manifest["metadata"]["resourceVersion"])


async def read(case: Case, kind: Kind, name: str) -> Manifest:
    found = await case.cluster.get(kind, case.namespace, name)
    assert found is not None
    return found


async def test_what_does_not_exist_is_none(case: Case) -> None:
    assert await case.cluster.get(CONFIG_MAPS, case.namespace, "none") is None


async def test_what_was_created_can_be_read(case: Case) -> None:
    created = await case.cluster.create(a_map(case, a="1"))
    found = await read(case, CONFIG_MAPS, "one")
    assert found["data"] == {"a": "1"}
    assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")
    assert found["metadata"]["uid"] == created["metadata"]["uid"]


async def test_creating_what_exists_is_a_conflict(case: Case) -> None:
    await case.cluster.create(a_map(case, a="1"))
    with pytest.raises(Conflict):
        await case.cluster.create(a_map(case, a="2"))
    assert (await read(case, CONFIG_MAPS, "one"))["data"] == {"a": "1"}


async def test_a_dry_run_of_a_creation_creates_nothing(case: Case) -> None:
    for _ in range(2):
        await case.cluster.create(a_map(case, a="1"), dry_run=True)
    assert await case.cluster.get(CONFIG_MAPS, case.namespace, "one") is None


async def test_a_dry_run_of_creating_what_exists_is_a_conflict(case: Case) -> None:
    created = await case.cluster.create(a_map(case, a="1"))
    with pytest.raises(Conflict):
        await case.cluster.create(a_map(case, a="2"), dry_run=True)
    assert version(await read(case, CONFIG_MAPS, "one")) == version(created)


async def test_an_apply_creates_and_changes(case: Case) -> None:
    first = await case.cluster.apply(a_map(case, a="1"))
    second = await case.cluster.apply(a_map(case, a="2"))
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert (first["data"], second["data"]) == ({"a": "1"}, {"a": "2"})


async def test_an_apply_of_the_same_changes_nothing(case: Case) -> None:
    first = await case.cluster.apply(a_map(case, a="1"))
    assert version(await case.cluster.apply(a_map(case, a="1"))) == version(first)


async def test_what_is_applied_no_longer_goes(case: Case) -> None:
    await case.cluster.apply(a_map(case, a="1", b="2"))
    assert (await case.cluster.apply(a_map(case, a="1")))["data"] == {"a": "1"}


async def test_what_others_set_stays(case: Case) -> None:
    await case.cluster.apply(a_map(case, a="1"))
    await case.edit(a_map(case) | {"data": {"theirs": "3"}})
    applied = await case.cluster.apply(a_map(case, a="2"))
    assert applied["data"] == {"a": "2", "theirs": "3"}


async def test_what_others_changed_of_ours_is_changed_back(case: Case) -> None:
    await case.cluster.apply(a_map(case, a="1"))
    await case.edit(a_map(case, a="theirs"))
    assert (await case.cluster.apply(a_map(case, a="1")))["data"] == {"a": "1"}


async def test_our_fields_are_told_from_those_of_others(case: Case) -> None:
    applied = await case.cluster.apply(a_map(case, a="1"))
    [managed] = applied["metadata"]["managedFields"]
    assert (managed["manager"], managed["operation"]) == (names.MANAGER, "Apply")
    assert "f:a" in managed["fieldsV1"]["f:data"]


@pytest.mark.parametrize("wrong", [{"uid": "another"}, {"resourceVersion": "7777777"}])
async def test_an_apply_to_another_one_is_a_conflict(case: Case, wrong: dict[str, str]) -> None:
    await case.cluster.apply(a_map(case, a="1"))
    with pytest.raises(Conflict):
        await case.cluster.apply(but(a_map(case, a="2"), **wrong))
    assert (await read(case, CONFIG_MAPS, "one"))["data"] == {"a": "1"}


@pytest.mark.parametrize("known", [{"uid": "gone"}, {"resourceVersion": "7777777"}])
async def test_an_apply_to_one_that_is_gone_makes_no_new_one(
    case: Case, known: dict[str, str]
) -> None:
    with pytest.raises(Conflict):
        await case.cluster.apply(but(a_map(case, a="2"), **known))
    assert await case.cluster.get(CONFIG_MAPS, case.namespace, "one") is None


async def test_an_apply_to_the_one_that_is_meant_goes_through(case: Case) -> None:
    first = await case.cluster.apply(a_map(case, a="1"))
    known = {"uid": first["metadata"]["uid"], "resourceVersion": version(first)}
    assert (await case.cluster.apply(but(a_map(case, a="2"), **known)))["data"] == {"a": "2"}
    with pytest.raises(Conflict):
        await case.cluster.apply(but(a_map(case, a="3"), **known))


async def test_what_is_not_allowed_is_refused(case: Case) -> None:
    await case.cluster.apply(a_map(case, a="1") | {"immutable": True})
    with pytest.raises(Refused) as refused:
        await case.cluster.apply(a_map(case, a="2") | {"immutable": True})
    assert refused.value.status == 422
    assert "immutable" in str(refused.value)


async def test_a_claim_without_a_volume_does_not_grow(case: Case) -> None:
    claim = a_claim(case, "1Gi")
    await case.put(claim)
    with pytest.raises(Refused) as refused:
        await case.cluster.patch(a_claim(case, "2Gi"))
    assert refused.value.status == 422
    assert "for bound claims" in str(refused.value)
    found = await read(case, VOLUME_CLAIMS, "claim")
    assert found["spec"]["resources"] == claim["spec"]["resources"]
    assert not is_bound(found)


async def test_status_is_applied_apart_from_the_rest(case: Case) -> None:
    await case.put(an_aggregator(case.namespace))
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "demo", "namespace": case.namespace},
        "status": {"observedGeneration": 1, "replicas": 2},
    }
    first = await case.cluster.apply(body, subresource="status")
    assert first["status"]["replicas"] == 2
    assert first["spec"]["network"]["preset"] == "Mainnet"
    assert first["metadata"]["generation"] == 1
    again = await case.cluster.apply(body, subresource="status")
    assert version(again) == version(first)
    later = {"observedGeneration": 1, "replicas": 3}
    second = await case.cluster.apply(body | {"status": later}, subresource="status")
    assert second["status"]["replicas"] == 3


async def test_the_status_of_what_does_not_exist_is_gone(case: Case) -> None:
    body = an_aggregator(case.namespace) | {"status": {"replicas": 2}}
    del body["spec"]
    with pytest.raises(Gone):
        await case.cluster.apply(body, subresource="status")


async def test_lists_are_whole_and_by_label(case: Case) -> None:
    for name in "abcde":
        await case.cluster.create(a_map(case, name, at=name))
    other = a_map(case, "other")
    other["metadata"]["labels"] = {"test": "no"}
    await case.cluster.create(other)
    found = await case.cluster.list(CONFIG_MAPS, case.namespace, {"test": "yes"})
    assert [each["metadata"]["name"] for each in found] == list("abcde")
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("v1", "ConfigMap")}
    everywhere = await case.cluster.list(CONFIG_MAPS, None, {"test": "yes"})
    assert len([one for one in everywhere if one["metadata"]["namespace"] == case.namespace]) == 5
    assert await case.cluster.list(CONFIG_MAPS, case.namespace, {"test": "maybe"}) == []


async def test_a_patch_merges(case: Case) -> None:
    await case.cluster.create(a_map(case, a="1", b="2"))
    patch: dict[str, Any] = a_map(case) | {"data": {"b": None, "c": "3"}}
    assert (await case.cluster.patch(patch))["data"] == {"a": "1", "c": "3"}


async def test_a_patch_of_what_does_not_exist_is_gone(case: Case) -> None:
    with pytest.raises(Gone):
        await case.cluster.patch(a_map(case, a="1"))


@pytest.mark.parametrize("wrong", [{"uid": "another"}, {"resourceVersion": "7777777"}])
async def test_a_patch_of_another_one_is_a_conflict(case: Case, wrong: dict[str, str]) -> None:
    await case.cluster.create(a_map(case, a="1"))
    with pytest.raises(Conflict):
        await case.cluster.patch(but(a_map(case, a="2"), **wrong))
    assert (await read(case, CONFIG_MAPS, "one"))["data"] == {"a": "1"}


async def test_a_delete_deletes_that_one(case: Case) -> None:
    created = await case.cluster.create(a_map(case))
    uid = created["metadata"]["uid"]
    await case.cluster.delete(CONFIG_MAPS, case.namespace, "one", uid=uid)
    assert await case.cluster.get(CONFIG_MAPS, case.namespace, "one") is None
    await case.cluster.delete(CONFIG_MAPS, case.namespace, "one", uid=uid)


async def test_a_delete_of_another_one_is_a_conflict(case: Case) -> None:
    created = await case.cluster.create(a_map(case))
    uid = created["metadata"]["uid"]
    with pytest.raises(Conflict):
        await case.cluster.delete(CONFIG_MAPS, case.namespace, "one", uid="another")
    with pytest.raises(Conflict):
        await case.cluster.delete(
            CONFIG_MAPS, case.namespace, "one", uid=uid, resource_version="7777777"
        )
    assert await case.cluster.get(CONFIG_MAPS, case.namespace, "one") is not None


@pytest.mark.parametrize("orphan", [True, False])
async def test_children_stay_or_go_with_their_owner(case: Case, orphan: bool) -> None:
    owner = await case.cluster.create(a_map(case, "owner"))
    uid = owner["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    child = a_map(case, "child")
    child["metadata"]["ownerReferences"] = [reference]
    await case.cluster.create(child)
    await case.cluster.delete(CONFIG_MAPS, case.namespace, "owner", uid=uid, orphan=orphan)
    if orphan:
        # The collector takes the reference away before it lets the owner go.
        await until(lambda: _is_gone(case, "owner"), "the owner is gone")
        assert not (await read(case, CONFIG_MAPS, "child"))["metadata"].get("ownerReferences")
    elif case.has_garbage_collection:
        await until(lambda: _is_gone(case, "child"), "the child is gone")


async def _is_gone(case: Case, name: str) -> bool:
    return await case.cluster.get(CONFIG_MAPS, case.namespace, name) is None


async def _is_going(case: Case, name: str) -> bool:
    pod = await case.cluster.get(PODS, case.namespace, name)
    return pod is None or "deletionTimestamp" in pod["metadata"]


async def test_a_pod_is_evicted(case: Case) -> None:
    pod = await case.cluster.create(a_pod(case))
    uid = pod["metadata"]["uid"]
    assert await case.cluster.evict(case.namespace, "pod", uid=uid)
    await until(lambda: _is_going(case, "pod"), "the pod goes")


async def test_a_pod_that_is_gone_counts_as_evicted(case: Case) -> None:
    assert await case.cluster.evict(case.namespace, "pod", uid="gone")
    await case.cluster.create(a_pod(case))
    assert await case.cluster.evict(case.namespace, "pod", uid="the one before")
    assert not await _is_going(case, "pod")


async def test_a_pod_that_a_budget_needs_is_not_evicted(case: Case) -> None:
    await case.put(a_pod(case))
    await case.run("pod")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "budget", "namespace": case.namespace},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "test"}}},
    }
    await case.put(budget)
    if case.has_garbage_collection:  # and a controller of budgets
        await until(lambda: _is_counted(case), "the budget is counted")
    uid = (await read(case, PODS, "pod"))["metadata"]["uid"]
    assert not await case.cluster.evict(case.namespace, "pod", uid=uid)
    assert not await _is_going(case, "pod")


async def _is_counted(case: Case) -> bool:
    budget = await read(case, DISRUPTION_BUDGETS, "budget")
    return bool(budget.get("status", {}).get("currentHealthy") == 1)


async def test_events_are_recorded_once(case: Case) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "demo.1", "namespace": case.namespace},
        "involvedObject": {"kind": names.KIND, "namespace": case.namespace, "name": "demo"},
        "reason": "Tried",
        "message": "This is a test.",
        "type": "Normal",
        "source": {"component": names.MANAGER},
    }
    await case.cluster.record(event)
    with pytest.raises(Conflict):
        await case.cluster.record(event)
