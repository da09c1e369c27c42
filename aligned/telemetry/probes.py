"""The telemetry port: ``/healthz``, ``/readyz``, ``/metrics``, and ``/status`` where there is one.

Served by the program's own loop: a blocked loop does not answer, and that is the answer.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from aligned.errors import BadConfiguration
from aligned.telemetry.plain import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.typedefs import Handler

logger = logging.getLogger(__name__)

CONNECTION_SECONDS = 60.0
"""After which a connection is closed, whatever it does: scrapers connect again."""

MAX_CONNECTIONS = 64

_SWEEP_SECONDS = 1.0
_LINE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Where the answers come from. All return at once; checks are named with their results."""

    alive: Callable[[], Mapping[str, bool]]
    """What must hold, or the process is restarted: loop and threads turn."""
    ready: Callable[[], Mapping[str, bool]]
    """What must hold for this replica to be of use."""
    metrics: Callable[[], bytes]
    """The Prometheus text format."""
    status: Callable[[], Mapping[str, object]] | None = None
    """Anything ``plain`` can show; no secrets. None: there is no such page."""


@asynccontextmanager
async def serving(host: str, port: int, shown: Shown, *, key: str) -> AsyncIterator[str]:
    """Serve ``shown`` while the context lasts; give the address it is bound to.

    Args:
        host: To bind to; empty or ``::`` is every address, IPv4 included.
        port: 0 takes a free one.
        shown: What is served.
        key: The setting that the address comes from, for the message when it cannot be used.

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
        bound = await _bind(runner, host, port, key)
        sweeper = _Sweeper(runner)
        sweeper.sweep()
        logger.info("telemetry is served", extra={"address": bound})
        try:
            yield bound
        finally:
            sweeper.stop()
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, host: str, port: int, key: str) -> str:
    try:
        await web.TCPSite(runner, None if host in {"", "::"} else host, port).start()
    except OSError as error:
        what = (
            "is taken by another process"
            if error.errno == errno.EADDRINUSE
            else f"cannot be used: {error.strerror or error}"
        )
        problem = f"{key}: {_shown(host, port)} {what}; choose another address"
        raise BadConfiguration((problem,)) from error
    name = runner.addresses[0]
    return _shown(name[0], name[1])


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _application(shown: Shown) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return _verdict(shown.alive())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(shown.ready())

    async def metrics(_: web.Request) -> web.Response:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=shown.metrics(), headers={"Content-Type": kind})

    pages = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    if (said := shown.status) is not None:

        async def status(_: web.Request) -> web.Response:
            return _json(plain(said()))

        pages["/status"] = status

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=f"{' '.join(pages)}\n")

    application = web.Application(middlewares=[_no_bodies], client_max_size=1)
    application.add_routes(web.get(path, page) for path, page in {"/": index, **pages}.items())
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
