from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from aligned.errors import Refused
from aligned.model import Response
from aligned.wire import messages
from aligned.wire.netrpc import Call, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class ScriptedAggregator:
    """Does to each call what the script says next; when it is empty, answers 0."""

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.got: list[Response | Refused] = []
        self.dials = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for transport in list(self._open):
            transport.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ScriptedAggregator]:
        await self.start()
        try:
            yield self
        finally:
            self.stop()

    def opened(self, transport: asyncio.Transport) -> None:
        self.dials += 1
        self._open.add(transport)

    def ended(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)

    def serve(self, server: Server, call: Call, transport: asyncio.Transport) -> None:
        try:
            self.got.append(messages.from_value(server.types.decode(*call.argument)))
        except Refused as refused:
            self.got.append(refused)
        step = self.script.popleft() if self.script else "0"
        actions: dict[str, Callable[[], None]] = {
            "0": lambda: server.reply(call.method, call.seq, 0),
            "1": lambda: server.reply(call.method, call.seq, 1),
            "error": lambda: server.reply_error(call.method, call.seq, "not now"),
            "close": transport.close,
            "half": lambda: _half(transport, server, call),
            "silence": lambda: None,
            "leave": self.stop,
        }
        actions[step]()


def _half(transport: asyncio.Transport, server: Server, call: Call) -> None:
    server.reply(call.method, call.seq, 0)
    transport.write(server.take_output()[:-1])
    transport.close()


class _Peer(asyncio.Protocol):
    def __init__(self, aggregator: ScriptedAggregator) -> None:
        self._aggregator = aggregator
        self._server = Server({messages.RESPOND})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._aggregator.opened(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._aggregator.ended(self._transport)

    def data_received(self, data: bytes) -> None:
        self._server.feed(data)
        while (call := self._server.next_call()) is not None:
            self._aggregator.serve(self._server, call, self._transport)
        self._transport.write(self._server.take_output())


@pytest.fixture
async def aggregator() -> AsyncIterator[ScriptedAggregator]:
    async with ScriptedAggregator().serving() as serving:
        yield serving
