"""The HTTP exchange that opens a net/rpc connection; pure.

Source: Go, package ``net/rpc``, ``Server.ServeHTTP`` and ``DialHTTPPath``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from aligned.errors import MalformedMessage

MAX_HEAD_BYTES = 4096
PATH = "/_goRPC_"
REQUEST = b"CONNECT /_goRPC_ HTTP/1.0\n\n"
"""As a Go client writes it: bare line feeds, no header."""
CONNECTED = b"HTTP/1.0 200 Connected to Go RPC\n\n"
"""As a Go server answers."""

_STATUS = "200 Connected to Go RPC"
_END = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+) (HTTP/1\.[01])\r?")
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([^\r]*)\r?")


class Answer(NamedTuple):
    """What the server says to a head."""

    data: bytes
    connected: bool
    """Whether net/rpc follows; else the connection ends after ``data``."""


def split(data: bytes) -> tuple[str, bytes] | None:
    """Return the first line of the head at the start of ``data`` and what follows the head.

    Returns:
        None while the head is incomplete.

    Raises:
        MalformedMessage: It is longer than 4 KiB.
    """
    end = _END.search(data, 0, MAX_HEAD_BYTES)
    if end is not None:
        return data[: data.index(b"\n")].decode("latin-1"), data[end.end() :]
    if len(data) >= MAX_HEAD_BYTES:
        raise MalformedMessage("the HTTP head is too long")
    return None


def answer(line: str) -> Answer:
    """Return the answer to a request that begins with ``line``, as Go's server with one route.

    Raises:
        MalformedMessage: It is no HTTP/1 request.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise MalformedMessage("the connection does not begin with an HTTP request")
    method, target, version = match.groups()
    if target.partition("?")[0] != PATH:
        return _error(version, "404 Not Found", "404 page not found\n")
    if method != "CONNECT":
        return _error(version, "405 Method Not Allowed", "405 must CONNECT\n")
    return Answer(CONNECTED, connected=True)


def _error(version: str, status: str, body: str) -> Answer:
    head = (
        f"{version} {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return Answer((head + body).encode(), connected=False)


def check_connected(line: str) -> None:
    """Return if ``line`` opens the answer of a net/rpc server.

    Raises:
        MalformedMessage: It does not; the text is that of a Go client.
    """
    match = _STATUS_LINE.fullmatch(line)
    if match is None or match[1] != _STATUS:
        status = match[1] if match else line
        raise MalformedMessage(f"unexpected HTTP response: {status[:100]}")
