"""Edge: one Lease at the Kubernetes API server.

No client package: the async ones have no request timeout and their electors no terms. Needs the
rights to get, watch and update that one Lease; it is created by whoever deploys us.
"""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp

from aggregator.leadership import lease
from aggregator.leadership.lock import LockAway, LockTaken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path
    from ssl import SSLContext

    from aggregator.leadership.election import Record
    from aggregator.leadership.lock import Held

_OK = 200
_CONFLICT = 409
_WATCH_SECONDS = 60
"""The API server ends a watch after so long; another is begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAt:
    """Where the Lease is and how to get there."""

    server: str
    """URL of the API server without a path."""
    namespace: str
    name: str
    token_file: Path | None = None
    """Read at every request: projected tokens are renewed."""
    ssl: SSLContext | None = None
    """None: plain HTTP, or the system's authorities."""


class KubernetesLock:
    """See ``Lock``."""

    def __init__(self, where: LeaseAt) -> None:
        self._where = where
        self._session: aiohttp.ClientSession | None = None
        self._path = (
            f"{where.server.rstrip('/')}/apis/coordination.k8s.io/v1"
            f"/namespaces/{quote(where.namespace)}/leases"
        )
        self._object = f"{self._path}/{quote(where.name)}"

    async def read(self) -> Held:
        async with self._request("GET", self._object) as response:
            return lease.parse(await response.json())

    async def write(self, seen: Held, record: Record) -> Held:
        body = lease.render(seen, record, time.time())
        async with self._request("PUT", self._object, body=body) as response:
            return lease.parse(await response.json())

    async def watch(self) -> AsyncGenerator[Held, None]:
        """Yield the Lease as it is, then each change of it; see ``Lock.watch``.

        Raises:
            LockAway: It cannot be watched, or was deleted.
        """
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._where.name}",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        async with self._request("GET", self._path, query=query) as response:
            async for line in response.content:
                event = json.loads(line)
                if event.get("type") not in {"ADDED", "MODIFIED"}:
                    msg = f"the watch of the Lease ended with {event.get('type')}"
                    raise LockAway(msg)
                yield lease.parse(event["object"])

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        *,
        body: lease.Lease | None = None,
        query: dict[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; the body of the ``with`` reads an answer that is good.

        Raises:
            LockTaken: The object is another one than ours was made from.
            LockAway: Anything else that is not good.
        """
        if self._session is None:
            # The callers' deadlines count; a watch has none.
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                params=query,
                headers=self._headers(),
                ssl=self._where.ssl or True,
            ) as response:
                if response.status == _CONFLICT:
                    raise LockTaken
                if response.status != _OK:
                    text = (await response.text())[:200]
                    msg = f"the API server answered {response.status}: {text}"
                    raise LockAway(msg)
                try:
                    yield response
                finally:
                    _abandon(response)
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as error:
            msg = f"the API server cannot be used: {error!r}"
            raise LockAway(msg) from error

    def _headers(self) -> dict[str, str]:
        if self._where.token_file is None:
            return {}
        # Blocks for a file in memory; this loop is the elector's own.
        return {"Authorization": f"Bearer {self._where.token_file.read_text().strip()}"}

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _abandon(response: aiohttp.ClientResponse) -> None:
    """Close the connection of an answer that was not read to its end, e.g. a watch, at once.

    In good order it would wait for the server, and outlive the elector's loop.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
