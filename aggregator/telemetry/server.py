"""The telemetry port: ``/healthz``, ``/readyz``, ``/metrics``, ``/status``.

Served by the daemon's own loop: a blocked loop does not answer, and that is the answer.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from aggregator.sections import split_address
from aggregator.telemetry.plain import plain
from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.typedefs import Handler

logger = logging.getLogger(__name__)

CONNECTION_SECONDS = 60.0
"""After which a connection is closed, whatever it does: scrapers connect again."""

MAX_CONNECTIONS = 64

_SWEEP_SECONDS = 1.0
_LINE_BYTES = 4096


class Health(Protocol):
    """What the probes ask. Both return at once and name each check with its result."""

    def alive(self) -> Mapping[str, bool]:
        """Return what must hold or the process is restarted: loop and threads turn."""

    def ready(self) -> Mapping[str, bool]:
        """Return what must hold to take a signature: journal, ingress, operator keys.

        Never the chain or the shared store: without them signatures are kept all the same.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Where the answers come from. The callables return at once."""

    health: Health
    metrics: Callable[[], bytes]
    """The Prometheus text format."""
    status: Callable[[], Mapping[str, object]]
    """Anything ``plain`` can show; no secrets."""


@asynccontextmanager
async def serving(address: str, shown: Shown) -> AsyncIterator[str]:
    """Serve ``shown`` at host:port while the context lasts; give the address it is bound to.

    Resource handling: leaving closes the port and every connection, within a second.

    Raises:
        BadConfiguration: The address cannot be used.
    """
    runner = web.AppRunner(
        _application(shown),
        access_log=None,
        keepalive_timeout=CONNECTION_SECONDS,
        lingering_time=1.0,
        max_line_size=_LINE_BYTES,
        max_field_size=_LINE_BYTES,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        bound = await _bind(runner, address)
        sweeper = _Sweeper(runner)
        sweeper.sweep()
        logger.info("telemetry is served", extra={"address": bound})
        try:
            yield bound
        finally:
            sweeper.stop()
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, address: str) -> str:
    host, port = split_address(address)
    try:
        await web.TCPSite(runner, None if host == "::" else host, port).start()
    except OSError as error:
        what = (
            "is taken by another process"
            if error.errno == errno.EADDRINUSE
            else f"cannot be used: {error.strerror or error}"
        )
        problem = f"telemetry.address: {address} {what}; choose another address, or null for none"
        raise BadConfiguration((problem,)) from error
    name = runner.addresses[0]
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _application(shown: Shown) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return _verdict(shown.health.alive())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(shown.health.ready())

    async def metrics(_: web.Request) -> web.Response:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=shown.metrics(), headers={"Content-Type": kind})

    async def status(_: web.Request) -> web.Response:
        return _json(plain(shown.status()))

    async def index(_: web.Request) -> web.Response:
        return web.Response(text="/healthz /readyz /metrics /status\n")

    application = web.Application(middlewares=[_no_bodies], client_max_size=1)
    application.add_routes(
        [
            web.get("/", index),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/status", status),
        ]
    )
    return application


@web.middleware
async def _no_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse bodies: nothing here takes one."""
    if request.can_read_body:
        response: web.StreamResponse = web.Response(status=413, text="no bodies here\n")
        response.force_close()
        return response
    return await handler(request)


def _verdict(checks: Mapping[str, bool]) -> web.Response:
    good = all(checks.values())
    return _json({"ok": good, "checks": dict(checks)}, status=200 if good else 503)


def _json(value: object, status: int = 200) -> web.Response:
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    return web.Response(text=text, content_type="application/json", status=status)


@dataclass(slots=True)
class _Sweeper:
    """Closes connections that are old or too many; aiohttp has no limit of its own.

    A timer and no task, so that nobody's task group has to know of it.
    """

    runner: web.AppRunner
    seen: dict[web.RequestHandler, float] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None

    def sweep(self) -> None:
        """Look once, and again in a second."""
        loop = asyncio.get_running_loop()
        server = self.runner.server
        now = loop.time()
        connections = [] if server is None else server.connections
        self.seen = {each: self.seen.get(each, now) for each in connections}
        oldest_first = sorted(self.seen, key=self.seen.__getitem__)
        for index, connection in enumerate(oldest_first):
            too_many = len(oldest_first) - index > MAX_CONNECTIONS
            if too_many or now - self.seen[connection] > CONNECTION_SECONDS:
                connection.force_close()
        self.timer = loop.call_later(_SWEEP_SECONDS, self.sweep)

    def stop(self) -> None:
        """End it."""
        if self.timer is not None:
            self.timer.cancel()
