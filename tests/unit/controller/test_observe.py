from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controller import observe
from controller.errors import ClusterAway
from controller.observe import HttpReplicas, Unreachable, ask, together
from controller.observed import PodView

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def a_replica(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> AsyncIterator[HttpReplicas]:
    app = web.Application()
    app.router.add_get("/status", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        monkeypatch.setattr("controller.names.TELEMETRY_PORT", port)
        async with aiohttp.ClientSession() as session:
            yield HttpReplicas(session)
    finally:
        await runner.cleanup()


class Street:
    """One that takes connections, and replicas who ask there, by a clock that is moved by hand."""

    def __init__(self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.connections = 0
        self.replicas = HttpReplicas(session, lambda: self.now)
        self._monkeypatch = monkeypatch
        self.says(b"")

    def says(self, answer: bytes) -> None:
        """Answer everybody so from now on; empty: nobody, who are not to wait long for it."""
        self._answer = answer
        self._monkeypatch.setattr(observe, "ASK_SECONDS", 30.0 if answer else 0.2)
        self._monkeypatch.setattr(observe, "AGAIN_SECONDS", 30.0 if answer else 0.2)

    async def heard(self) -> bool:
        try:
            await self.replicas.status("127.0.0.1")
        except Unreachable:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._answer:
            writer.write(self._answer)
            writer.write_eof()
        await reader.read()  # until whoever asks has gone
        writer.close()


@pytest.fixture
async def street(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Street]:
    async with aiohttp.ClientSession() as session:
        one = Street(session, monkeypatch)
        async with await asyncio.start_server(one._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setattr("controller.names.TELEMETRY_PORT", port)
            yield one


@pytest.fixture
def recursion() -> Iterator[None]:
    """The interpreter's own limit: libraries that only the daemon has raise it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def says(body: bytes, status: int = 200) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status)

    return answer


async def test_a_replica_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_replica(monkeypatch, says(json.dumps({"role": {"term": 3}}).encode())) as replicas:
        assert await replicas.status("127.0.0.1") == {"role": {"term": 3}}


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"{", 200, "Expecting"),
        (b"[]", 200, "not an object"),
        (b"{}", 500, "500"),
        (b'"' + b"x" * 2**20 + b'"', 200, "too long"),
        (b"[" * 5000 + b"]" * 5000, 200, "nested too deeply"),
    ],
    ids=["no JSON", "no object", "an error", "too long", "too deep"],
)
@pytest.mark.usefixtures("recursion")
async def test_an_answer_that_is_none_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, why: str
) -> None:
    async with a_replica(monkeypatch, says(body, status)) as replicas:
        with pytest.raises(Unreachable, match=why):
            await replicas.status("127.0.0.1")


async def test_an_answer_that_comes_in_pieces_is_heard_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"role":', b' {"term"', b": 3}}"):
            await response.write(piece)
            await asyncio.sleep(0.01)  # each in a packet of its own
        return response

    async with a_replica(monkeypatch, answer) as replicas:
        assert await replicas.status("127.0.0.1") == {"role": {"term": 3}}


async def test_who_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "ASK_SECONDS", 0.05)
    asked = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(60)
        return web.Response()

    async with a_replica(monkeypatch, silent) as replicas:
        with pytest.raises(Unreachable, match=r"no answer within 0\.05 s"):
            await replicas.status("127.0.0.1")
    assert asked.is_set()


async def test_who_is_silent_twice_is_left_alone_for_a_minute(street: Street) -> None:
    for _ in range(5):
        assert not await street.heard()
    assert street.connections == 2
    street.now += 59.9
    assert not await street.heard()
    assert street.connections == 2
    street.now += 0.1
    for _ in range(2):
        assert not await street.heard()
    assert street.connections == 3


async def test_who_was_left_alone_is_heard_as_soon_as_it_is_asked_again(street: Street) -> None:
    for _ in range(2):
        assert not await street.heard()
    street.says(b"HTTP/1.0 200 OK\r\n\r\n{}")
    assert not await street.heard()
    street.now += 60
    for _ in range(3):
        assert await street.heard()
    street.says(b"")
    for _ in range(2):
        assert not await street.heard()
    assert street.connections == 7


async def test_who_was_left_alone_is_not_waited_for_as_long_as_others(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert not await street.heard()
    street.now += 60
    monkeypatch.setattr(observe, "AGAIN_SECONDS", 0.01)
    with pytest.raises(Unreachable, match=r"no answer within 0\.01 s"):
        await street.replicas.status("127.0.0.1")


async def test_who_answers_late_is_waited_for_now_and_then(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert not await street.heard()
    street.says(b"HTTP/1.0 200 OK\r\n\r\n{}")
    monkeypatch.setattr(observe, "AGAIN_SECONDS", 0.0)  # less than the answer takes
    heard = []
    for _ in range(4):
        street.now += 60
        heard.append(await street.heard())
    assert heard == [False, False, False, True]


async def test_who_refuses_at_once_is_asked_each_time(street: Street) -> None:
    street.says(b"HTTP/1.0 503 Not now\r\n\r\n")
    for _ in range(3):
        assert not await street.heard()
    street.says(b"")
    assert not await street.heard()
    street.says(b"HTTP/1.0 503 Not now\r\n\r\n")
    assert not await street.heard()
    street.says(b"")
    for _ in range(3):
        assert not await street.heard()
    assert street.connections == 7


async def test_an_address_that_nobody_asks_about_is_forgotten(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert not await street.heard()
    street.now += observe.FORGET_SECONDS
    monkeypatch.setattr(observe, "ASK_SECONDS", 0.0)
    with pytest.raises(Unreachable):
        await street.replicas.status("127.0.0.2")
    assert list(street.replicas._silences) == ["127.0.0.2"]


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_replica(monkeypatch, says(b"{}")) as replicas:
        monkeypatch.setattr("controller.names.TELEMETRY_PORT", 1)
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await replicas.status("127.0.0.1")


class Meeting:
    """Replicas that answer when all have been asked."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self._all = asyncio.Event()

    async def status(self, address: str) -> dict[str, Any]:
        self._left -= 1
        if not self._left:
            self._all.set()
        await self._all.wait()
        if address == "away":
            raise Unreachable("nobody is there")
        return {"address": address}


def pod(ordinal: int, address: str, *, terminating: bool = False) -> PodView:
    return PodView(
        name=f"agg-{ordinal}",
        uid=str(ordinal),
        ordinal=ordinal,
        ready=True,
        address=address,
        terminating=terminating,
    )


async def test_all_are_asked_at_once_and_nobody_is_in_the_others_way() -> None:
    pods = [pod(1, "one"), pod(0, "away"), pod(2, ""), pod(3, "x", terminating=True)]
    async with asyncio.timeout(10):
        found = await ask(Meeting(2), pods)
    assert list(found) == ["agg-0", "agg-1"]
    assert (found["agg-0"].said, found["agg-0"].why) == (None, "nobody is there")
    assert found["agg-1"].said == {"address": "one"}
    assert found["agg-0"].in_sync is None


async def test_a_failure_is_raised_when_all_calls_have_ended() -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise ClusterAway("500")

    async def takes_longer() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.append("done")

    with pytest.raises(ClusterAway):
        await together([fails(), takes_longer()])
    assert ended == ["done"]


async def test_a_replica_cannot_send_us_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query_string)
        if request.query_string:
            return web.json_response({"role": {"term": 3}})
        raise web.HTTPFound("/status?elsewhere")

    async with a_replica(monkeypatch, answer) as replicas:
        with pytest.raises(Unreachable):
            await replicas.status("127.0.0.1")
    assert asked == [""]
