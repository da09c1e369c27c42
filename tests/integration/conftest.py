"""A local Aligned, and Redis servers, for each test that asks for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from devnet import anvil
from devnet.anvil import Anvil
from devnet.network import Network
from devnet.redis_servers import Options
from devnet.sentinel import SentinelGroup
from tests.fakes.redis import programs
from tests.integration.trio import Trio, mend, three

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def installed_anvil() -> None:
    if anvil.find() is None:
        pytest.skip("anvil is not installed: python -m devnet.node.install")


@pytest.fixture(scope="session")
def _shared_chain(installed_anvil: None) -> Iterator[Network]:
    with Anvil() as running, asyncio.Runner() as runner:
        yield runner.run(Network.deploy(running))


@pytest.fixture
async def chain(_shared_chain: Network) -> AsyncIterator[Network]:
    """Four operators with a stake of 100 each on a chain that mines at once.

    Every test finds it as deployed. Do not stop its process: take ``own_chain`` for that.
    """
    running = _shared_chain.anvil
    operators = _shared_chain.operators
    snapshot = await running.snapshot()
    yield _shared_chain
    await running.revert(snapshot)
    _shared_chain.operators = operators


@pytest.fixture
async def own_chain(installed_anvil: None) -> AsyncIterator[Network]:
    """The same on a process of its own: to stop, freeze or reorganize."""
    async with Anvil() as running:
        yield await Network.deploy(running)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    """Three Valkey servers, each with a Sentinel."""
    found = programs("valkey", tmp_path_factory.mktemp("programs"))
    with SentinelGroup(found, Options()) as running:
        yield running


@pytest.fixture
def group(servers: SentinelGroup) -> Iterator[SentinelGroup]:
    """The same settled and empty; whatever a test broke is mended."""
    servers.settle()
    servers.wipe()
    yield servers
    mend(servers)


@pytest.fixture
async def trio(chain: Network, group: SentinelGroup, tmp_path: Path) -> AsyncIterator[Trio]:
    """Not started; every replica has its own way to Redis and to the chain."""
    async with three(chain, group, tmp_path, parted=True) as trio:
        yield trio
