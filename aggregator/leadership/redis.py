"""The election over the shared store, where there is no Kubernetes.

Redis may forget or fork the record in a failover: two replicas may then believe in their lease at
once. Terms and the fence keep that harmless, as they do where the lock is better than this.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Protocol

from aggregator.leadership.election import Record
from aggregator.leadership.lock import Held, LockAway, LockTaken
from aligned.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_POLL_SECONDS = 0.2


class Swapped(Protocol):
    """The record in the store after a try to change it."""

    @property
    def swapped(self) -> bool: ...

    @property
    def version(self) -> str: ...

    @property
    def record(self) -> bytes: ...


class Swaps(Protocol):
    """What the store does for the election."""

    async def swap(self, version: str, next_version: str, record: bytes) -> Swapped:
        """Write ``record`` if ``version`` is there (empty: nothing); no next version: read.

        Raises:
            StoreUnavailable: No answer in time. It may have been swapped all the same.
        """

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""


class RedisLock:
    """See ``Lock``. Owns ``store``, which must be of the same event loop."""

    def __init__(self, store: Swaps) -> None:
        self._store = store

    async def read(self) -> Held:
        found = await self._swap("", "", b"")
        return Held(_parse(found.record), found.version)

    async def write(self, seen: Held, record: Record) -> Held:
        """See ``Lock.write``. Versions are random: one that a failover forgot never comes back.

        Raises:
            LockTaken: It is another one.
            LockAway: It cannot be written, or whether it was is not known.
        """
        packed = json.dumps(
            {
                "holder": record.holder,
                "term": record.term,
                "lease": record.lease,
                "handover_to": record.handover_to,
                "fenced": sorted(record.fenced),
            }
        ).encode()
        found = await self._swap(seen.version, secrets.token_hex(8), packed)
        if not found.swapped:
            raise LockTaken
        return Held(record, found.version)

    async def watch(self) -> AsyncGenerator[Held, None]:
        """See ``Lock.watch``: reads five times a second."""
        version = None
        while True:
            held = await self.read()
            if held.version != version:
                version = held.version
                yield held
            await asyncio.sleep(_POLL_SECONDS)

    async def _swap(self, version: str, next_version: str, record: bytes) -> Swapped:
        try:
            return await self._store.swap(version, next_version, record)
        except StoreUnavailable as error:
            raise LockAway(str(error)) from error

    async def aclose(self) -> None:
        await self._store.aclose()


def _parse(packed: bytes) -> Record:
    """Return the record; one that cannot be read is none."""
    try:
        fields = json.loads(packed or b"{}")
        return Record(
            holder=str(fields.get("holder", "")),
            term=int(fields.get("term", 0)),
            lease=float(fields.get("lease", 0.0)),
            handover_to=str(fields.get("handover_to", "")),
            fenced=frozenset(fields.get("fenced", ())),
        )
    except (ValueError, AttributeError, TypeError):
        return Record()
