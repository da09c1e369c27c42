from __future__ import annotations

from tests.unit.controller.stories import World, ready


async def test_taking_a_bad_image_back_is_enough_where_none_was_asked_for_before() -> None:
    world = World()
    await ready(world)
    world.kubelet.trouble = lambda pod: (
        "ImagePullBackOff" if pod["spec"]["containers"][0]["image"] == "bad" else ""
    )
    world.change({"image": "bad"})
    for _ in range(60):
        await world.turn()
    assert world.condition("Stalled")["status"] == "True"
    world.change({"image": None})
    await world.settle()
    assert world.is_ready()
    assert {pod["spec"]["containers"][0]["image"] for pod in world.pods()} == {"aggregator:1"}
    assert world.condition("UpToDate")["status"] == "True"


async def test_a_good_image_that_is_asked_for_no_more_stays() -> None:
    world = World()
    await ready(world)
    world.change({"image": "aggregator:2"})
    await world.settle()
    replaced = len([write for write in world.cluster.writes if write.verb == "evict"])
    world.change({"image": None})
    await world.settle()
    assert {pod["spec"]["containers"][0]["image"] for pod in world.pods()} == {"aggregator:2"}
    assert replaced == len([write for write in world.cluster.writes if write.verb == "evict"])
