"""Both ends of a connection without a socket, and a receiver that answers when it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aggregator.ingress.census import Census
from aggregator.ingress.connection import Connection
from aggregator.ingress.proxy import Trust
from aggregator.ingress.shared import Shared
from aggregator.ports import ReplyCode
from aggregator.settings import Listen
from aligned.model import Address, OperatorId, Response, Signature, batch_id
from aligned.wire import messages
from aligned.wire.netrpc import Client, Reply
from tests.fakes.stages import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.ports import Caller

GENERATOR = Signature((1).to_bytes(32) + (2).to_bytes(32))
"""A point of the curve."""


def honest(number: int = 1, by: int = 1) -> Response:
    """A response that ingress lets pass."""
    root, sender = number.to_bytes(32), Address(bytes(range(20)))
    return Response(root, sender, batch_id(root, sender), OperatorId(by.to_bytes(32)), GENERATOR)


class Inbox:
    """A receiver that keeps calls open, or answers at once."""

    def __init__(self, *, at_once: ReplyCode | None = None) -> None:
        self.calls: list[tuple[Response, Caller, int]] = []
        self.gone: list[Caller] = []
        self.at_once = at_once
        self.on_receive: Callable[[], None] = lambda: None

    @property
    def responses(self) -> list[Response]:
        return [response for response, _, _ in self.calls]

    def receive(self, response: Response, caller: Caller, seq: int) -> None:
        self.calls.append((response, caller, seq))
        self.on_receive()
        if self.at_once is not None:
            caller.answer(seq, self.at_once)

    def dropped(self, caller: Caller) -> None:
        self.gone.append(caller)

    def answer_all(self, code: ReplyCode = ReplyCode.ACCEPTED) -> None:
        for _, caller, seq in self.calls:
            caller.answer(seq, code)


class Socket:
    def setsockopt(self, level: int, optname: int, value: int, /) -> None:
        pass


class Pipe(asyncio.Transport):
    """Remembers what was written; delivers nothing by itself."""

    def __init__(self, peer: tuple[str, int] = ("192.0.2.1", 4000)) -> None:
        super().__init__({"peername": peer, "socket": Socket()})
        self.writes: list[bytes] = []
        self.reading = True
        self.closed = self.aborted = self.eof = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Peer:
    """An operator's client at the other end of one ``Connection``."""

    def __init__(self, house: House, peer: tuple[str, int] = ("192.0.2.1", 4000)) -> None:
        self._house = house
        self.pipe = Pipe(peer)
        self.client = Client()
        self.connection = Connection(house.shared)
        self.connection.connection_made(self.pipe)

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def dial(self) -> Peer:
        self.send(self.client.dial())
        self._house.turn()
        return self

    def encode(self, response: Response) -> bytes:
        value = messages.to_value(response)
        return self.client.call(messages.RESPOND, messages.SIGNED_TASK_RESPONSE, value)[1]

    def call(self, response: Response) -> None:
        self.send(self.encode(response))

    def replies(self) -> list[Reply]:
        """Return the replies written since the last time."""
        for data in self.pipe.writes:
            self.client.feed(data)
        self.pipe.writes.clear()
        found: list[Reply] = []
        while (reply := self.client.next_reply()) is not None:
            found.append(reply)
        return found

    def vanish(self) -> None:
        self.connection.connection_lost(ConnectionResetError())


class House:
    """Everything connections share, with a loop that turns when it is told."""

    def __init__(self, listen: Listen | None = None, inbox: Inbox | None = None) -> None:
        listen = listen or Listen()
        self.inbox = inbox or Inbox()
        self.clock = ManualClock()
        self.soon: list[Callable[[], object]] = []
        self.shared = Shared(
            listen=listen,
            receiver=self.inbox,
            clock=self.clock,
            trust=Trust(listen.trusted_cidrs),
            census=Census(listen.max_connections, listen.max_connections_per_source),
            call_soon=lambda callback, *args: self.soon.append(lambda: callback(*args)),
        )
        self.statistics = self.shared.statistics

    def turn(self) -> None:
        """Run what was scheduled, as one round of a loop after the other."""
        while self.soon:
            due, self.soon = self.soon, []
            for callback in due:
                callback()

    def peer(self, host: str = "192.0.2.1") -> Peer:
        """Return a client that has connected."""
        return Peer(self, (host, 4000)).dial()

    def sweep_after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for connection in list(self.shared.connections):
            connection.sweep(self.clock())
        self.turn()
