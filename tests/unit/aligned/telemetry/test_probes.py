from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import pytest

from aligned.errors import BadConfiguration
from aligned.telemetry import probes as server
from aligned.telemetry.probes import Shown, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


KEY = "telemetry.address"


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@dataclass
class Knobs:
    """A daemon's health, status and metrics, set by the test."""

    loop: bool = True
    journal: bool = True
    facts: dict[str, object] = field(default_factory=dict)
    text: bytes = b"metric 1\n"

    def alive(self) -> Mapping[str, bool]:
        return {"loop": self.loop}

    def ready(self) -> Mapping[str, bool]:
        return {"journal": self.journal, "ingress": True}

    def status(self) -> Mapping[str, object]:
        return self.facts

    def metrics(self) -> bytes:
        return self.text

    @property
    def shown(self) -> Shown:
        return Shown(alive=self.alive, ready=self.ready, metrics=self.metrics, status=self.status)


@pytest.fixture
def knobs() -> Knobs:
    return Knobs()


@pytest.fixture
async def address(knobs: Knobs) -> AsyncIterator[str]:
    async with serving("127.0.0.1", 0, knobs.shown, key=KEY) as bound:
        yield bound


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_probes_tell_each_check_and_all_together(
    knobs: Knobs, address: str, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"http://{address}/healthz") as reply:
        assert (reply.status, await reply.json()) == (200, {"ok": True, "checks": {"loop": True}})
    knobs.loop = knobs.journal = False
    async with session.get(f"http://{address}/healthz") as reply:
        assert reply.status == 503
    async with session.get(f"http://{address}/readyz") as reply:
        assert reply.status == 503
        assert await reply.json() == {"ok": False, "checks": {"journal": False, "ingress": True}}


async def test_the_address_of_all_addresses_answers_over_ipv4_as_well(
    knobs: Knobs, session: aiohttp.ClientSession
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    async with (
        serving("::", number, knobs.shown, key=KEY),
        session.get(f"http://127.0.0.1:{number}/healthz") as reply,
    ):
        assert reply.status == 200


async def test_metrics_come_in_the_text_format(
    address: str, session: aiohttp.ClientSession
) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with session.get(f"http://{address}/metrics", headers=accept) as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await reply.read() == b"metric 1\n"


async def test_status_is_json_with_ids_in_hex(
    knobs: Knobs, address: str, session: aiohttp.ClientSession
) -> None:
    knobs.facts = {"batches": {b"\x01": {"stake": 2**80}}}
    async with session.get(f"http://{address}/status") as reply:
        assert await reply.json() == {"batches": {"0x01": {"stake": str(2**80)}}}


async def test_head_is_answered_and_other_methods_are_not(
    address: str, session: aiohttp.ClientSession
) -> None:
    async with session.head(f"http://{address}/healthz") as reply:
        assert reply.status == 200
    async with session.post(f"http://{address}/healthz") as reply:
        assert reply.status == 405
    async with session.get(f"http://{address}/debug/rpc") as reply:
        assert reply.status == 404


async def test_a_body_is_refused(address: str, session: aiohttp.ClientSession) -> None:
    async with session.get(f"http://{address}/status", data=b"x" * 100) as reply:
        assert reply.status == 413


async def test_a_long_request_line_is_refused(address: str, session: aiohttp.ClientSession) -> None:
    async with session.get(f"http://{address}/status?{'x' * 10_000}") as reply:
        assert reply.status == 400


async def test_an_aborted_scrape_harms_nobody(
    knobs: Knobs, address: str, session: aiohttp.ClientSession
) -> None:
    knobs.text = b"metric 1\n" * 1_000_000
    host, port = address.split(":")
    for _ in range(3):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        await writer.drain()
        writer.transport.abort()
    async with session.get(f"http://{address}/healthz") as reply:
        assert reply.status == 200


async def test_connections_beyond_the_limit_cost_the_oldest(
    address: str, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    host, port = address.split(":")
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            readers.append(reader)
        async with asyncio.timeout(30):
            assert await readers[0].read() == b""
            assert await readers[1].read() == b""
        async with session.get(f"http://{address}/healthz") as reply:
            assert reply.status == 200


async def test_silent_connections_are_closed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTION_SECONDS", 0.0)
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_a_port_in_use_is_a_problem_of_the_configuration(knobs: Knobs, address: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        async with serving(*split(address), knobs.shown, key=KEY):
            pass
    (problem,) = caught.value.problems
    assert problem.startswith(f"telemetry.address: {address} is taken by another process")


async def test_an_address_of_another_machine_is_a_problem_of_the_configuration(
    knobs: Knobs,
) -> None:
    with pytest.raises(BadConfiguration) as caught:
        async with serving("203.0.113.1", 9091, knobs.shown, key=KEY):
            pass
    assert "cannot be used" in caught.value.problems[0]


async def test_leaving_frees_the_port(knobs: Knobs) -> None:
    async with serving("127.0.0.1", 0, knobs.shown, key=KEY) as bound:
        pass
    async with serving(*split(bound), knobs.shown, key=KEY) as again:
        assert again == bound
