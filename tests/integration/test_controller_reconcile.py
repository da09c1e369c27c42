"""Passes at a real API server; its controllers make the pods, and we let them run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from controller import names, ports
from controller.errors import Conflict
from tests.integration.controlled import Place, a_place, says_ready
from tests.kubernetes import path_of
from tests.waiting import until

logger = logging.getLogger(__name__)
"""Tells figures (``--log-cli-level=INFO``); none is asserted, as machines differ."""


pytestmark = pytest.mark.timeout(900)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as one:
        yield one


async def ready(place: Place, **spec: Any) -> None:
    await place.create(**spec)
    await until(
        place.comes_ready, "ready", seconds=180
    )  # a leader may be elected after all is at rest
    await place.settle()
    assert await place.is_ready()
    place.wrote.clear()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"replicas": 1, "redis": {"mode": "None"}},
        {"redis": {"mode": "External", "external": {"url": "redis://cache:6379"}}},
        {"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": "2.0"}}},
        {
            "service": {
                "type": "LoadBalancer",
                "annotations": {"a": "b"},
                "sourceRanges": ["10.0.0.0/8"],
            }
        },
        {"networkPolicy": {"mode": "Strict"}, "journal": {"mode": "Ephemeral"}},
    ],
    ids=["smallest", "alone", "external", "quantities", "balanced", "strict"],
)
async def test_a_group_comes_to_rest_and_nothing_is_asked_for_then(
    place: Place, spec: dict[str, Any]
) -> None:
    await ready(place, **spec)
    for _ in range(3):
        assert (await place.reconcile()).wrote == 0
    assert place.wrote == []


async def test_one_pass_creates_every_object(place: Place) -> None:
    await place.create()
    begun = time.perf_counter()
    await place.reconcile()
    logger.info("every object after %.2f s", time.perf_counter() - begun)
    made = await place.owned()
    await place.settle()
    assert (await place.owned()).keys() == made.keys()


async def test_what_is_deleted_or_changed_is_repaired_by_one_pass(place: Place) -> None:
    await ready(place)
    seconds = []
    for (kind_name, name), before in sorted((await place.owned()).items()):
        kind = next(each for each in ports.OWNED if each.kind == kind_name)
        if kind == ports.STATEFUL_SETS or (kind == ports.SERVICES and "redis-" in name):
            continue
        await place.admin.call("DELETE", path_of(kind, place.namespace, name))
        begun = time.perf_counter()
        await place.reconcile()
        seconds.append(time.perf_counter() - begun)
        again = await place.read(kind, name)
        assert again is not None, name
        assert again["metadata"]["uid"] != before["metadata"]["uid"]
        labels = {"metadata": {"labels": {names.COMPONENT: "theirs"}}}
        await place.admin.merge(path_of(kind, place.namespace, name), labels)
        if kind == ports.LEASES:
            continue  # the replicas'
        await place.reconcile()
        mended = await place.read(kind, name)
        assert mended is not None
        assert mended["metadata"]["labels"] == before["metadata"]["labels"]
    logger.info("repaired after %.3f s at most", max(seconds))


async def test_fields_of_others_stay_and_ours_go_when_they_are_not_wanted(place: Place) -> None:
    await ready(place, service={"annotations": {"ours": "1"}})
    path = path_of(ports.SERVICES, place.namespace, "agg")
    await place.admin.merge(path, {"metadata": {"annotations": {"theirs": "1"}}})
    await place.change(service={"annotations": None})
    await place.settle()
    service = await place.read(ports.SERVICES)
    assert service is not None
    assert service["metadata"]["annotations"] == {"theirs": "1"}


async def test_a_foreign_object_of_the_same_name_is_not_touched(place: Place) -> None:
    path = path_of(ports.SERVICES, place.namespace)
    theirs = await place.admin.call(
        "POST", path, {"metadata": {"name": "agg"}, "spec": {"ports": [{"port": 80}]}}
    )
    await place.create()
    await place.reconcile()
    assert await place.told("Stalled") == ("True", "NameConflict")
    assert await place.admin.call("GET", f"{path}/agg") == theirs
    await place.admin.call("DELETE", f"{path}/agg")
    await until(place.comes_ready, "ready again", seconds=180)


async def test_a_resource_made_again_under_its_name_adopts_nothing(place: Place) -> None:
    await ready(place)
    before = await place.owned()
    path = path_of(ports.AGGREGATORS, place.namespace, "agg")
    await place.admin.call("DELETE", path)
    await place.create()
    await place.settle()
    after = await place.owned()
    assert await place.is_ready()
    assert len(before) == len(after)
    uids = {each["metadata"]["uid"] for each in before.values()}
    assert uids.isdisjoint(each["metadata"]["uid"] for each in after.values())


async def test_a_lost_redis_service_whose_address_is_taken_gets_another(place: Place) -> None:
    await ready(place)
    pods, name = await place.pods(), "agg-redis-1"
    path = path_of(ports.SERVICES, place.namespace)
    old = (await place.admin.call("GET", f"{path}/{name}"))["spec"]["clusterIP"]
    await place.admin.call("DELETE", f"{path}/{name}")
    squatter = {"clusterIP": old, "ports": [{"port": 80}]}
    await place.admin.call("POST", path, {"metadata": {"name": "squatter"}, "spec": squatter})
    await place.reconcile()
    resource = await place.read(ports.AGGREGATORS)
    service = await place.read(ports.SERVICES, name)
    assert resource is not None
    assert service is not None
    assert service["spec"]["clusterIP"] != old
    assert resource["status"]["redis"]["addresses"][1] == service["spec"]["clusterIP"]
    assert not says_ready(resource)
    await place.settle()
    after = await place.pods()
    assert await place.is_ready()
    assert all(after[each] != uid for each, uid in pods.items())


async def test_a_lease_deleted_by_hand_begins_with_the_highest_term(place: Place) -> None:
    await ready(place)
    path = path_of(ports.LEASES, place.namespace, "agg")
    await place.admin.merge(path, {"spec": {"leaseTransitions": 41}})
    await place.settle()
    await place.admin.call("DELETE", path)
    await place.reconcile()
    lease = await place.read(ports.LEASES)
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] >= 41


async def test_a_bad_image_stalls_and_its_reversal_recovers(place: Place) -> None:
    place.trouble["bad"] = "InvalidImageName"
    await ready(place)
    good = await place.pods()
    await place.change(image="bad")

    async def is_stalled() -> bool:
        await place.reconcile()
        return await place.told("Stalled") == ("True", "InvalidImageName")

    try:
        await until(is_stalled, "the bad image stalls", seconds=180)
    except AssertionError as late:
        late.add_note(str(await place.read(ports.AGGREGATORS)))
        late.add_note(str(await place.pods()))
        raise
    during = await place.pods()
    [tried] = [name for name, uid in during.items() if good[name] != uid]
    assert tried != await place.leader()  # a standby, and no other pod after it
    await place.change(image=None)
    await place.change(image="aggregator:1")
    await until(place.comes_ready, "ready again", seconds=180)
    after = await place.pods()
    assert {name: after[name] for name in after if name != tried} == {
        name: good[name] for name in good if name != tried
    }


async def test_a_roll_takes_standbys_first_and_the_leader_last(place: Place) -> None:
    await ready(place, replicas=2, redis={"mode": "External", "external": {"url": "redis://r:1"}})
    before = await place.pods()
    await place.change(limits={"connections": 77})
    order: list[str] = []

    async def is_rolled() -> bool:
        await place.reconcile()
        now = await place.pods()
        order.extend(
            name for name in sorted(now) if now[name] != before[name] and name not in order
        )
        return await place.is_ready()

    await until(is_rolled, "rolled out", seconds=240)
    assert order == ["agg-1", "agg-0"]
    lease = await place.read(ports.LEASES)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "agg-1.boot"


async def test_volumes_grow_without_a_pod_being_replaced(place: Place) -> None:
    storage = {
        "metadata": {"name": f"growing-{place.namespace}"},
        "provisioner": "none.example.org",
        "allowVolumeExpansion": True,
    }
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    await place.admin.call("POST", classes, storage)
    try:
        await _grow(place, storage["metadata"]["name"])  # type: ignore[index]  # JSON
    finally:
        await place.admin.call("DELETE", f"{classes}/growing-{place.namespace}")
        for ordinal in range(3):
            volume = f"{place.namespace}-journal-agg-{ordinal}"
            await place.admin.try_call("DELETE", f"/api/v1/persistentvolumes/{volume}")


async def _grow(place: Place, storage: str) -> None:
    claims = [f"journal-agg-{ordinal}" for ordinal in range(3)]
    for claim in claims:
        await _offer(place, claim, storage)
    await ready(place, journal={"storageClassName": storage})
    pods, statefulset = await place.pods(), await place.read(ports.STATEFUL_SETS)
    for claim in claims:
        await until(partial(_is_bound, place, claim), f"{claim} is bound")
    await place.change(journal={"size": "2Gi"})
    await place.settle()
    again = await place.read(ports.STATEFUL_SETS)
    assert statefulset is not None
    assert again is not None
    assert again["metadata"]["uid"] != statefulset["metadata"]["uid"]
    grown = await place.cluster.list(ports.VOLUME_CLAIMS, place.namespace)
    assert [each["spec"]["resources"]["requests"]["storage"] for each in grown] == ["2Gi"] * 3
    assert await place.pods() == pods
    assert await place.is_ready()


async def _offer(place: Place, claim: str, storage: str) -> None:
    """Make a volume for a claim: only a bound one may grow."""
    volume = {
        "metadata": {"name": f"{place.namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": storage,
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": place.namespace, "name": claim},
        },
    }
    await place.admin.call("POST", "/api/v1/persistentvolumes", volume)


async def _is_bound(place: Place, claim: str) -> bool:
    path = path_of(ports.VOLUME_CLAIMS, place.namespace, claim)
    answer = await place.admin.call("GET", path)
    return bool(answer["status"].get("phase") == "Bound")


async def test_a_suspension_keeps_journals_that_scaling_would_delete(place: Place) -> None:
    await ready(place, journal={"retention": {"whenScaled": "Delete"}})
    before = await _claims(place)
    assert before.keys() == {f"journal-agg-{ordinal}" for ordinal in range(3)}
    await place.change(suspend=True)
    await place.settle()
    await until(partial(_has_pods, place, 0), "all pods are gone")
    assert await _claims(place) == before
    await place.change(suspend=False)
    await until(place.comes_ready, "ready again", seconds=180)
    await place.settle()
    assert await _claims(place) == before
    await place.change(replicas=2)
    await place.settle()
    await until(partial(_has_claims, place, 2), "the claim of the one scaled away is deleted")


async def _claims(place: Place) -> dict[str, str]:
    """Uids by name, of those that nobody deletes and no pod takes along."""
    claims = await place.cluster.list(ports.VOLUME_CLAIMS, place.namespace)
    return {
        each["metadata"]["name"]: each["metadata"]["uid"]
        for each in claims
        if not {"deletionTimestamp", "ownerReferences"} & each["metadata"].keys()
    }


async def _has_claims(place: Place, count: int) -> bool:
    return len(await _claims(place)) == count


async def _has_pods(place: Place, count: int) -> bool:
    return len(await place.pods()) == count


async def test_never_ready_for_a_generation_that_is_not_rolled_out(place: Place) -> None:
    """A thousand times another spec, and the status at once, while passes go on beside that."""
    await ready(place)
    looks, seen, passes = 0, 0, Passes(place)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(passes.run())
        for turn in range(1000):
            if turn % 50 == 0:
                await place.change(limits={"connections": 10 + turn})
            else:
                await place.change(service={"port": 9000 + turn})
            # Every sixth is let be until a pass has ended that had not begun yet.
            wanted, before = passes.ended + (2 if turn % 6 == 0 else 0), looks
            while looks == before or passes.ended < wanted:
                looks += 1
                resource = await place.read(ports.AGGREGATORS)
                assert resource is not None
                if says_ready(resource):
                    seen += 1
                    await _is_rolled_out(place, resource)
        running.cancel()
    logger.info(
        "ready %d times of %d, %d passes of %d overtaken",
        *(seen, looks, passes.overtaken, passes.ended),
    )
    assert 0 < seen < looks
    assert passes.overtaken > 0  # else nothing came between a pass and its report


@dataclass
class Passes:
    """One pass after another, whatever comes between."""

    place: Place
    ended: int = 0
    overtaken: int = 0
    """That found the resource changed since they read it."""

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self.place.reconcile()
            except Conflict:
                self.overtaken += 1
            self.ended += 1


async def _is_rolled_out(place: Place, resource: dict[str, Any]) -> None:
    statefulset, service = await place.read(ports.STATEFUL_SETS), await place.read(ports.SERVICES)
    assert statefulset is not None
    assert service is not None
    assert service["spec"]["ports"][0]["port"] == resource["spec"]["service"]["port"]
    template = statefulset["spec"]["template"]
    mounted = {each["name"]: each for each in template["spec"]["volumes"]}["config"]["configMap"]
    config = await place.read(ports.CONFIG_MAPS, mounted["name"])
    assert config is not None
    wanted = resource["spec"].get("limits", {}).get("connections", 1024)
    assert wanted == 1024 or f"max_connections: {wanted}\n" in config["data"]["aggregator.yaml"]
    pods = await place.cluster.list(
        ports.PODS, place.namespace, names.selector("agg", names.AGGREGATOR)
    )
    hashes = {pod["metadata"]["annotations"][names.SETTINGS_HASH] for pod in pods}
    assert hashes == {template["metadata"]["annotations"][names.SETTINGS_HASH]}


async def test_fifty_resources_are_looked_at_in_one_resync(place: Place) -> None:
    for number in range(50):
        await place.create(f"agg-{number}", replicas=1, redis={"mode": "None"})
    for number in range(50):
        await place.settle(f"agg-{number}")
    place.wrote.clear()
    begun = time.perf_counter()
    for number in range(50):
        assert (await place.reconcile(f"agg-{number}")).wrote == 0
    logger.info("looked at all after %.1f s", time.perf_counter() - begun)
    assert place.wrote == []
