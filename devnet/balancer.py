"""What stands in front of several aggregators: every connection goes to the next one in turn.

As a Kubernetes Service it knows nothing of what is inside, and leaves a connection where it is.
Only backends that are up get one.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

_CHUNK = 65536
_DIAL_SECONDS = 0.5
_CLOSE_SECONDS = 0.2


class Balancer:
    """Forwards TCP connections.

    Resource handling: an async context manager; leaving it closes everything.
    """

    def __init__(
        self, backends: Sequence[tuple[str, int]], *, vanished_seconds: float | None = None
    ) -> None:
        """Describe one in front of ``backends``, host and port each.

        Args:
            backends: In turn.
            vanished_seconds: After which a connection ends whose other side does not answer on the
                network any more; None: when the kernel says so, after many minutes.
        """
        self._backends = tuple(backends)
        self._vanished = vanished_seconds
        self._turns: Iterator[int] = itertools.count()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where clients dial.

        Raises:
            RuntimeError: It was not entered.
        """
        if self._server is None:
            msg = "the balancer was not entered"
            raise RuntimeError(msg)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        while self._serving:  # one more may have been accepted meanwhile
            for writer in list(self._open):
                writer.transport.abort()
            await asyncio.wait(self._serving, timeout=_CLOSE_SECONDS)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        self._open.add(writer)
        try:
            backend = await self._dial()
            if backend is None:
                return
            self._open.add(backend[1])
            async with asyncio.TaskGroup() as ways:
                there = ways.create_task(_pump(reader, backend[1]))
                back = ways.create_task(_pump(backend[0], writer))
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                there.cancel()
                back.cancel()
            self._open.discard(backend[1])
            backend[1].transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        turn = next(self._turns)
        for offset in range(len(self._backends)):
            host, port = self._backends[(turn + offset) % len(self._backends)]
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_DIAL_SECONDS):
                    reader, writer = await asyncio.open_connection(host, port)
                if self._vanished is not None:
                    _end_when_vanished(writer.get_extra_info("socket"), self._vanished)
                return reader, writer
        return None


def _end_when_vanished(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end a connection whose peer is silent, whether or not anything is sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
