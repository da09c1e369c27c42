"""Stories of passes that are cut off, fail, or are not alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest

from controller import ports
from controller.errors import ClusterAway, Conflict
from controller.ports import Manifest
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


async def test_passwords_that_were_lost_are_made_anew_wherever_a_pass_ends() -> None:
    cut = 0
    while True:
        world = await without_passwords()
        world.cluster.kill_after = cut
        try:
            for _ in range(8):
                await world.turn()
            break
        except Killed:
            world.cluster.kill_after = None
            world.restarted()
            await known_passwords(world)
        cut += 1
    assert cut > 4


@pytest.mark.parametrize("verb", ["create", "delete"])
async def test_passwords_that_were_lost_are_made_anew_whatever_request_fails(verb: str) -> None:
    world = await without_passwords()
    world.cluster.fail(1, ClusterAway("500"), verb)
    for _ in range(3):
        await eventually(world.turn())
    await known_passwords(world)


async def without_passwords() -> World:
    """A group whose Secret is gone, and one of its replicas with it."""
    world = await ready(World())
    world.cluster.remove(ports.SECRETS, NAMESPACE, "agg-redis")
    former = world.uids()["agg-0"]
    world.kubelet.trouble = lambda pod: (
        "ContainerCreating" if pod["metadata"]["uid"] == former else ""
    )
    world.time.advance(60)
    world.kubelet.settle()
    return world


async def known_passwords(world: World) -> None:
    """Check that the servers come to begin with the passwords that there are."""
    for _ in range(8):
        await world.turn()
    world.kubelet.trouble = lambda pod: ""
    await world.settle(turns=120)
    secret = world.cluster.read(ports.SECRETS, NAMESPACE, "agg-redis")
    assert secret is not None
    assert world.is_ready()
    assert len(world.redis_pods()) == 3
    assert all(made(pod) > made(secret) for pod in world.redis_pods())


def made(manifest: Manifest) -> int:
    """When an object was made, in the order of all."""
    return int(manifest["metadata"]["uid"].removeprefix("uid-"))


async def eventually(call: Awaitable[object]) -> None:
    with suppress(ClusterAway):
        await call


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
