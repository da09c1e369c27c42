"""A replica's wires to Redis: it is told their ends, and nothing goes past them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from aggregator.sections import split_address
from aggregator.store.connection import Access, Address, Server, connect, exchange
from aggregator.store.discovery import Sentinels
from aligned.errors import StoreUnavailable
from devnet.redis_servers import MASTER
from devnet.relay import Network as Wires
from devnet.sentinel import SentinelGroup
from tests.fakes.redis import STEADY, programs
from tests.integration.daemons import eventually
from tests.nemesis.world import CHAIN, REDIS, Gate, wired

NAME = "replica-0"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(programs("valkey", tmp_path_factory.mktemp("programs")), STEADY) as running:
        yield running


@pytest.fixture
def wires() -> Iterator[Wires]:
    laid = Wires()
    yield laid
    laid.close()


def discovery(sentinels: list[str]) -> Sentinels:
    servers = [Server(address=Address(*split_address(one))) for one in sentinels]
    return Sentinels(servers, master=MASTER, access=Access())


async def test_a_replica_is_told_the_end_of_its_own_wire(
    group: SentinelGroup, wires: Wires
) -> None:
    found = discovery(wired(wires, group, NAME))
    primary = await found.find()
    await found.aclose()
    assert primary.address.port not in {machine.port for machine in group.machines}
    connection = await connect(primary, "test")
    [info] = await exchange(connection, [("INFO", "replication")])
    await connection.disconnect()
    assert isinstance(info, bytes)
    assert b"role:master" in info


async def test_a_replica_that_is_cut_off_reaches_nothing_and_others_everything(
    group: SentinelGroup, wires: Wires
) -> None:
    cut, other = discovery(wired(wires, group, NAME)), discovery(wired(wires, group, "replica-1"))
    primary = await cut.find()
    wires.cut({NAME}, {REDIS})
    with pytest.raises(StoreUnavailable):
        await connect(primary, "test")
    with pytest.raises(StoreUnavailable):
        await cut.find()
    assert (await other.find()).address.port != primary.address.port
    wires.heal()
    async with asyncio.timeout(60):
        assert await cut.find() == primary
    for each in (cut, other):
        await each.aclose()


@asynccontextmanager
async def a_node(heard: list[bytes]) -> AsyncIterator[int]:
    """Whoever listens on the port that is returned; notes what it is sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            heard.append(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_transaction_that_was_kept_back_is_never_sent_once_its_replica_is_dead(
    wires: Wires,
) -> None:
    heard: list[bytes] = []
    gate = Gate()
    async with a_node(heard) as node:
        port = wires.relay(CHAIN, node, caller=NAME, asked=gate.asked)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        gate.holds_sends = True
        writer.write(b"eth_call")
        await eventually(lambda: heard == [b"eth_call"], "questions pass")
        writer.write(b'{"method": "eth_sendRawTransaction"}')
        await eventually(lambda: gate.caught, "it is kept back")
        gate.refuses = True
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        gate.refuses = gate.holds_sends = False
        writer.close()
        assert heard == [b"eth_call"]
