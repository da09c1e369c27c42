"""Edge: JSON bodies over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, Self

import aiohttp

if TYPE_CHECKING:
    from types import TracebackType

BODY_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of an answer that are read at most."""
_CONNECTIONS_PER_HOST: Final = 16


class TransportFailed(Exception):
    """No answer came; the message has no URL in it."""


class Transport(Protocol):
    """Carries one body there and one back."""

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Return HTTP status and body of the answer. The caller sets the deadline.

        Raises:
            TransportFailed: There was no whole answer.
        """


class Http:
    """``Transport`` over a session of its own.

    Resource handling: the session lives as long as the ``async with``.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=_CONNECTIONS_PER_HOST),
            headers={"Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        """See ``Transport.post``.

        Raises:
            TransportFailed: There was no whole answer, or the session is closed.
        """
        if self._session is None:
            msg = "the HTTP session is closed"
            raise TransportFailed(msg)
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                return response.status, await read(response, BODY_LIMIT)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The library's own texts may hold the URL, and with it a key: neither they nor the
            # cause go any further.
            raise TransportFailed(_reason(error)) from None


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the whole body, however many pieces it comes in.

    Raises:
        aiohttp.ClientError: It was cut.
        TransportFailed: It is longer than ``limit`` bytes.
    """
    parts = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > limit:
            msg = f"the answer is longer than {limit} bytes"
            raise TransportFailed(msg)
        parts.append(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or type(error.os_error).__name__}"
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return "the URL is not valid"
    return f"the connection broke ({type(error).__name__})"
