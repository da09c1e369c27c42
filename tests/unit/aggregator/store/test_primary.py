"""Connections to the primary while it changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from aggregator.store.connection import Address, Server
from aggregator.store.discovery import Fixed
from aggregator.store.primary import Primary
from aligned.errors import StoreUnavailable


class FakeRedis:
    """Says what it is told to of its replication, when it is allowed to."""

    def __init__(self) -> None:
        self.info = b""
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.served: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served.append(writer)
        while header := await reader.readline():
            parts = []
            for _ in range(int(header[1:])):
                length = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(length + 2))[:-2])
            if parts[0] == b"INFO":
                self.asked.set()
                await self.may_answer.wait()
                writer.write(b"$%d\r\n%s\r\n" % (len(self.info), self.info))
            else:
                writer.write(b"+OK\r\n")

    async def end(self) -> None:
        self.may_answer.set()
        for writer in self.served:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def test_looks_at_the_old_primary_leave_a_slow_successor_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in ("HANDSHAKE_SECONDS", "CALL_SECONDS"):
        monkeypatch.setattr(f"aggregator.store.primary.{limit}", 60.0)
    old, new = FakeRedis(), FakeRedis()
    old_server = await asyncio.start_server(old.serve, "127.0.0.1", 0)
    new_server = await asyncio.start_server(new.serve, "127.0.0.1", 0)
    old_port, new_port = (s.sockets[0].getsockname()[1] for s in (old_server, new_server))
    old.info = b"role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:%d\r\n" % new_port
    new.info = b"role:master\r\nmaster_replid:new\r\n"
    old.may_answer.set()
    sentinel = Fixed(Server(address=Address("127.0.0.1", old_port)))  # it does not know yet
    primary = Primary(sentinel, check=lambda: ("PING",))
    try:
        async with old_server, new_server, asyncio.TaskGroup() as tasks:
            call = tasks.create_task(primary.call(("PING",)))
            await new.asked.wait()
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="not a primary"):
                    await primary.look()
            new.may_answer.set()
            assert await call == [b"OK"]
            assert primary.lineage.now == "new"
            await primary.aclose()
    finally:
        await old.end()
        await new.end()
