"""Stories of changes that reach the pods."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from controller import desired, names, ports, reconcile, views
from controller.desired.known import Release
from controller.errors import ClusterAway, Gone, Refused
from controller.ports import Manifest
from tests.unit.controller.stories import NAME, NAMESPACE, World, owned, ready


@pytest.fixture
def world() -> World:
    return World()


async def test_a_change_replaces_standbys_first_and_the_leader_last(world: World) -> None:
    await ready(world)
    assert world.leader() == "agg-0"
    redis = {pod["metadata"]["uid"] for pod in world.redis_pods()}
    world.change({"submission": {"maxInFlight": 2}})
    await world.settle()
    assert [write.name for write in world.cluster.writes if write.verb == "evict"] == [
        "agg-2",
        "agg-1",
        "agg-0",
    ]
    assert world.is_ready()
    assert world.leader() == "agg-1"
    assert {pod["metadata"]["uid"] for pod in world.redis_pods()} == redis
    [failover] = world.told()["failovers"]
    assert (failover["from"], failover["to"], failover["planned"]) == ("agg-0", "agg-1", True)


async def test_never_ready_for_a_generation_that_is_not_rolled_out(world: World) -> None:
    await ready(world)
    seen_ready = 0
    for turn in range(30):
        changes: tuple[dict[str, Any], ...] = (
            {"limits": {"connections": 1 + turn}},
            {"service": {"port": 9000 + turn}},
            {"replicas": 2 + turn % 5},
        )
        world.change(changes[turn % 3])
        if turn % 4 == 1:
            world.cluster.fail(1, Refused("not now", 403), "apply")
        seen_ready += honestly_ready(world)
        for _ in range(turn % 13):
            await world.turn()
            seen_ready += honestly_ready(world)
    assert seen_ready > 10
    await world.settle()
    assert world.is_ready()


def honestly_ready(world: World) -> bool:
    """Tell whether the group says that it is ready; it may not say so while it is not."""
    if not world.is_ready():
        return False
    spec = world.resource()["spec"]
    asked = str(spec.get("limits", {}).get("connections", ""))
    files = {
        name: each["data"]["aggregator.yaml"]
        for each in world.cluster.all(ports.CONFIG_MAPS)
        if (name := each["metadata"]["name"]).startswith("agg-config-")
    }
    mounted = [
        volume["configMap"]["name"]
        for pod in world.pods()
        for volume in pod["spec"]["volumes"]
        if volume["name"] == "config"
    ]
    assert len(mounted) == spec.get("replicas", 3)
    assert all(not asked or f"max_connections: {asked}\n" in files[name] for name in mounted)
    service = world.cluster.read(ports.SERVICES, NAMESPACE, NAME)
    assert service is not None
    assert service["spec"]["ports"][0]["port"] == spec.get("service", {}).get("port", 8090)
    return True


@pytest.mark.parametrize(
    "spec",
    [
        {"service": {"port": 9000}},
        {"networkPolicy": {"mode": "Strict"}},
        {"rollout": {"paused": True}},
        {"journal": {"retention": {"whenDeleted": "Delete"}}},
    ],
    ids=["service", "policy", "paused", "retention"],
)
async def test_a_change_that_no_pod_sees_restarts_none(world: World, spec: dict[str, Any]) -> None:
    await ready(world)
    pods = world.uids()
    world.change(spec)
    await world.settle()
    assert world.is_ready()
    assert world.uids() == pods


async def test_a_new_release_restarts_nothing(world: World) -> None:
    await ready(world)
    pods = world.uids()
    world.restarted(Release(image="aggregator:2", redis_image="valkey:2"))
    await world.settle()
    assert world.uids() == pods
    assert world.is_ready()
    told = world.condition("UpToDate")
    assert (told["status"], told["reason"]) == ("False", "NewerImageAvailable")
    assert "aggregator:2" in told["message"]


async def test_another_rendering_of_the_same_settings_restarts_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(world)
    pods, rendered = world.uids(), desired.render

    def otherwise(*known: Any) -> tuple[Manifest, ...]:
        manifests = rendered(*known)
        for each in manifests:
            if each["kind"] == "StatefulSet":
                each["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 77
        return manifests

    monkeypatch.setattr(reconcile, "render", otherwise)
    await world.settle()
    statefulset = world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, NAME)
    assert statefulset is not None
    assert statefulset["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 77
    assert world.uids() == pods
    assert world.is_ready()


async def test_the_set_deleted_without_its_pods_keeps_the_image_that_runs(world: World) -> None:
    await ready(world)
    world.restarted(Release(image="aggregator:2", redis_image="valkey:2"))
    for pod in world.pods():
        world.cluster.edit({**pod, "metadata": {**pod["metadata"], "ownerReferences": []}})
    world.cluster.remove(ports.STATEFUL_SETS, NAMESPACE, NAME)
    pods = world.uids()
    await world.settle()
    assert world.uids() == pods
    assert world.told()["image"] == "aggregator:1"


async def test_a_bad_image_stalls_and_its_reversal_recovers(world: World) -> None:
    await ready(world)
    world.kubelet.trouble = lambda pod: (
        "ImagePullBackOff" if pod["spec"]["containers"][0]["image"] == "bad" else ""
    )
    world.change({"image": "bad"})
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["reason"] == "ImagePullBackOff"
    assert world.condition("Stalled")["status"] == "True"
    assert world.condition("Ready")["status"] == "False"
    assert sorted(pod["spec"]["containers"][0]["image"] for pod in world.pods()) == [
        "aggregator:1",
        "aggregator:1",
        "bad",
    ]
    world.change({"image": "aggregator:1"})
    await world.settle()
    assert world.is_ready()
    assert [write.name for write in world.cluster.writes if write.verb == "evict"] == [
        "agg-2",
        "agg-2",
    ]


async def test_a_redis_that_never_came_up_recovers_with_the_image_of_its_first_step(
    world: World,
) -> None:
    world.kubelet.trouble = lambda pod: (
        "ImagePullBackOff" if any(each["image"] == "bad" for each in every_container(pod)) else ""
    )
    world.create({"image": "bad"})
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["reason"] == "ImagePullBackOff"
    assert [write for write in world.cluster.writes if write.verb == "evict"] == []
    world.change({"image": "aggregator:1"})
    await world.settle()
    assert world.is_ready()
    evicted = [write.name for write in world.cluster.writes if write.verb == "evict"]
    assert len(evicted) == len(set(evicted)) == names.REDIS_PODS + 3


def every_container(pod: Manifest) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


async def test_a_leader_that_declines_is_asked_now_and_then_and_replaced_in_the_end(
    world: World,
) -> None:
    await ready(world)
    world.declines = True
    world.change({"submission": {"maxInFlight": 2}})
    asked: list[tuple[datetime, str]] = []
    for _ in range(90):
        before = len(world.cluster.writes)
        await world.reconcile()
        lease = world.cluster.read(ports.LEASES, NAMESPACE, NAME)
        assert lease is not None
        if any(write.kind == "Lease" for write in world.cluster.writes[before:]):
            asked.append((world.time.now, lease["metadata"]["annotations"][views.HANDOVER_TO]))
        world.kubelet.settle(2)
        world.elect()
        world.time.advance(1)
    assert world.is_ready()
    assert [to for _, to in asked] == ["agg-1", "agg-2"] * 3
    pauses = [(after - before).total_seconds() for (before, _), (after, _) in pairwise(asked)]
    assert pauses == [5.0] * 5
    evicted = [write.name for write in world.cluster.writes if write.verb == "evict"]
    assert evicted == ["agg-2", "agg-1", "agg-0"]


async def test_the_leader_stays_until_a_new_pod_can_lead(world: World) -> None:
    await ready(world)
    why = "its signer is not the aggregator of the contract"
    world.unfit = {"agg-1": why, "agg-2": why}
    leader = world.uids()["agg-0"]
    world.change({"submission": {"maxInFlight": 2}})
    for _ in range(120):
        await world.turn()
    assert world.uids()["agg-0"] == leader
    told = world.condition("Ready")
    assert (told["status"], told["reason"]) == ("False", "NoFitHeir")
    assert f"agg-1: {why}; agg-2: {why}" in told["message"]
    assert world.condition("Reconciling")["status"] == "True"
    assert world.condition("LeaderElected")["status"] == "True"
    del world.unfit["agg-2"]
    await world.settle()
    assert world.is_ready()
    assert world.leader() == "agg-2"
    [failover] = world.told()["failovers"]
    assert failover["planned"]


async def test_an_eviction_that_is_never_taken_is_told(world: World) -> None:
    await ready(world)
    world.change({"submission": {"maxInFlight": 2}})
    world.cluster.fail(1, ClusterAway("500: a webhook is down"), "evict")
    with pytest.raises(ClusterAway):
        await world.reconcile()
    told = world.condition("Reconciling")
    assert (told["status"], told["reason"]) == ("True", "CannotApply")
    assert "a webhook is down" in told["message"]
    assert world.told()["observedGeneration"] == world.resource()["metadata"]["generation"]
    assert world.condition("Ready")["status"] == "False"
    await world.settle()
    assert world.is_ready()


async def test_a_paused_rollout_replaces_nothing(world: World) -> None:
    await ready(world)
    pods = world.uids()
    world.change({"rollout": {"paused": True}, "submission": {"maxInFlight": 2}})
    for _ in range(5):
        await world.turn()
    assert world.uids() == pods
    assert world.condition("Ready")["reason"] == "RolloutPaused"
    world.change({"rollout": {"paused": False}})
    await world.settle()
    assert world.is_ready()


async def test_suspended_there_are_no_pods_and_all_else_stays(world: World) -> None:
    await ready(world)
    before = owned(world).keys()
    world.change({"suspend": True})
    await world.settle()
    assert world.cluster.all(ports.PODS) == []
    assert world.condition("Ready")["reason"] == "Suspended"
    assert owned(world).keys() == before
    world.change({"suspend": False})
    await world.settle()
    assert world.is_ready()


async def test_a_restart_that_kubectl_asks_for_is_a_roll(world: World) -> None:
    await ready(world)
    pods = {pod["metadata"]["uid"] for pod in world.pods()}
    statefulset = world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, NAME)
    assert statefulset is not None
    annotations = {names.RESTARTED_AT: "2026-03-01T12:00:00Z"}
    world.cluster.edit(
        {**statefulset, "spec": {"template": {"metadata": {"annotations": annotations}}}},
        "kubectl-rollout",
    )
    await world.settle()
    assert world.is_ready()
    assert not pods & {pod["metadata"]["uid"] for pod in world.pods()}


async def test_the_old_file_stays_for_as_long_as_a_pod_has_it(world: World) -> None:
    await ready(world)
    old = {each["metadata"]["name"] for each in world.cluster.all(ports.CONFIG_MAPS)}
    world.change({"submission": {"maxInFlight": 2}})
    await world.reconcile()
    during = {each["metadata"]["name"] for each in world.cluster.all(ports.CONFIG_MAPS)}
    assert during > old
    await world.settle()
    after = {each["metadata"]["name"] for each in world.cluster.all(ports.CONFIG_MAPS)}
    assert len(after) == len(old)
    assert after != old


async def test_volumes_grow_and_no_pod_is_replaced(world: World) -> None:
    await ready(world)
    pods = world.uids()
    statefulset = world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, NAME)
    world.change({"journal": {"size": "2Gi"}})
    await world.settle()
    claims = world.cluster.all(ports.VOLUME_CLAIMS, NAMESPACE)
    assert [claim["spec"]["resources"]["requests"]["storage"] for claim in claims] == ["2Gi"] * 3
    again = world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, NAME)
    assert statefulset is not None
    assert again is not None
    assert again["metadata"]["uid"] != statefulset["metadata"]["uid"]
    assert world.uids() == pods
    assert world.is_ready()


async def test_volumes_never_shrink(world: World) -> None:
    await ready(world, {"journal": {"size": "2Gi"}})
    world.change({"journal": {"size": "1Gi"}})
    await world.settle()
    claims = world.cluster.all(ports.VOLUME_CLAIMS, NAMESPACE)
    assert {claim["spec"]["resources"]["requests"]["storage"] for claim in claims} == {"2Gi"}
    assert world.is_ready()


async def test_scaling_takes_and_gives_pods_without_replacing_any(world: World) -> None:
    await ready(world)
    pods = world.uids()
    world.change({"replicas": 5})
    await world.settle()
    assert (world.is_ready(), len(world.pods())) == (True, 5)
    world.change({"replicas": 3})
    await world.settle()
    assert world.is_ready()
    assert world.uids() == pods


async def test_a_redis_that_is_not_wanted_any_more_goes(world: World) -> None:
    await ready(world)
    world.change({"suspend": True})
    await world.settle()
    world.change({"suspend": False, "replicas": 1, "redis": {"mode": "None"}})
    await world.settle()
    assert world.is_ready()
    left = {name for _, name in owned(world)}
    assert {name for name in left if "redis" in name} == set()
    assert world.cluster.all(ports.LEASES) == []
    world.change({"suspend": True})
    await world.settle()
    world.change({"suspend": False, "replicas": 3, "redis": {"mode": "Managed"}})
    await world.settle()
    assert world.is_ready()
    assert world.told()["highestTerm"] > 1


async def test_a_budget_of_somebody_elses_is_respected_and_told(world: World) -> None:
    await ready(world)
    pods = world.uids()
    selector = {"matchLabels": names.selector(NAME, names.AGGREGATOR)}
    metadata = {"name": "theirs", "namespace": NAMESPACE}
    world.cluster.put(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            "spec": {"minAvailable": 3, "selector": selector},
        }
    )
    world.change({"submission": {"maxInFlight": 2}})
    for _ in range(3):
        await world.turn()
    assert world.uids() == pods
    assert world.condition("Reconciling")["reason"] == "DisruptionBudget"
    world.cluster.remove(ports.DISRUPTION_BUDGETS, NAMESPACE, "theirs")
    await world.settle()
    assert world.is_ready()


async def test_a_right_to_evict_that_is_missing_is_told(world: World) -> None:
    await ready(world)
    world.change({"submission": {"maxInFlight": 2}})
    world.cluster.fail(1, Refused("pods/eviction is forbidden", 403), "evict")
    await world.reconcile()
    told = world.condition("Stalled")
    assert (told["status"], told["reason"]) == ("True", "Forbidden")
    await world.settle()
    assert world.is_ready()


async def test_a_volume_that_cannot_grow_is_told_and_the_set_stays(world: World) -> None:
    await ready(world)
    before = world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, NAME)
    world.change({"journal": {"size": "2Gi"}})
    world.cluster.fail(1, Refused("only dynamically provisioned pvc can be resized", 403), "patch")
    await world.reconcile()
    told = world.condition("Stalled")
    assert (told["status"], told["reason"]) == ("True", "VolumeCannotGrow")
    assert "journal-agg-0" in told["message"]
    assert world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, NAME) == before
    world.change({"journal": {"size": "1Gi"}})
    await world.settle()
    assert world.is_ready()


async def test_a_claim_without_a_volume_grows_once_it_has_one(world: World) -> None:
    world.kubelet.unbound = {"journal-agg-2"}
    world.kubelet.trouble = unbound(world)
    world.create()
    for _ in range(5):
        await world.turn()
    world.change({"journal": {"size": "2Gi"}})
    for _ in range(5):
        await world.turn()
    assert world.condition("Stalled")["status"] == "False"
    told = world.condition("UpToDate")
    assert (told["status"], told["reason"]) == ("False", "VolumeNotBound")
    assert "journal-agg-2 has no volume" in told["message"]
    assert sizes(world) == ["2Gi", "2Gi", "1Gi"]
    world.kubelet.unbound = set()
    await world.settle()
    assert sizes(world) == ["2Gi"] * 3
    assert world.is_ready()
    assert world.condition("UpToDate")["status"] == "True"


async def test_what_keeps_a_claim_without_a_volume_can_be_mended_as_it_is_to_grow(
    world: World,
) -> None:
    world.kubelet.unbound = {"journal-agg-2"}
    world.kubelet.trouble = unbound(world)
    world.create({"template": {"spec": {"nodeSelector": {"disk": "none"}}}})
    for _ in range(5):
        await world.turn()
    pods = world.uids()
    template = {"spec": {"nodeSelector": {"disk": "any"}}}
    world.change({"journal": {"size": "2Gi"}, "template": template})
    await world.turn()
    assert world.uids()["agg-2"] != pods["agg-2"]
    world.kubelet.unbound = set()
    await world.settle(turns=120)
    assert sizes(world) == ["2Gi"] * 3
    assert world.is_ready()


async def test_pods_go_on_suspension_also_where_volumes_cannot_grow(world: World) -> None:
    await ready(world)
    world.change({"journal": {"size": "2Gi"}, "suspend": True})
    for _ in range(8):
        no = Refused("only dynamically provisioned pvc can be resized", 403)
        world.cluster.fail(1, no, "patch")
        await world.turn()
    assert world.condition("Stalled")["reason"] == "VolumeCannotGrow"
    assert world.pods() == []
    assert world.redis_pods() == []


async def test_pods_go_on_suspension_also_where_claims_have_no_volume(world: World) -> None:
    world.kubelet.unbound = {f"journal-agg-{ordinal}" for ordinal in range(3)}
    world.kubelet.trouble = unbound(world)
    world.create()
    for _ in range(5):
        await world.turn()
    world.change({"journal": {"size": "2Gi"}, "suspend": True})
    await world.settle()
    assert world.condition("Ready")["reason"] == "Suspended"
    assert world.condition("UpToDate")["reason"] == "VolumeNotBound"
    assert world.pods() == []
    assert world.redis_pods() == []


def unbound(world: World) -> Callable[[Manifest], str]:
    """Trouble of pods whose claims have no volume."""
    return lambda pod: (
        "Unschedulable" if f"journal-{pod['metadata']['name']}" in world.kubelet.unbound else ""
    )


def sizes(world: World) -> list[str]:
    claims = world.cluster.all(ports.VOLUME_CLAIMS, NAMESPACE)
    return [claim["spec"]["resources"]["requests"]["storage"] for claim in claims]


async def test_a_lease_that_goes_while_it_is_to_be_handed_over_ends_no_roll(world: World) -> None:
    await ready(world)
    world.change({"submission": {"maxInFlight": 2}})
    world.cluster.fail(1, Gone("leases agg not found"), "patch")
    await world.settle()
    assert world.is_ready()
    assert world.leader() == "agg-1"


async def test_two_budgets_that_are_about_a_pod_are_told(world: World) -> None:
    await ready(world)
    world.change({"submission": {"maxInFlight": 2}})
    two = Refused("This pod has more than one PodDisruptionBudget", 500)
    world.cluster.fail(1, two, "evict")
    await world.reconcile()
    told = world.condition("Stalled")
    assert told["status"] == "True"
    assert "more than one PodDisruptionBudget" in told["message"]
    assert not world.is_ready()


async def test_a_delete_that_is_forbidden_is_told(world: World) -> None:
    await ready(world)
    world.change({"replicas": 1})
    world.cluster.fail(1, Refused("denied by a policy", 403), "delete")
    await world.reconcile()
    told = world.condition("Stalled")
    assert (told["status"], told["reason"]) == ("True", "Forbidden")
    assert "PodDisruptionBudget agg: denied by a policy" in told["message"]
    await world.settle()
    assert world.is_ready()


async def test_a_set_that_is_made_again_while_suspended_keeps_the_image(world: World) -> None:
    await ready(world)
    world.change({"suspend": True})
    await world.settle()
    world.restarted(Release(image="aggregator:2", redis_image="valkey:1"))
    world.change({"journal": {"size": "2Gi"}})
    await world.settle()
    world.change({"suspend": False})
    await world.settle()
    assert {pod["spec"]["containers"][0]["image"] for pod in world.pods()} == {"aggregator:1"}


async def test_labels_of_nodes_may_be_called_like_kinds(world: World) -> None:
    node = {"configMap": "yes", "configMapRef": "x"}
    await ready(world, {"template": {"spec": {"nodeSelector": node}}})
    assert all(pod["spec"]["nodeSelector"] == node for pod in world.pods())
