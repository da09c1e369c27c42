from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from aligned.chain import transport
from aligned.chain.endpoints import Endpoints, Limits, Source
from aligned.chain.transport import Http, TransportFailed
from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "0123456789abcdef"


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/echo":
                return web.Response(body=await request.read())
            case "/busy":
                return web.Response(status=429, text="slow down")
            case "/moved":
                raise web.HTTPFound("/echo")
            case "/hang":
                await asyncio.Event().wait()
            case _:
                pass
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"only this")
        if request.transport is not None:
            request.transport.abort()
        return response

    app = web.Application()
    app.router.add_post("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_body_and_status_come_back(server: str) -> None:
    async with Http() as http:
        assert await http.post(f"{server}/echo", b"{}") == (200, b"{}")
        assert await http.post(f"{server}/busy", b"{}") == (429, b"slow down")


async def test_redirects_are_not_followed(server: str) -> None:
    async with Http() as http:
        status, _ = await http.post(f"{server}/moved", b"{}")
    assert status == 302


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/cut", "the connection broke"),
        ("http://127.0.0.1:1/", "no connection"),
        (f"http://[{KEY}/", "the URL is not valid"),
        (f"{KEY}", "the URL is not valid"),
    ],
    ids=["truncated", "refused", "bad host", "no scheme"],
)
async def test_failures_name_the_reason_and_never_the_url(
    server: str, path: str, reason: str
) -> None:
    url = server + path if path.startswith("/") else path
    async with Http() as http:
        with pytest.raises(TransportFailed, match=reason) as caught:
            await http.post(url, b"{}")
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_an_endless_answer_is_cut(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BODY_LIMIT", 10)
    async with Http() as http:
        with pytest.raises(TransportFailed, match="longer than 10 bytes"):
            await http.post(f"{server}/echo", b"x" * 11)


async def test_a_closed_session_says_so() -> None:
    with pytest.raises(TransportFailed, match="closed"):
        await Http().post("http://127.0.0.1:1/", b"{}")


async def test_an_endpoint_that_hangs_is_given_up_after_its_deadline(server: str) -> None:
    sources = [Source(name="one", url=f"{server}/hang")]
    async with Endpoints(sources, 1, limits=Limits(timeout_seconds=0.02)) as endpoints:
        with pytest.raises(ChainUnavailable, match=r"no answer within 0.02 s"):
            await endpoints.call("eth_blockNumber", [])
