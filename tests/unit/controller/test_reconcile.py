from __future__ import annotations

import pytest

from controller import names, ports
from tests.unit.controller.stories import NAME, NAMESPACE, World


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


async def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.create()
    await world.settle()
    world.cluster.writes.clear()
    for _ in range(5):
        world.time.advance(60)
        world.elect()
        outcome = await world.reconcile()
        assert outcome.wrote == 0
    assert world.cluster.writes == []
    assert ports.LEASES and NAMESPACE and NAME
