"""The port operators connect to: listens, keeps budgets and deadlines, drains."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, NoReturn

from aggregator.ingress.census import Census
from aggregator.ingress.connection import Connection
from aggregator.ingress.proxy import Trust
from aggregator.ingress.shared import Shared
from aggregator.ingress.sockets import room_for, tune_listening
from aggregator.ingress.statistics import Ending
from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.ingress.statistics import Statistics
    from aggregator.ports import Clock, Receiver
    from aggregator.settings import Listen

SWEEP_SECONDS = 1.0
DRAIN_LINGER_SECONDS = 0.25
"""At the end of a drain, for peers to read their replies before the process is gone."""
_BACKLOG = 1024
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]*)):(\d{1,5})")


def parse_address(address: str) -> tuple[str | None, int]:
    """Return host and port of ``host:port``; no host, or ``[::]``, means every address there is.

    Raises:
        BadConfiguration: It is something else.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[3]) >= 1 << 16:
        problem = f"listen.address: {address!r} is not host:port, with an IPv6 host in brackets"
        raise BadConfiguration((problem,))
    host = match[1] or match[2]
    return (None if host in {"", "::"} else host), int(match[3])


class Ingress:
    """Takes operators' calls to ``receiver``.

    Resource handling:
        ``start`` opens the port; ``drain`` closes it and every connection. ``run`` belongs into a
        task of the caller: it keeps the deadlines and ends by cancellation only.
    """

    def __init__(self, listen: Listen, receiver: Receiver, clock: Clock = time.monotonic) -> None:
        """Check the settings; nothing is opened.

        Raises:
            BadConfiguration: They cannot be used.
        """
        self._host, self._port = parse_address(listen.address)
        self._shared = Shared(
            listen=listen,
            receiver=receiver,
            clock=clock,
            trust=Trust(listen.trusted_cidrs),
            census=Census(listen.max_connections, listen.max_connections_per_source),
            call_soon=_call_soon,
        )
        self._server: asyncio.Server | None = None

    @property
    def statistics(self) -> Statistics:
        """Counters, live."""
        return self._shared.statistics

    @property
    def is_open(self) -> bool:
        """Whether new connections are taken."""
        return self._server is not None and self._server.is_serving()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are bound.

        Raises:
            RuntimeError: ``start`` was not called, or ``drain`` was.
        """
        if self._server is None or not self._server.sockets:
            msg = "ingress is not listening"
            raise RuntimeError(msg)
        host, port, *_ = self._server.sockets[0].getsockname()
        return host, port

    async def start(self) -> None:
        """Open the port.

        Raises:
            BadConfiguration: It cannot be opened.
        """
        self._shared.census.limit_to(room_for(self._shared.listen.max_connections))
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._shared), self._host, self._port, backlog=_BACKLOG
            )
        except OSError as error:
            problem = f"listen.address: cannot listen there: {error}"
            raise BadConfiguration((problem,)) from error
        for sock in self._server.sockets:
            tune_listening(sock)

    def pause(self) -> None:
        """Take no calls until ``resume``: what comes is left in sockets, and nothing is lost."""
        self._shared.paused = True

    def resume(self) -> None:
        """Take calls again, those first that were held back first, until there is a pause."""
        self._shared.resume()

    async def run(self) -> NoReturn:
        """Keep deadlines until cancelled."""
        while True:
            begun = self._shared.clock()
            await asyncio.sleep(SWEEP_SECONDS)
            # After the loop was blocked, what waits in the sockets is read before anyone is judged.
            if self._shared.clock() - begun < 2 * SWEEP_SECONDS:
                self.sweep()

    def sweep(self) -> None:
        """End the connections whose deadlines are over, by the clock given."""
        now = self._shared.clock()
        self._shared.allow_logs()
        for connection in list(self._shared.connections):
            connection.sweep(now)

    async def drain(self) -> None:
        """Close the port, let open calls be answered until the drain timeout, close connections.

        Replies are followed by a FIN. Calls that arrive meanwhile are not taken; their clients
        send them again elsewhere. Repeats do nothing.
        """
        shared = self._shared
        if self._server is not None:
            self._server.close()
        shared.draining = True
        for connection in list(shared.connections):
            connection.proceed()
        await self._until(lambda: not shared.active, shared.listen.drain_timeout)
        for connection in list(shared.connections):
            connection.finish(Ending.DRAINED)
        await self._until(lambda: not shared.connections, DRAIN_LINGER_SECONDS)
        for connection in list(shared.connections):
            connection.abort(Ending.DRAINED)

    async def _until(self, fact: Callable[[], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not fact():
                    self._shared.changed.clear()
                    await self._shared.changed.wait()


def _call_soon(callback: Callable[..., object], *args: object) -> None:
    asyncio.get_running_loop().call_soon(callback, *args)
