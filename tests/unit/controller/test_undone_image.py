from __future__ import annotations

from controller.ports import Manifest
from tests.unit.controller.stories import World, ready


def image(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def cannot_be_pulled(pod: Manifest) -> str:
    return "ImagePullBackOff" if image(pod) == "bad" else ""


async def test_taking_a_bad_image_back_is_enough_where_none_was_asked_for_before() -> None:
    world = World()
    await ready(world)
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


async def test_a_good_image_that_is_asked_for_no_more_stays() -> None:
    world = World()
    await ready(world)
    world.change({"image": "aggregator:2"})
    await world.settle()
    replaced = len([write for write in world.cluster.writes if write.verb == "evict"])
    world.change({"image": None})
    await world.settle()
    assert {image(pod) for pod in world.pods()} == {"aggregator:2"}
    assert replaced == len([write for write in world.cluster.writes if write.verb == "evict"])


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
