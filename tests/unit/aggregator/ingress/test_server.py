from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from aggregator.ingress import server
from aggregator.ingress.server import Ingress, parse_address
from aggregator.ingress.statistics import Ending
from aggregator.ports import ReplyCode
from aggregator.settings import Listen
from aligned.errors import BadConfiguration
from aligned.wire import messages
from aligned.wire.netrpc import Client, Reply
from tests.fakes.ingress import Inbox, honest
from tests.fakes.stages import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Operator:
    """A client over a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.client = Client()

    async def dial(self) -> Operator:
        self.writer.write(self.client.dial())
        while not self.client.connected:
            assert await self.receive() == []
        return self

    async def receive(self) -> list[Reply]:
        """Return the replies of the next read; end of file raises."""
        data = await self.reader.read(65536)
        if not data:
            raise EOFError
        self.client.feed(data)
        found: list[Reply] = []
        while (reply := self.client.next_reply()) is not None:
            found.append(reply)
        return found

    async def replies(self, count: int) -> list[Reply]:
        found: list[Reply] = []
        while len(found) < count:
            found += await self.receive()
        return found

    def call(self, number: int = 1) -> None:
        value = messages.to_value(honest(number))
        self.writer.write(
            self.client.call(messages.RESPOND, messages.SIGNED_TASK_RESPONSE, value)[1]
        )


class Port:
    """An ingress that listens, and the connections to it."""

    def __init__(self, ingress: Ingress, inbox: Inbox, clock: ManualClock) -> None:
        self.ingress, self.inbox, self.clock = ingress, inbox, clock
        self._writers: list[asyncio.StreamWriter] = []
        self._received = asyncio.Event()
        inbox.on_receive = self._received.set

    async def connect(self) -> Operator:
        reader, writer = await asyncio.open_connection(*self.ingress.address)
        self._writers.append(writer)
        return Operator(reader, writer)

    async def taken(self, count: int) -> None:
        """Wait until the receiver has got ``count`` calls."""
        while len(self.inbox.calls) < count:
            self._received.clear()
            await self._received.wait()

    async def close(self) -> None:
        await self.ingress.drain()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def port(listen: Listen | None = None, inbox: Inbox | None = None) -> AsyncIterator[Port]:
    inbox = inbox or Inbox()
    clock = ManualClock()
    listen = listen or Listen(address="127.0.0.1:0", drain_timeout=0)
    ingress = Ingress(listen, inbox, clock)
    await ingress.start()
    opened = Port(ingress, inbox, clock)
    try:
        async with asyncio.timeout(20):
            yield opened
    finally:
        await opened.close()


async def test_it_is_open_from_start_to_drain() -> None:
    ingress = Ingress(Listen(address="127.0.0.1:0"), Inbox(), ManualClock())
    states = [ingress.is_open]
    await ingress.start()
    states.append(ingress.is_open)
    await ingress.drain()
    states.append(ingress.is_open)
    assert states == [False, True, False]


async def test_many_calls_of_many_connections_are_answered() -> None:
    async with port(inbox=Inbox(at_once=ReplyCode.ACCEPTED)) as opened:
        operators = [await (await opened.connect()).dial() for _ in range(10)]
        for number in range(20):
            for operator in operators:
                operator.call(number)
        for operator in operators:
            replies = await operator.replies(20)
            assert [(reply.seq, reply.value) for reply in replies] == [(n, 0) for n in range(20)]
        statistics = opened.ingress.statistics
        assert statistics.calls == 200
        assert statistics.connections_open == 10
        assert statistics.bytes_out > statistics.calls * 50


async def test_more_calls_than_may_be_open_are_all_answered_in_the_end() -> None:
    listen = Listen(address="127.0.0.1:0", max_calls_per_connection=3, drain_timeout=0)
    async with port(listen) as opened:
        operator = await (await opened.connect()).dial()
        for number in range(500):
            operator.call(number)
        answered = 0
        while answered < 500:
            await opened.taken(answered + 1)
            taken = opened.inbox.calls[answered:]
            assert len(taken) <= 3
            for response, caller, seq in taken:
                assert response == honest(seq)
                caller.answer(seq, ReplyCode.ACCEPTED)
            answered += len(await operator.replies(len(taken)))


async def test_silent_half_open_and_slow_connections_do_not_hinder_an_honest_one() -> None:
    async with port(inbox=Inbox(at_once=ReplyCode.ACCEPTED)) as opened:
        silent, slow_head = await opened.connect(), await opened.connect()
        slow_head.writer.write(b"CONN")
        slow_call = await (await opened.connect()).dial()
        slow_call.writer.write(b"\x2f\xff")
        half_open = await (await opened.connect()).dial()
        half_open.writer.write_eof()
        good = await (await opened.connect()).dial()
        good.call(1)
        await good.replies(1)
        opened.clock.advance(11)
        opened.ingress.sweep()
        for ended in (silent, slow_head, half_open):
            with pytest.raises((EOFError, ConnectionError)):
                await ended.receive()
        good.call(2)
        await good.replies(1)
        opened.clock.advance(20)
        opened.ingress.sweep()
        with pytest.raises((EOFError, ConnectionError)):
            await slow_call.receive()
        good.call(3)
        await good.replies(1)
        assert opened.ingress.statistics.connections_ended == {
            Ending.SLOW_HEAD: 2,
            Ending.SLOW_MESSAGE: 1,
            Ending.PEER: 1,
        }


async def test_an_oversized_message_closes_its_connection_only() -> None:
    async with port(inbox=Inbox(at_once=ReplyCode.ACCEPTED)) as opened:
        hostile, good = [await (await opened.connect()).dial() for _ in range(2)]
        hostile.writer.write(b"\xfc\x04\x00\x00\x00" + bytes(100_000))
        with pytest.raises((EOFError, ConnectionError)):
            await hostile.receive()
        good.call()
        await good.replies(1)
        assert opened.ingress.statistics.malformed == {"a message is empty or too long": 1}


async def test_http_is_answered_and_closed() -> None:
    async with port() as opened:
        browser = await opened.connect()
        browser.writer.write(b"GET /_goRPC_ HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await browser.reader.read()
        assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
        assert answer.endswith(b"405 must CONNECT\n")


async def test_a_drain_answers_what_is_open_then_closes_with_a_fin() -> None:
    listen = Listen(address="127.0.0.1:0", drain_timeout=15)
    async with port(listen) as opened, asyncio.TaskGroup() as tasks:
        idle, working = [await (await opened.connect()).dial() for _ in range(2)]
        working.call(1)
        await opened.taken(1)
        address = opened.ingress.address
        draining = tasks.create_task(opened.ingress.drain())
        with pytest.raises(EOFError):
            await idle.receive()
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection(*address)
        working.call(2)
        opened.inbox.answer_all()
        assert [reply.seq for reply in await working.replies(1)] == [0]
        with pytest.raises(EOFError):
            await working.receive()
        await draining
        assert len(opened.inbox.calls) == 1
        assert opened.ingress.statistics.connections_ended == {Ending.DRAINED: 2}
        assert opened.inbox.gone == []


async def test_a_drain_leaves_the_unanswered_to_their_retries() -> None:
    async with port() as opened:
        operator = await (await opened.connect()).dial()
        operator.call()
        await opened.taken(1)
        await opened.ingress.drain()
        with pytest.raises(EOFError):
            await operator.receive()
        assert len(opened.inbox.gone) == 1
        assert opened.ingress.statistics.calls_open == 0


async def test_the_sweep_runs_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.001)
    async with port() as opened, asyncio.TaskGroup() as tasks:
        sweeping = tasks.create_task(opened.ingress.run())
        silent = await opened.connect()
        opened.clock.advance(100)
        with pytest.raises((EOFError, ConnectionError)):
            await silent.receive()
        assert not sweeping.done()
        sweeping.cancel()


async def test_options_of_accepted_sockets_find_dead_peers() -> None:
    async with port() as opened:
        await (await opened.connect()).dial()
        (connection,) = opened.ingress._shared.connections
        accepted = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # behind the protocol
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_address_in_use_is_a_problem_of_the_configuration() -> None:
    async with port() as opened:
        host, number = opened.ingress.address
        with pytest.raises(BadConfiguration, match=r"^listen\.address: cannot listen there: "):
            await Ingress(Listen(address=f"{host}:{number}"), Inbox()).start()


async def test_the_address_of_all_addresses_takes_ipv4_as_well() -> None:
    async with port(Listen(address="[::]:0", drain_timeout=0)) as opened:
        server = opened.ingress._server
        assert server is not None
        ipv4 = next(each for each in server.sockets if each.family is socket.AF_INET)
        reader, writer = await asyncio.open_connection("127.0.0.1", ipv4.getsockname()[1])
        client = await Operator(reader, writer).dial()
        client.call()
        await opened.taken(1)
        writer.close()


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("0.0.0.0:8090", ("0.0.0.0", 8090)),  # noqa: S104  the default, not bound here
        ("[::1]:0", ("::1", 0)),
        ("localhost:8090", ("localhost", 8090)),
        (":8090", (None, 8090)),
        ("[::]:8090", (None, 8090)),
    ],
)
def test_addresses_are_host_and_port(address: str, parsed: tuple[str | None, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["8090", "::1:8090", "host:", "host:65536", "[nonsense]:1"])
def test_other_addresses_are_a_problem_of_the_configuration(address: str) -> None:
    with pytest.raises(BadConfiguration, match=r"^listen\.address: "):
        parse_address(address)
