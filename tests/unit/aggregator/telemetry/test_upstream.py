from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from aggregator.telemetry.upstream import QUEUE, UpstreamTelemetry
from aligned.model import OperatorId, TransactionHash, Wei

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

ROOT = b"\x0a" * 32
HEX = "0x" + "0a" * 32


class Service:
    """Aligned's telemetry service, as far as it can be seen from here."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
        self.status = 201
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.put_nowait((request.path, await request.json()))
        return web.Response(status=self.status)


@asynccontextmanager
async def running() -> AsyncIterator[Service]:
    service = Service()
    application = web.Application()
    application.add_routes([web.post("/api/{name}", service.handle)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    service.url = f"http://{host}:{port}"
    try:
        yield service
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sending(telemetry: UpstreamTelemetry) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(telemetry.run())
        yield
        task.cancel()


def clock() -> float:
    return asyncio.get_running_loop().time()


async def test_calls_are_those_of_the_go_aggregator_in_order() -> None:
    async with running() as service:
        telemetry = UpstreamTelemetry(service.url + "/", clock, finish_after=0.01)
        telemetry.init_task(ROOT)
        telemetry.operator_response(ROOT, OperatorId(b"\x0b" * 32))
        telemetry.quorum_reached(ROOT)
        telemetry.gas_price(ROOT, Wei(7))
        telemetry.task_sent(ROOT, TransactionHash(b"\x0c" * 32), Wei(8))
        telemetry.task_sent(ROOT, None, Wei(8))
        telemetry.task_error(ROOT, "fee limit")
        async with sending(telemetry):
            calls = [await service.calls.get() for _ in range(7)]
    root = {"merkle_root": HEX}
    assert calls == [
        ("/api/initTaskTrace", root),
        ("/api/operatorResponse", {**root, "operator_id": "0x" + "0b" * 32}),
        ("/api/quorumReached", root),
        ("/api/aggregatorTaskSetGasPrice", {**root, "gas_price": "7"}),
        (
            "/api/aggregatorTaskSent",
            {**root, "tx_hash": "0x" + "0c" * 32, "effective_gas_price": "8"},
        ),
        ("/api/aggregatorTaskSent", {**root, "tx_hash": "Unknown", "effective_gas_price": "8"}),
        ("/api/taskError", {**root, "error": "fee limit"}),
    ]


async def test_the_end_is_told_later_and_lets_others_pass() -> None:
    now = 0.0
    async with running() as service:
        telemetry = UpstreamTelemetry(service.url, lambda: now)
        telemetry.finish_task(ROOT)
        telemetry.init_task(ROOT)
        async with sending(telemetry):
            assert (await service.calls.get())[0] == "/api/initTaskTrace"
            now = 9.9
            telemetry.quorum_reached(ROOT)
            assert (await service.calls.get())[0] == "/api/quorumReached"
            now = 10.0
            telemetry.init_task(ROOT)
            assert (await service.calls.get())[0] == "/api/finishTaskTrace"


async def test_the_oldest_calls_are_dropped_for_new_ones() -> None:
    async with running() as service:
        telemetry = UpstreamTelemetry(service.url, clock)
        for number in range(QUEUE + 3):
            telemetry.task_error(ROOT, str(number))
        assert telemetry.dropped == 3
        async with sending(telemetry):
            assert await service.calls.get() == (
                "/api/taskError",
                {"merkle_root": HEX, "error": "3"},
            )


async def test_a_service_that_fails_is_told_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as service:
        service.status = 500
        telemetry = UpstreamTelemetry(service.url, clock)
        with caplog.at_level(logging.INFO, logger="aggregator.telemetry.upstream"):
            async with sending(telemetry):
                for _ in range(3):
                    telemetry.init_task(ROOT)
                    await service.calls.get()
                service.status = 200
                for _ in range(3):
                    telemetry.init_task(ROOT)
                    await service.calls.get()
                telemetry.init_task(ROOT)
                await service.calls.get()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].__dict__["problem"] == "HTTP 500"


async def test_nobody_at_the_address_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as service:
        url = service.url
    telemetry = UpstreamTelemetry(url, clock)
    told = asyncio.Event()

    class Bell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    log = logging.getLogger("aggregator.telemetry.upstream")
    bell = Bell()
    log.addHandler(bell)
    try:
        telemetry.init_task(ROOT)
        async with sending(telemetry):
            await told.wait()
    finally:
        log.removeHandler(bell)
    assert telemetry.dropped == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_without_an_address_nothing_is_kept_and_nothing_runs() -> None:
    telemetry = UpstreamTelemetry(None, clock)
    for _ in range(QUEUE + 1):
        telemetry.init_task(ROOT)
        telemetry.finish_task(ROOT)
    await telemetry.run()
    assert (telemetry.sent, telemetry.dropped) == (0, 0)
