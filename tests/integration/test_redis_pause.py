"""What shortens a failover: pauses that protect nothing end, dead ends are left at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from aggregator.store.connection import Address, Server, connect, exchange
from aggregator.store.discovery import Fixed
from aggregator.store.pause import replicas_of, shorten
from aggregator.store.redis import RedisStore
from aligned.errors import StoreUnavailable
from devnet.sentinel import SentinelGroup
from tests.fakes.builders import entry
from tests.fakes.redis import identity

PAUSED = "paused_reason:client_pause"


@pytest.fixture
def group(servers: SentinelGroup) -> Iterator[SentinelGroup]:
    """Settled; whatever a test paused goes on."""
    servers.settle()
    yield servers
    for machine in servers.machines:
        servers.ask(machine.port, "CLIENT", "UNPAUSE")


def paused(group: SentinelGroup, index: int) -> bool:
    return PAUSED in group.ask(group.machines[index].port, "INFO", "clients")


async def look_at(group: SentinelGroup, index: int, info: bytes | None = None) -> bytes:
    """Shorten what a server says of its replication, or ``info`` in its place; return it."""
    server = Server(address=Address("127.0.0.1", group.machines[index].port))
    connection = await connect(server, "test")
    try:
        [said] = await exchange(connection, [("INFO", "replication")])
        assert isinstance(said, bytes)
        await shorten(connection, info or said, server, "test")
        return said
    finally:
        await connection.disconnect()


async def test_the_pause_of_a_server_that_is_a_replica_is_ended(group: SentinelGroup) -> None:
    primary = group.primary()
    replica = next(machine.index for machine in group.machines if machine.index != primary)
    for index in (primary, replica):
        group.ask(group.machines[index].port, "CLIENT", "PAUSE", "60000", "WRITE")
        assert paused(group, index)
        await look_at(group, index)
    assert not paused(group, replica)
    assert paused(group, primary)


async def test_a_pause_goes_on_until_the_successor_has_taken_over(group: SentinelGroup) -> None:
    primary = group.primary()
    replica = next(machine.index for machine in group.machines if machine.index != primary)
    info = await look_at(group, replica)
    assert b"master_failover_state:no-failover" in info
    group.ask(group.machines[replica].port, "CLIENT", "PAUSE", "60000", "WRITE")
    await look_at(group, replica, info.replace(b"no-failover", b"failover-in-progress"))
    assert paused(group, replica)
    await look_at(group, replica, info)
    assert not paused(group, replica)


async def test_replicas_are_asked_how_far_they_are_while_a_primary_waits_for_them(
    group: SentinelGroup,
) -> None:
    primary = group.primary()

    def asked() -> int:
        """How many replicas were asked by somebody who is not their primary."""
        return sum(
            "cmdstat_replconf" in group.ask(machine.port, "INFO", "commandstats")
            for machine in group.machines
            if machine.index != primary
        )

    for machine in group.machines:
        group.ask(machine.port, "CONFIG", "RESETSTAT")
    info = await look_at(group, primary)
    assert asked() == 0
    assert b"master_failover_state:no-failover" in info
    waiting = info.replace(b"no-failover", b"waiting-for-sync")
    gone = b"slave9:ip=127.0.0.1,port=1,state=online,offset=0,lag=0\r\n"
    await look_at(group, primary, gone + waiting)
    assert asked() == 2


async def test_a_primary_names_its_replicas(group: SentinelGroup) -> None:
    primary = group.primary()
    info = await look_at(group, primary)
    others = {Address("127.0.0.1", m.port) for m in group.machines if m.index != primary}
    assert set(replicas_of(info)) == others
    assert replicas_of(b"slave_repl_offset:1\r\nslave0:ip=::1\r\nslave1:port=x,ip=y\r\n") == []


class Moving(Fixed):
    """Names another server when it is told to."""

    def move(self, server: Server) -> None:
        object.__setattr__(self, "server", server)


async def test_a_server_that_does_not_answer_is_left_when_another_is_the_primary(
    group: SentinelGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("connection", "primary"):
        monkeypatch.setattr(f"aggregator.store.{module}.HANDSHAKE_SECONDS", 60.0)
    monkeypatch.setattr("aggregator.store.primary.CALL_SECONDS", 60.0)
    accepted = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        writer.close()

    frozen = await asyncio.start_server(hang, "127.0.0.1", 0)
    host, port = frozen.sockets[0].getsockname()
    discovery = Moving(Server(address=Address(host, port)))
    async with (
        frozen,
        aclosing(RedisStore(discovery, identity(), writer="a")) as store,
        asyncio.TaskGroup() as tasks,
    ):
        put = tasks.create_task(refused(store))
        await accepted.wait()
        primary = group.machines[group.primary()].port
        discovery.move(Server(address=Address("127.0.0.1", primary)))
        await store.primary.look()
        assert "is the primary no more" in await put
        await store.put([entry()])


async def refused(store: RedisStore) -> str:
    """Return why a put fails."""
    with pytest.raises(StoreUnavailable) as refusal:
        await store.put([entry()])
    return str(refusal.value)
