"""Stories of one resource, pass after pass: objects come, and stay as they are to be."""

from __future__ import annotations

from typing import Any

import pytest

from controller import names, ports
from controller.errors import ClusterAway
from tests.unit.controller.stories import NAME, NAMESPACE, World, owned, ready


@pytest.fixture
def world() -> World:
    return World()


async def test_a_resource_becomes_a_ready_group(world: World) -> None:
    world.create()
    await world.settle()
    assert world.is_ready()
    assert {pod["metadata"]["name"] for pod in world.pods()} == {"agg-0", "agg-1", "agg-2"}
    told = world.told()
    assert told["leader"]["pod"] == "agg-0"
    assert len(told["redis"]["addresses"]) == names.REDIS_PODS
    assert told["network"]["chainId"] == 31337
    assert told["image"] == "aggregator:1"
    assert told["observedGeneration"] == 1
    assert (
        told["selector"]
        == "aligned-aggregator.io/name=agg,aligned-aggregator.io/component=aggregator"
    )


async def test_one_pass_creates_every_object(world: World) -> None:
    world.create()
    await world.reconcile()
    made = owned(world)
    await world.settle()
    assert made.keys() == owned(world).keys()


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 1, "redis": {"mode": "None"}},
        {"redis": {"mode": "External", "external": {"url": "redis://cache:6379"}}},
        {"suspend": True},
    ],
    ids=["alone", "external", "suspended"],
)
async def test_every_way_to_run_comes_to_rest(world: World, spec: dict[str, Any]) -> None:
    world.create(spec)
    await world.settle()
    assert world.is_ready() == ("suspend" not in spec), world.told()
    world.cluster.writes.clear()
    await world.turn()
    assert world.cluster.writes == []


async def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    await ready(world)
    for _ in range(5):
        world.time.advance(60)
        world.elect()
        assert (await world.reconcile()).wrote == 0
    assert world.cluster.writes == []


async def test_the_resource_itself_gets_nothing_but_a_status(world: World) -> None:
    before = world.create()
    await world.settle()
    after = world.resource()
    assert after["spec"] == before["spec"]
    for name in ("finalizers", "annotations", "labels", "generation"):
        assert after["metadata"].get(name) == before["metadata"].get(name)


async def test_a_resource_that_is_gone_is_nobodys_business(world: World) -> None:
    await ready(world)
    world.cluster.remove(ports.AGGREGATORS, NAMESPACE, NAME)
    assert (await world.reconcile()).requeue_after is None
    world.kubelet.settle()
    assert world.cluster.writes == []
    assert [key for key in world.cluster.stored if key[0] != "PersistentVolumeClaim"] == []


async def test_whatever_is_deleted_comes_back(world: World) -> None:
    await ready(world)
    before = owned(world)
    for kind, name in before:
        if kind == "Service" and name.startswith("agg-redis-"):
            continue
        key = next(each for each in ports.OWNED if each.kind == kind)
        world.cluster.remove(key, NAMESPACE, name)
        await world.settle()
        assert owned(world).keys() == before.keys(), name
    assert world.is_ready()


async def test_what_was_changed_is_changed_back(world: World) -> None:
    await ready(world)
    before = owned(world)
    service = world.cluster.read(ports.SERVICES, NAMESPACE, NAME)
    assert service is not None
    world.cluster.edit({**service, "spec": {"selector": {"app": "mine"}}})
    policy = world.cluster.all(ports.NETWORK_POLICIES, NAMESPACE)[0]
    world.cluster.edit({**policy, "spec": {"podSelector": {}}})
    await world.settle()
    after = owned(world)
    assert (
        after["Service", NAME]["spec"]["selector"].items()
        >= before["Service", NAME]["spec"]["selector"].items()
    )
    assert after["NetworkPolicy", policy["metadata"]["name"]]["spec"]["podSelector"] != {}


async def test_what_others_add_stays(world: World) -> None:
    await ready(world)
    service = world.cluster.read(ports.SERVICES, NAMESPACE, NAME)
    assert service is not None
    service["metadata"]["annotations"] = {"lb.example.org/health": "ok"}
    world.cluster.edit(service)
    world.change({"service": {"port": 9000}})
    await world.settle()
    after = world.cluster.read(ports.SERVICES, NAMESPACE, NAME)
    assert after is not None
    assert after["metadata"]["annotations"] == {"lb.example.org/health": "ok"}
    assert after["spec"]["ports"][0]["port"] == 9000


async def test_a_setting_that_is_taken_back_leaves_nothing_behind(world: World) -> None:
    await ready(world)
    world.change({"service": {"annotations": {"a": "1"}}})
    await world.settle()
    world.change({"service": None})
    await world.settle()
    service = world.cluster.read(ports.SERVICES, NAMESPACE, NAME)
    assert service is not None
    assert "annotations" not in service["metadata"]


async def test_a_deleted_lease_begins_with_the_highest_term(world: World) -> None:
    await ready(world)
    lease = world.cluster.read(ports.LEASES, NAMESPACE, NAME)
    assert lease is not None
    world.cluster.edit({**lease, "spec": {"leaseTransitions": 7}}, "aggregator")
    await world.settle()
    world.cluster.remove(ports.LEASES, NAMESPACE, NAME)
    await world.reconcile()
    again = world.cluster.read(ports.LEASES, NAMESPACE, NAME)
    assert again is not None
    assert again["spec"]["leaseTransitions"] == 7


async def test_a_lease_is_never_written_once_it_is_there(world: World) -> None:
    await ready(world)
    lease = world.cluster.read(ports.LEASES, NAMESPACE, NAME)
    assert lease is not None
    world.cluster.edit({**lease, "spec": {"leaseTransitions": 3}}, "aggregator")
    world.change({"failover": {"profile": "Fast"}, "submission": {"maxInFlight": 2}})
    for _ in range(3):
        await world.reconcile()
    assert {write.verb for write in world.cluster.writes if write.kind == "Lease"} <= {"patch"}


async def test_a_lost_redis_service_gets_another_address_and_the_group_follows(
    world: World,
) -> None:
    await ready(world)
    before, pods = world.told()["redis"]["addresses"], world.uids()
    world.cluster.taken.add(before[1])
    world.cluster.remove(ports.SERVICES, NAMESPACE, "agg-redis-1")
    await world.settle(turns=120)
    after = world.told()["redis"]["addresses"]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] not in before
    assert world.is_ready()
    assert all(world.uids()[name] != uid for name, uid in pods.items())


async def test_a_lost_redis_service_gets_its_address_back_and_no_pod_is_replaced(
    world: World,
) -> None:
    await ready(world)
    before, pods = world.told()["redis"]["addresses"], world.uids()
    world.cluster.remove(ports.SERVICES, NAMESPACE, "agg-redis-1")
    await world.settle(turns=120)
    assert world.told()["redis"]["addresses"] == before
    assert world.uids() == pods


async def test_a_restart_of_the_redis_set_is_rolled_out(world: World) -> None:
    await ready(world)
    pods = world.uids()
    found = world.cluster.read(ports.STATEFUL_SETS, NAMESPACE, "agg-redis")
    assert found is not None
    template = found["spec"]["template"]
    template["metadata"]["annotations"][names.RESTARTED_AT] = "2026-11-23T12:00:00Z"
    world.cluster.edit({**found, "spec": {"template": template}}, "kubectl-rollout")
    await world.settle(turns=120)
    assert world.is_ready()
    replaced = {name for name, uid in world.uids().items() if pods[name] != uid}
    assert replaced == {"agg-redis-0", "agg-redis-1", "agg-redis-2"}


async def test_a_fight_over_a_field_ends_with_the_name_of_the_other(world: World) -> None:
    await ready(world)
    for _ in range(8):
        service = world.cluster.read(ports.SERVICES, NAMESPACE, NAME)
        assert service is not None
        selector = {names.COMPONENT: "theirs"}
        world.cluster.edit({**service, "spec": {"selector": selector}}, "their-controller")
        await world.reconcile()
        world.time.advance(1)
    applied = [write for write in world.cluster.writes if write.kind == "Service"]
    assert len(applied) == 4
    told = world.condition("UpToDate")
    assert (told["status"], told["reason"]) == ("False", "FieldContested")
    assert "their-controller" in told["message"]
    assert any(event["reason"] == "FieldContested" for event in world.cluster.events)
    world.time.advance(3600)
    await world.settle()
    assert world.condition("UpToDate")["status"] == "True"


async def test_what_belongs_to_somebody_else_is_not_touched(world: World) -> None:
    theirs = world.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": "theirs"}},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
        },
        "helm",
    )
    world.create()
    for _ in range(3):
        await world.turn()
    assert world.cluster.read(ports.SERVICES, NAMESPACE, NAME) == theirs
    for of, status in (("Ready", "False"), ("Stalled", "True"), ("Reconciling", "False")):
        assert (world.condition(of)["status"]) == status
    assert world.condition("Stalled")["reason"] == "NameConflict"
    world.cluster.remove(ports.SERVICES, NAMESPACE, NAME)
    await world.settle()
    assert world.is_ready()


async def test_objects_of_a_deleted_resource_are_waited_for_and_never_adopted(
    world: World,
) -> None:
    await ready(world)
    old = world.resource()["metadata"]["uid"]
    world.cluster.remove(ports.AGGREGATORS, NAMESPACE, NAME)
    await world.reconcile()
    world.create()
    await world.reconcile()
    assert world.condition("Reconciling")["reason"] == "PredecessorGoing"
    assert world.condition("Stalled")["status"] == "False"
    before = {
        key: stored.manifest["metadata"]["resourceVersion"]
        for key, stored in world.cluster.stored.items()
        if names.owner_of(stored.manifest["metadata"]) == old
    }
    await world.reconcile()
    for key, version in before.items():
        assert world.cluster.stored[key].manifest["metadata"]["resourceVersion"] == version
    await world.settle()
    assert world.is_ready()
    uid = world.resource()["metadata"]["uid"]
    assert {names.owner_of(each["metadata"]) for each in world.cluster.all(ports.SERVICES)} == {uid}


async def test_only_what_carries_our_label_is_pruned(world: World) -> None:
    await ready(world)
    resource = world.resource()
    kept = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "notes",
            "namespace": NAMESPACE,
            "labels": {names.OWNER: NAME, names.OWNER_UID: resource["metadata"]["uid"]},
        },
        "data": {},
    }
    world.cluster.put(kept)
    await world.settle()
    assert world.cluster.read(ports.CONFIG_MAPS, NAMESPACE, "notes") is not None


async def test_passwords_are_made_once(world: World) -> None:
    await ready(world)
    made = world.cluster.read(ports.SECRETS, NAMESPACE, "agg-redis")
    assert made is not None
    world.change({"redis": {"managed": {"resources": {"requests": {"cpu": "60m"}}}}})
    await world.settle(turns=120)
    assert world.cluster.read(ports.SECRETS, NAMESPACE, "agg-redis") == made


async def test_passwords_that_were_lost_are_made_anew_with_the_group(world: World) -> None:
    await ready(world)
    before = world.uids()
    world.cluster.remove(ports.SECRETS, NAMESPACE, "agg-redis")
    world.kubelet.trouble = lambda pod: (
        "ContainerCreating" if pod["metadata"]["uid"] == before["agg-0"] else ""
    )
    world.time.advance(60)
    for _ in range(5):
        await world.turn()
    world.kubelet.trouble = lambda pod: ""
    await world.settle(turns=120)
    assert world.cluster.read(ports.SECRETS, NAMESPACE, "agg-redis") is not None
    assert world.is_ready()
    replaced = {name for name, uid in world.uids().items() if before[name] != uid}
    assert replaced >= {"agg-redis-0", "agg-redis-1", "agg-redis-2"}


async def test_pods_go_on_suspension_also_where_something_cannot_be_applied(world: World) -> None:
    await ready(world)
    world.cluster.remove(ports.SERVICES, NAMESPACE, NAME)
    world.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": NAME},
            "spec": {},
        }
    )
    world.change({"suspend": True})
    for _ in range(20):
        await world.turn()
    assert world.condition("Stalled")["reason"] == "NameConflict"
    assert world.pods() == []
    assert world.redis_pods() == []


async def test_an_object_that_is_never_taken_is_told(world: World) -> None:
    await ready(world)
    world.change({"failover": {"profile": "Fast"}})
    world.cluster.fail(1, ClusterAway("500: a webhook is down"), "apply")
    with pytest.raises(ClusterAway):
        await world.reconcile()
    told = world.condition("Reconciling")
    assert (told["status"], told["reason"]) == ("True", "CannotApply")
    assert "a webhook is down" in told["message"]
    assert world.told()["observedGeneration"] == world.resource()["metadata"]["generation"]
    assert world.condition("Ready")["status"] != "True"


async def test_a_missing_secret_is_named_and_stalls_nothing(world: World) -> None:
    world.kubelet.trouble = lambda pod: (
        "ContainerCreating" if "redis" not in pod["metadata"]["name"] else ""
    )
    world.create()
    for _ in range(30):
        await world.turn()
    told = world.condition("Reconciling")
    assert (told["status"], told["reason"]) == ("True", "WaitingForSecrets")
    assert "key (key keystore.json), key (key password)" in told["message"]
    assert world.condition("Stalled")["status"] == "False"
    assert world.condition("Ready")["reason"] == "WaitingForSecrets"
    world.kubelet.trouble = lambda pod: ""
    await world.settle()
    assert world.is_ready()
