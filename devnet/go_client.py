"""A Go operator's RPC client: one shared connection, its retries and its blind spots.

Source: aligned_layer v0.10.1, ``operator/pkg/rpc_client.go``; Go, ``net/rpc/client.go``. The client
there has no timeout for a call, so this one has none: an operator waits for as long as its
connection stands.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligned.errors import MalformedMessage
from aligned.wire import messages
from aligned.wire.netrpc import CLIENT_FIRST_ID, Client, Reply

if TYPE_CHECKING:
    from aligned.wire.gob import Value

ATTEMPTS: Final = 10
PAUSE_SECONDS: Final = 10.0
DIAL_SECONDS: Final = 130.0
"""What Linux gives a connection that nobody answers; Go sets no limit of its own."""


class ConnectionLost(Exception):
    """The connection ended while a call was open; the next call on it is ``ShutDown``."""


class ShutDown(Exception):
    """The connection had ended before the call: nothing was sent. Go: ``ErrShutdown``."""


class Connection(asyncio.Protocol):
    """One connection with any number of open calls. Needs no task."""

    def __init__(self, first_id: int = CLIENT_FIRST_ID) -> None:
        """Be ready to connect.

        Args:
            first_id: Where the client's own type ids begin: 65, or 64 from Go 1.22 on.
        """
        self._client = Client(first_id)
        self._open: dict[int, asyncio.Future[Reply]] = {}
        self._transport: asyncio.Transport | None = None
        self._accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False
        """Whether the connection is gone or broken."""

    @classmethod
    async def dial(cls, host: str, port: int, first_id: int = CLIENT_FIRST_ID) -> Connection:
        """Connect and be accepted.

        Raises:
            OSError: Nobody listens, or it hung up before it accepted.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DIAL_SECONDS):  # its TimeoutError is an OSError too
            _, connection = await loop.create_connection(lambda: cls(first_id), host, port)
        try:
            await connection.accepted()
        except BaseException:
            connection.close()
            raise
        return connection

    async def accepted(self) -> None:
        """Wait for the answer to the CONNECT, for as long as it takes.

        Raises:
            OSError: The connection ended before.
        """
        await self._accepted

    async def call(self, value: Value) -> Reply:
        """Send one ``SignedTaskResponse``; wait for its reply for as long as it takes.

        Raises:
            ShutDown: The connection had ended.
            ConnectionLost: It ended meanwhile.
        """
        if self.ended or self._transport is None:
            raise ShutDown
        seq, data = self._client.call(messages.RESPOND, messages.SIGNED_TASK_RESPONSE, value)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._open[seq] = reply
        self._transport.write(data)
        try:
            return await reply
        finally:
            self._open.pop(seq, None)

    def close(self) -> None:
        """End the connection. Repeats are free."""
        self._end("closed by ourselves")
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection with a reset."""
        self._end("reset by ourselves")
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            msg = f"{transport!r} is no stream"
            raise TypeError(msg)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # as Go's dialer
        transport.write(self._client.dial())

    def data_received(self, data: bytes) -> None:
        try:
            self._client.feed(data)
            while (reply := self._client.next_reply()) is not None:
                waiting = self._open.get(reply.seq)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except MalformedMessage as error:
            self._end(str(error))
            if self._transport is not None:
                self._transport.close()
            return
        if self._client.connected and not self._accepted.done():
            self._accepted.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "unexpected EOF")

    def _end(self, reason: str) -> None:
        self.ended = True
        if not self._accepted.done():
            self._accepted.set_exception(ConnectionResetError(reason))
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_exception(ConnectionLost(reason))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of an operator's attempts to deliver a response."""

    started: float
    """Seconds of the loop's clock."""
    ended: float
    code: int | None
    """The reply's value; None: there was none."""
    problem: str
    """Empty if there was a reply."""


class SharedClient:
    """What all deliveries of one operator process share."""

    def __init__(self, host: str, port: int, first_id: int = CLIENT_FIRST_ID) -> None:
        self.host = host
        self.port = port
        self._first_id = first_id
        self._connection: Connection | None = None
        self._all: list[Connection] = []

    async def connect(self) -> None:
        """Dial once, as an operator does when it starts.

        Raises:
            OSError: Nobody accepts; a Go operator ends.
        """
        self._connection = await Connection.dial(self.host, self.port, self._first_id)
        # Go replaces the shared client without closing the old one; those of several deliveries
        # that dial at once stay open, idle.
        self._all = [item for item in self._all if not item.ended] + [self._connection]

    async def attempt(self, value: Value) -> Attempt:
        """Make one attempt: call, or (on a connection that has ended) dial and nothing else."""
        clock = asyncio.get_running_loop().time
        started = clock()
        code, problem = None, ""
        if self._connection is None or self._connection.ended:
            problem = await self._reconnect()
        else:
            try:
                reply = await self._connection.call(value)
            except (ConnectionLost, ShutDown) as lost:
                problem = f"connection lost: {lost}"
            else:
                code, problem = reply.value, reply.error
        return Attempt(started, clock(), code, problem)

    async def _reconnect(self) -> str:
        try:
            await self.connect()
        except OSError as error:
            return f"cannot connect: {error}"
        return RECONNECTED

    def close(self) -> None:
        """End every connection. Repeats are free."""
        for connection in self._all:
            connection.close()

    def abort(self) -> None:
        """End every connection with a reset, as a dying machine's kernel may."""
        for connection in self._all:
            connection.abort()


RECONNECTED: Final = "reconnected"
"""An attempt that dialled: the next one follows without a pause."""
