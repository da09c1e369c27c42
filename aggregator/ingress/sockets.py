"""Options of sockets."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEEP_ALIVE_SECONDS = 15
_PROBES = 4
_USER_TIMEOUT_MS = 30_000
_RECEIVE_BYTES = 1 << 15
"""The calls that one connection may have open fit in; what a peer makes us hold is bounded."""


class Tunable(Protocol):
    """A socket, or what stands for one in an event loop."""

    def setsockopt(self, level: int, optname: int, value: int, /) -> None: ...


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
