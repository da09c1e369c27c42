"""How Sentinels are asked: over few connections, and patiently where none has answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from aggregator.store import discovery
from aggregator.store.connection import Access, Address, Server
from aggregator.store.discovery import Sentinels
from aligned.errors import StoreUnavailable

_OK = b"+OK\r\n"
_ANSWER = (
    b"*6\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$4\r\nport\r\n$4\r\n6379\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n"
    b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n"
)


class SlowSentinel:
    """Answers when it is allowed to."""

    def __init__(self) -> None:
        self.connections = 0
        self.questions = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.served: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.served.append(writer)
        while data := await reader.read(4096):
            if b"SETNAME" in data:
                writer.write(_OK)
                continue
            self.questions += 1
            self.asked.set()
            await self.may_answer.wait()
            writer.write(_ANSWER)

    async def end(self) -> None:
        self.may_answer.set()
        for writer in self.served:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def asked(sentinel: SlowSentinel) -> AsyncIterator[Sentinels]:
    server = await asyncio.start_server(sentinel.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    sentinels = Sentinels([Server(address=Address(host, port))], master="aligned", access=Access())
    try:
        async with aclosing(sentinels):
            yield sentinels
    finally:
        await sentinel.end()
        server.close()


async def test_those_who_ask_at_the_same_time_ask_once_more_together() -> None:
    sentinel = SlowSentinel()
    async with asked(sentinel) as sentinels, asyncio.timeout(60), asyncio.TaskGroup() as group:
        first = group.create_task(sentinels.find())
        await sentinel.asked.wait()
        others = [group.create_task(sentinels.find()) for _ in range(20)]
        await asyncio.sleep(0)  # all of them have begun
        sentinel.may_answer.set()
        found = {(await task).address for task in (first, *others)}
    assert found == {Address("10.0.0.1", 6379)}
    assert (sentinel.connections, sentinel.questions) == (1, 2)


async def test_who_asks_later_is_not_told_what_was_found_before() -> None:
    sentinel = SlowSentinel()
    sentinel.may_answer.set()
    async with asked(sentinel) as sentinels, asyncio.timeout(60):
        await sentinels.find()
        await sentinels.find()
    assert sentinel.questions == 2


async def test_a_cancelled_question_is_asked_again_by_those_who_wait() -> None:
    sentinel = SlowSentinel()
    async with asked(sentinel) as sentinels, asyncio.timeout(60), asyncio.TaskGroup() as group:
        first = group.create_task(sentinels.find())
        await sentinel.asked.wait()
        other = group.create_task(sentinels.find())
        await asyncio.sleep(0)
        first.cancel()
        sentinel.may_answer.set()
        assert (await other).address == Address("10.0.0.1", 6379)


async def test_a_sentinel_that_is_slow_is_waited_for_while_nobody_else_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(discovery, "FIRST_SECONDS", 60.0)
    sentinel = SlowSentinel()
    async with asked(sentinel) as sentinels, asyncio.timeout(60), asyncio.TaskGroup() as group:
        found = group.create_task(sentinels.find())
        await sentinel.asked.wait()
        assert not found.done()
        sentinel.may_answer.set()
        assert (await found).address == Address("10.0.0.1", 6379)


async def test_a_sentinel_that_never_answers_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(discovery, "FIRST_SECONDS", 0.01)
    async with asked(SlowSentinel()) as sentinels, asyncio.timeout(60):
        with pytest.raises(StoreUnavailable, match="silent for"):
            await sentinels.find()
