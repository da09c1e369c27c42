from __future__ import annotations

import asyncio

import pytest

from controller.aside import Aside
from tests.waiting import until

MANY = b"." * 8_000_000


async def test_how_the_work_ended_is_raised_by_whoever_waits() -> None:
    async def fails() -> None:
        raise LookupError("not there")

    aside = Aside("fails", fails)
    aside.start()
    with pytest.raises(LookupError, match="not there"):
        await aside.ended()


async def test_connections_that_are_closing_get_time_to_close() -> None:
    received = 0
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        begun.set()
        await go_on.wait()
        while data := await reader.read(1 << 20):
            received += len(data)
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def says_much() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(MANY)
        writer.close()  # once all is sent

    async with server:
        aside = Aside("says much", says_much)
        aside.start()
        await aside.ended()
        await until(begun.is_set, "it is connected")
        go_on.set()
        await until(ended.is_set, "the connection is closed")
    assert received == len(MANY)
