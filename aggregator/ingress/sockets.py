"""Options of sockets."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

SPARE_FILES = 256
"""Open files beside operators' connections: journal, chain endpoints, telemetry."""

_KEEP_ALIVE_SECONDS = 15
_PROBES = 4
_USER_TIMEOUT_MS = 30_000
_RECEIVE_BYTES = 1 << 15
"""The calls that one connection may have open fit in; what a peer makes us hold is bounded."""


class Tunable(Protocol):
    """A socket, or what stands for one in an event loop."""

    def setsockopt(self, level: int, optname: int, value: int, /) -> None: ...


def room_for(connections: int) -> int:
    """Return how many of so many connections this process may have, after raising its own limit.

    Beyond the limit of open files nothing else of the process could open one either, and the event
    loop would say nothing about it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    room = max(1, allowed - min(SPARE_FILES, allowed // 2))
    if room < connections:
        logger.warning(
            "fewer connections than configured: raise the limit of open files (ulimit -n, "
            "LimitNOFILE) or lower listen.max_connections",
            extra={"connections": room, "configured": connections, "open_files": allowed},
        )
    return min(room, connections)


def tune_listening(sock: Tunable) -> None:
    """Bound the receive buffers of the connections that ``sock`` will accept."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)


def tune(sock: Tunable) -> None:
    """Notice dead peers within about a minute, and send replies at once."""
    for level, name, value in _options():
        # Some systems refuse options on a connection that the peer has reset already.
        with contextlib.suppress(OSError):
            sock.setsockopt(level, name, value)


def _options() -> Iterator[tuple[int, int, int]]:
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    yield socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    if sys.platform == "linux":
        yield socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE_SECONDS
        yield socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_ALIVE_SECONDS
        yield socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES
        yield socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS
