from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from aggregator import configure, start
from aligned.chain.endpoints import Endpoints, Source
from aligned.errors import BadConfiguration, StateMismatch
from tests.fakes.configuration import right, write
from tests.fakes.ethereum import CHAIN_ID, CONTRACTS, FakeChain, FakeNet, FakeNode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aggregator.settings import Settings

DEPLOYMENT = 8


class World:
    """A chain of ten blocks with contracts since the eighth, and one endpoint of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.chain = FakeChain()
        self.chain.deployment = DEPLOYMENT
        self.chain.mine_many(10)
        self.node = FakeNode(self.chain)
        net = FakeNet({"http://one": self.node})
        self.rpc = Endpoints([Source(name="one", url="http://one")], CHAIN_ID, transport=net)

    async def started(self) -> start.Deployment:
        """Start and stop at once; return what was found out."""
        state = await start.recover(self.settings, self.rpc)
        state.journal.close()
        return state.deployment

    async def started_while_away(self) -> start.Deployment:
        """Start with what an earlier run's journal remembers."""
        await self.started()
        self.node.is_down = True
        found = await self.started()
        self.node.is_down = False
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(start, "RETRY_SECONDS", 0)
    addresses = {
        "service_manager": "0x" + CONTRACTS.service_manager.hex(),
        "registry_coordinator": "0x" + CONTRACTS.registry_coordinator.hex(),
        "operator_state_retriever": "0x" + CONTRACTS.operator_state_retriever.hex(),
    }
    changes = {"network__contracts": addresses, "chain__deployment_block": DEPLOYMENT}
    return World(configure.load(write(tmp_path, right(**changes)), {}))


def resync(world: World) -> None:
    world.node.lag = 10


def synced(world: World) -> None:
    world.node.lag = 0


async def test_the_chain_confirms_a_deployment(world: World) -> None:
    found = await world.started()
    assert (found.contracts, found.is_confirmed) == (CONTRACTS, True)
    assert found.identity.deployment_hash == world.chain.blocks[DEPLOYMENT].hash


async def test_an_endpoint_that_is_syncing_is_no_reason_not_to_start_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = await world.started()
    resync(world)
    found = await world.started()
    assert (found.identity, found.contracts) == (before.identity, before.contracts)
    assert not found.is_confirmed
    (told,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert told.message.startswith("chain away at the start")
    assert "Wait until it is done, or configure one in sync" in vars(told)["reason"]


async def test_a_first_start_waits_for_an_endpoint_that_is_syncing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    resync(world)
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(world.started())
        await _asked_again(world)
        assert not starting.done()
        synced(world)
    assert starting.result().is_confirmed
    (told,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert told.message.startswith("chain away at the first start")


async def test_an_endpoint_that_comes_back_syncing_ends_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    remembered = await world.started_while_away()
    resync(world)
    caplog.clear()
    async with asyncio.TaskGroup() as group:
        confirming = group.create_task(start.confirm(world.settings, world.rpc, remembered))
        await _asked_again(world)
        assert not confirming.done()
        synced(world)
    (told,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "cannot confirm the deployment yet" in told.message
    assert "at block 0" in vars(told)["reason"]


def _other_contracts(world: World) -> None:
    world.chain.deployment = 11


def _created_again(world: World) -> None:
    genesis = world.chain.blocks[0]
    del world.chain.blocks[1:]
    world.chain.mine_many(10)
    assert world.chain.blocks[0] == genesis


@pytest.mark.parametrize(
    ("mismatch", "error"),
    [
        pytest.param(_other_contracts, BadConfiguration, id="no such contracts"),
        pytest.param(_created_again, StateMismatch, id="another deployment block"),
    ],
)
async def test_an_endpoint_in_sync_that_contradicts_the_journal_ends_it(
    world: World, mismatch: Callable[[World], None], error: type[Exception]
) -> None:
    remembered = await world.started_while_away()
    mismatch(world)
    with pytest.raises(error):
        await start.confirm(world.settings, world.rpc, remembered)


async def _asked_again(world: World) -> None:
    """Let it try more than once."""
    world.node.asked.clear()
    looks = asyncio.Event()

    def count(method: str, _params: object) -> None:
        if method == "eth_syncing" and world.node.asked.count(method) > 2:
            looks.set()

    world.node.before = count
    await looks.wait()
