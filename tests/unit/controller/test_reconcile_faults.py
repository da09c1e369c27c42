"""Stories of passes that are cut off, fail, or are not alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller import ports
from controller.errors import ClusterAway, Conflict
from tests.fakes.cluster import Killed
from tests.unit.controller.stories import NAME, NAMESPACE, World, owned, ready


@pytest.fixture
def world() -> World:
    return World()


async def test_a_pass_that_ends_anywhere_is_finished_by_the_next(world: World) -> None:
    world.create()
    await world.settle()
    whole, writes = owned(world), len(world.cluster.writes)
    assert writes > 15
    for cut in range(writes):
        other = World()
        other.create()
        other.cluster.kill_after = cut
        with pytest.raises(Killed):
            await forever(other)
        other.cluster.kill_after = None
        other.restarted()
        await other.settle()
        assert other.is_ready(), cut
        assert owned(other).keys() == whole.keys(), cut


async def test_a_roll_that_ends_anywhere_is_finished_by_the_next() -> None:
    cut = 0
    while True:
        world = await ready(World())
        world.change({"submission": {"maxInFlight": 2}})
        world.cluster.kill_after = cut
        try:
            for _ in range(40):
                await world.turn()
            break
        except Killed:
            world.cluster.kill_after = None
            world.restarted()
            await world.settle()
            assert world.is_ready(), cut
            assert len(world.pods()) == 3
        cut += 1
    assert cut > 5


async def test_two_controllers_at_once_come_to_the_same(world: World) -> None:
    world.create()
    one, other = world.reconciler, world.restarted()
    for _ in range(8):
        async with asyncio.TaskGroup() as group:
            for each in (one, other):
                group.create_task(patient(each.reconcile(NAMESPACE, NAME)))
        world.kubelet.settle(2)
        world.elect()
        world.time.advance(1)
    await world.settle()
    assert world.is_ready()
    alone = World()
    alone.create()
    await alone.settle()
    assert owned(world).keys() == owned(alone).keys()


async def forever(world: World) -> None:
    while True:
        await world.turn()


async def patient(call: Any) -> None:
    try:
        await call
    except Conflict:
        return


@pytest.mark.parametrize(
    "failure",
    [ClusterAway("429: slow down", retry_after=1), ClusterAway("500"), Conflict("409")],
    ids=["429", "500", "409"],
)
async def test_a_storm_of_errors_passes(world: World, failure: Exception) -> None:
    assert isinstance(failure, ClusterAway | Conflict)
    world.create()
    for nth in range(1, 60):
        world.cluster.fail(nth, failure)
        try:
            await world.turn()
        except (ClusterAway, Conflict):
            world.kubelet.settle(1)
        world.cluster._failures.clear()
    await world.settle()
    assert world.is_ready()


async def test_nothing_is_pruned_after_a_list_that_failed(world: World) -> None:
    await ready(world)
    world.change({"networkPolicy": {"mode": "Disabled"}})
    for nth in range(1, 11):
        world.cluster.fail(nth, ClusterAway("500"), "list")
        with pytest.raises(ClusterAway):
            await world.reconcile()
    assert world.cluster.writes == []
    await world.settle()
    assert world.cluster.all(ports.NETWORK_POLICIES, NAMESPACE) == []
