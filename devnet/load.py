"""Load on an aggregator: pre-signed, pre-encoded responses over one connection an operator.

Everything expensive happens before the clock starts, and replies are recognized by their bytes, so
that one core drives a server that needs several.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from aligned.errors import MalformedMessage
from aligned.model import Response
from aligned.wire import gob, messages
from aligned.wire.netrpc import Client
from devnet.keys import sign_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devnet.keys import OperatorKey
    from devnet.operator import Seen

_DIAL_SECONDS = 30.0
_TICK_SECONDS = 0.001
_NAME = messages.RESPOND.encode()
_BODY = b"\x03\x06\x00"
"""A uint of one byte follows."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one connection will send: the client that encoded it, and its calls in order."""

    client: Client
    calls: Sequence[bytes]


def prepare(signers: Sequence[OperatorKey], batches: Sequence[Seen]) -> list[Prepared]:
    """Sign and encode: one connection for each of ``signers``, one call for each of ``batches``."""
    clients = [Client() for _ in signers]
    calls: list[list[bytes]] = [[] for _ in signers]
    for seen in batches:
        digest = seen.batch_id
        signatures = sign_all(tuple(signers), digest)
        for key, signature, client, mine in zip(signers, signatures, clients, calls, strict=True):
            response = Response(seen.merkle_root, seen.sender, digest, key.operator_id, signature)
            value = messages.to_value(response)
            _, data = client.call(messages.RESPOND, messages.SIGNED_TASK_RESPONSE, value)
            mine.append(data)
    return [Prepared(client, mine) for client, mine in zip(clients, calls, strict=True)]


@dataclass(slots=True)
class Report:
    """What came of it."""

    sent: int = 0
    accepted: int = 0
    """Reply 0."""
    refused: int = 0
    """Any other reply."""
    errors: int = 0
    """RPC errors."""
    lost: int = 0
    """Sent on a connection that ended before the reply."""
    seconds: float = 0.0
    """From the first call to the last reply."""
    cpu_seconds: float = 0.0
    """Of this process meanwhile."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from call to reply, of each reply."""
    latest_send: float = 0.0
    """Seconds after its time that a call of the open loop left, at most: above some ms, this
    process was short of CPU and the latencies say little."""

    @property
    def replies(self) -> int:
        """All of them."""
        return self.accepted + self.refused + self.errors

    @property
    def rate(self) -> float:
        """Replies per second."""
        return self.replies / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """Return the latency that ``percent`` of the replies did not exceed, in seconds."""
        ordered = sorted(self.latencies)
        if not ordered:
            return 0.0
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def summary(self) -> dict[str, float]:
        """Return it for people and JSON; latencies in ms."""
        return {
            "sent": self.sent,
            "accepted": self.accepted,
            "refused": self.refused,
            "errors": self.errors,
            "lost": self.lost,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.rate, 1),
            "p50_ms": round(self.percentile(50) * 1e3, 2),
            "p90_ms": round(self.percentile(90) * 1e3, 2),
            "p99_ms": round(self.percentile(99) * 1e3, 2),
            "max_ms": round(self.percentile(100) * 1e3, 2),
            "latest_send_ms": round(self.latest_send * 1e3, 2),
            "cpu_seconds": round(self.cpu_seconds, 3),
        }


async def closed_loop(
    prepared: Sequence[Prepared], host: str, port: int, *, seconds: float = 60.0
) -> Report:
    """Keep one call open on every connection until all calls are answered, or time is up.

    Raises:
        OSError: The aggregator does not accept.
    """
    async with asyncio.timeout(_DIAL_SECONDS):
        run = await _Run.connect(prepared, host, port)
    with run.measured():
        for link in run.links:
            link.then = link.send_next
            link.send_next()
        await run.answered(seconds)
    return run.report


async def open_loop(
    prepared: Sequence[Prepared], host: str, port: int, *, rate: float, seconds: float = 60.0
) -> Report:
    """Send ``rate`` calls a second, in turn over the connections, whatever the replies do.

    Ends when all calls are answered, or time is up.

    Raises:
        OSError: The aggregator does not accept.
    """
    async with asyncio.timeout(_DIAL_SECONDS):
        run = await _Run.connect(prepared, host, port)
    rounds = max((len(item.calls) for item in prepared), default=0)
    turns = [link for turn in range(rounds) for link in run.links if turn < len(link.calls)]
    with run.measured():
        started = time.perf_counter()
        at = 0
        while at < len(turns) and time.perf_counter() - started < seconds:
            due = min(len(turns), int((time.perf_counter() - started) * rate) + 1)
            for place in range(at, due):
                late = time.perf_counter() - started - place / rate
                run.report.latest_send = max(run.report.latest_send, late)
                turns[place].send_next()
            at = due
            await asyncio.sleep(_TICK_SECONDS)
        await run.answered(seconds - (time.perf_counter() - started))
    return run.report


class _Run:
    """All connections of one measurement."""

    def __init__(self) -> None:
        self.report = Report()
        self.links: list[_Link] = []
        self.open = 0
        self._done = asyncio.Event()

    @classmethod
    async def connect(cls, prepared: Sequence[Prepared], host: str, port: int) -> _Run:
        run = cls()
        loop = asyncio.get_running_loop()
        try:
            for item in prepared:
                _, link = await loop.create_connection(partial(_Link, run, item), host, port)
                run.links.append(link)
                await link.accepted
        except BaseException:
            run.close()
            raise
        run.open = sum(len(link.calls) for link in run.links)
        return run

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Take the time, and close the connections at the end."""
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.report.seconds = time.perf_counter() - started
            self.report.cpu_seconds = time.process_time() - cpu
            self.close()

    def closed_one(self, count: int = 1) -> None:
        self.open -= count
        if self.open <= 0:
            self._done.set()

    async def answered(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                if self.open > 0:
                    await self._done.wait()
        except TimeoutError:
            return  # the report says how many are missing

    def close(self) -> None:
        for link in self.links:
            link.close()


class _Link(asyncio.Protocol):
    """One connection. After its second reply the rest are recognized by their bytes."""

    def __init__(self, run: _Run, prepared: Prepared) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls = prepared.calls
        self.then: Callable[[], None] = _nothing
        """Called after each reply."""
        self._run = run
        self._client = prepared.client
        self._transport: asyncio.Transport | None = None
        self._sent = 0
        self._open: dict[int, float] = {}
        self._buffer = b""
        self._prefix: bytes | None = None
        self._general = False
        """The replies are not of the usual form: parse each."""
        self._answered = False
        self._closing = False

    def send_next(self) -> None:
        """Send the next call, if there is one."""
        if self._sent == len(self.calls) or self._transport is None:
            return
        self._open[self._sent] = time.perf_counter()
        self._transport.write(self.calls[self._sent])
        self._sent += 1
        self._run.report.sent += 1

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            msg = f"{transport!r} is no stream"
            raise TypeError(msg)
        self._transport = transport
        transport.write(self._client.dial())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionResetError(str(exc or "unexpected EOF")))
        if not self._closing:
            self._run.report.lost += len(self._open)
            self._run.closed_one(len(self.calls) - self._sent + len(self._open))

    def data_received(self, data: bytes) -> None:
        if self._prefix is not None and not self._general:
            self._buffer += data
            self._read_usual(self._prefix)
        else:
            self._read_general(data)

    def _read_general(self, data: bytes) -> None:
        try:
            self._client.feed(data)
            while (reply := self._client.next_reply()) is not None:
                self._take(reply.seq, reply.value)
        except MalformedMessage:
            self._run.report.errors += 1
            if self._transport is not None:
                self._transport.abort()
            return
        if self._client.connected and not self.accepted.done():
            self.accepted.set_result(None)
        if not self._general and self._answered:
            self._prefix = _prefix(data)

    def _read_usual(self, prefix: bytes) -> None:
        buffer, at = self._buffer, 0
        while at < len(buffer):
            end = at + 1 + buffer[at] + 4
            if end > len(buffer):
                break
            header = buffer[at + 1 : end - 4]
            if not header.startswith(prefix) or buffer[end - 4 : end - 1] != _BODY:
                self._general = True
                self._buffer = b""
                self._read_general(buffer[at:])
                return
            seq, _ = gob.read_uint(header, len(prefix))
            self._take(seq, buffer[end - 1])
            at = end
        self._buffer = buffer[at:]

    def _take(self, seq: int, value: int | None) -> None:
        sent = self._open.pop(seq, None)
        if sent is None:
            return  # nobody asked: a Go client ignores it too
        self._answered = True
        report = self._run.report
        report.latencies.append(time.perf_counter() - sent)
        if value == 0:
            report.accepted += 1
        elif value is None:
            report.errors += 1
        else:
            report.refused += 1
        self._run.closed_one()
        self.then()


def _nothing() -> None:
    """After a reply in open loop: the next call has its own time."""


def _prefix(data: bytes) -> bytes | None:
    """Return how the header of a usual reply begins, up to its number, if ``data`` is such replies.

    The first reply on a connection also defines types and has no number (it is 0).
    """
    at = 0
    while at < len(data):
        at += 1 + data[at] + len(_BODY) + 1
        if data[at - len(_BODY) - 1 : at - 1] != _BODY:
            return None
    name = data.find(_NAME, 1, 1 + data[0])
    return data[1 : name + len(_NAME)] + b"\x01" if at == len(data) and name > 0 else None
