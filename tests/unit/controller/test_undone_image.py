from __future__ import annotations

from typing import Any

import pytest

from controller.desired.known import Release
from controller.ports import Manifest
from tests.unit.controller.stories import RELEASE, World, ready


def image(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def cannot_be_pulled(pod: Manifest) -> str:
    return "ImagePullBackOff" if image(pod) == "bad" else ""


def with_proxy_first(pod: Manifest) -> Manifest:
    spec = pod["spec"]
    proxied = {"containers": [{"name": "proxy", "image": "proxy:9"}, *spec["containers"]]}
    return pod | {"spec": spec | proxied}


def from_a_mirror(pod: Manifest) -> Manifest:
    spec = pod["spec"]
    mirrored = [each | {"image": f"mirror/{each['image']}"} for each in spec["containers"]]
    return pod | {"spec": spec | {"containers": mirrored}}


def evictions(world: World) -> int:
    return len([write for write in world.cluster.writes if write.verb == "evict"])


@pytest.mark.parametrize("spec", [{}, {"replicas": 1}], ids=["three", "one"])
async def test_taking_a_bad_image_back_is_enough_where_none_was_asked_for_before(
    spec: dict[str, Any],
) -> None:
    world = World()
    await ready(world, spec)
    world.kubelet.trouble = cannot_be_pulled
    world.change({"image": "bad"})
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["status"] == "True"
    world.change({"image": None})
    await world.settle()
    assert world.is_ready()
    assert {image(pod) for pod in world.pods()} == {"aggregator:1"}
    assert world.condition("UpToDate")["status"] == "True"


async def test_a_bad_image_that_a_group_was_created_with_is_not_kept() -> None:
    world = World()
    world.kubelet.trouble = cannot_be_pulled
    world.create({"image": "bad", "redis": {"managed": {"image": "bad"}}})
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["status"] == "True"
    world.change({"image": None, "redis": {"managed": None}})
    await world.settle()
    assert world.is_ready()
    assert {image(pod) for pod in world.pods()} == {"aggregator:1"}
    assert {image(pod) for pod in world.redis_pods()} == {"valkey:1"}


async def test_a_wrong_default_of_the_controller_is_not_kept_once_it_is_corrected() -> None:
    world = World(release=Release(image="bad", redis_image="valkey:1"))
    world.kubelet.trouble = cannot_be_pulled
    world.create()
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["status"] == "True"
    world.restarted(RELEASE)
    await world.settle()
    assert world.is_ready()
    assert {image(pod) for pod in world.pods()} == {"aggregator:1"}


@pytest.mark.parametrize("admit", [with_proxy_first, from_a_mirror])
async def test_what_webhooks_make_of_pods_is_asked_of_nobody(admit: Any) -> None:
    world = World()
    world.kubelet.admit = admit
    await ready(world)
    world.change({"image": "aggregator:2"})
    await world.settle()
    assert world.told()["image"] == "aggregator:2"
    assert world.told()["redis"]["image"] == "valkey:1"
    rolled = evictions(world)
    world.change({"image": None})
    await world.settle()
    for _ in range(5):
        await world.turn()
    assert evictions(world) == rolled == 3
    assert world.told()["image"] == "aggregator:2"


async def test_an_image_that_serves_stays_also_where_the_status_was_lost() -> None:
    world = World()
    await ready(world)
    world.cluster.edit(world.resource() | {"status": {"image": None, "redis": None}})
    world.restarted(Release(image="aggregator:2", redis_image="valkey:2"))
    await world.settle()
    assert evictions(world) == 0
    assert world.told()["image"] == "aggregator:1"
    assert world.told()["redis"]["image"] == "valkey:1"


async def test_a_good_image_that_is_asked_for_no_more_stays() -> None:
    world = World()
    await ready(world)
    world.change({"image": "aggregator:2"})
    await world.settle()
    replaced = evictions(world)
    world.change({"image": None})
    await world.settle()
    assert {image(pod) for pod in world.pods()} == {"aggregator:2"}
    assert replaced == evictions(world)


async def test_taking_a_bad_image_of_redis_back_is_enough_too() -> None:
    world = World()
    await ready(world)
    world.kubelet.trouble = cannot_be_pulled
    world.change({"redis": {"managed": {"image": "bad"}}})
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["status"] == "True"
    world.change({"redis": {"managed": None}})
    await world.settle()
    assert world.is_ready()
    assert {image(pod) for pod in world.redis_pods()} == {"valkey:1"}
