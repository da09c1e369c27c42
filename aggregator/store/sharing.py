"""Anti-entropy: what this replica and the store know becomes the same, whatever failed.

Three loops. A new lineage of the primary means that it may have forgotten anything: the fence and
everything unresolved are written again. The stream brings what peers wrote within milliseconds.
Every ten seconds both sides are compared whole, which catches what the other two missed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from aggregator.ports import OutboxUnreadable
from aggregator.store.calls import Unconfirmed
from aggregator.store.records import News, row_key
from aggregator.store.redis import NEW
from aligned.errors import StoreUnavailable
from aligned.model import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aggregator.outbox import OutboxRow
    from aggregator.store.redis import RedisStore
    from aligned.model import BatchId, OperatorId, Signature

logger = logging.getLogger(__name__)

UNION_SECONDS = 10.0
CHUNK = 200
"""Entries in one write of a merge."""

BATCHES = 16
"""Batches read in one exchange of a union."""

RETRY_SECONDS = 0.25

_NEWS = 32
"""Records of the stream read at once: each has up to 256 entries."""
_BLOCK_MILLISECONDS = 1000
_NEWS_SECONDS = 2.5
"""For a read of the stream that waits up to ``_BLOCK_MILLISECONDS``."""


class Replica(Protocol):
    """What this replica knows, and what it is told. All methods return at once."""

    def batch_ids(self) -> Sequence[BatchId]:
        """Return the ids of all unresolved batches with signatures."""

    def signatures(self, batch_id: BatchId) -> Mapping[OperatorId, Signature]:
        """Return the signatures held for a batch; none if it is resolved or unknown."""

    def rows(self) -> Sequence[OutboxRow]:
        """Return the outbox as known here, without what ``catch_up`` has not looked at yet."""

    async def settle(self) -> None:
        """Forget rows that the chain has settled; while the chain is away, none."""

    async def catch_up(self) -> None:
        """Wait until the chain has said what of the journal is settled; the rest is shared then.

        Repeats are free.
        """

    def hear(self, news: News) -> None:
        """Take what a peer wrote, or what the store holds; most of it may be known."""


@dataclass(slots=True)
class Progress:
    """Where sharing stands."""

    lineage: str = ""
    """The primary's, as last seen; empty before the first connection."""
    merged: str = ""
    """The lineage that everything was merged into last."""
    merges: int = 0
    restored: int = 0
    """Entries that a lineage had forgotten: without merging they would be lost. At least: writes
    without an answer are not counted."""
    unions: int = 0
    heard: int = 0
    """Records of the stream that peers wrote."""


class Sharing:
    """Keeps ``replica`` and ``store`` the same."""

    def __init__(self, store: RedisStore, replica: Replica) -> None:
        self._store = store
        self._lineage = store.primary.lineage
        self._replica = replica
        self._switched = asyncio.Event()
        self._away = False
        self._pushed = 0
        self._caught_up = False
        self.progress = Progress()

    @property
    def is_away(self) -> bool:
        """The store did not answer when it was looked at last."""
        return self._away

    @property
    def is_merged(self) -> bool:
        """Everything this replica holds is in the primary that was seen last."""
        merged = self.progress.merged
        return self._caught_up and bool(merged) and merged == self._lineage.now

    async def run(self) -> NoReturn:
        """Share until cancelled.

        Raises:
            StateMismatch: The store holds another deployment's state. The process must end.
        """
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._store.primary.watch(self._switched.set), name="sentinel-news")
            loops.create_task(self._again(self._follow_switch), name="switch")
            loops.create_task(self._again(self._look), name="lineage")
            loops.create_task(self._again(self._merge_lineage), name="re-merge")
            loops.create_task(self._catch_up(), name="catch-up")
            loops.create_task(self._again(self._listen), name="peer-tail")
            await self._again(self._unite_in_turn)

    async def _again(self, step: Callable[[], Awaitable[None]]) -> NoReturn:
        """Repeat ``step``; an absent store is waited for."""
        while True:
            try:
                await step()
            except StoreUnavailable as unavailable:
                self._tell_away(unavailable)
                await asyncio.sleep(RETRY_SECONDS)

    def _tell_away(self, reason: StoreUnavailable) -> None:
        if not self._away:
            self._away = True
            logger.warning(
                "the shared store is away: signatures are kept in the journal and shared when it "
                "is back. Check Redis, Sentinel and the network to them",
                extra={"reason": str(reason)},
            )

    async def _look(self) -> None:
        await self._store.primary.look()
        if self._away:
            self._away = False
            logger.info("the shared store is back", extra={"lineage": self._lineage.now})
        await self._store.primary.rest()

    async def _follow_switch(self) -> None:
        await self._switched.wait()
        self._switched.clear()
        await self._store.primary.look()

    # A new lineage.

    async def _merge_lineage(self) -> None:
        lineage = await self._lineage.change()
        while self.progress.merged != lineage:
            self.progress.lineage = lineage
            before = self._pushed
            await self._merge_until_done()
            restored = self._pushed - before
            if restored and self.progress.merges:
                logger.warning(
                    "the primary had forgotten signatures; they were restored. Nothing is to be "
                    "done after a failover or restart; without one, find out who deletes keys",
                    extra={"restored": restored, "lineage": lineage},
                )
            self.progress.merges += 1
            self.progress.restored += restored
            self.progress.merged, lineage = lineage, self._lineage.now

    async def _catch_up(self) -> None:
        await self._replica.catch_up()
        await self._merge_until_done()
        self._caught_up = True

    async def _merge_until_done(self) -> None:
        while True:
            try:
                await self.merge()
            except StoreUnavailable as unavailable:
                self._tell_away(unavailable)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def merge(self) -> None:
        """Write everything this replica holds and the chain has not settled.

        Raises:
            StoreUnavailable: Not all of it was confirmed.
        """
        await self._push([])  # restores the fence, as every write does
        waiting: list[Entry] = []
        for batch_id in self._replica.batch_ids():
            waiting += _entries(batch_id, self._replica.signatures(batch_id))
            if len(waiting) >= CHUNK:
                await self._push(waiting)
                waiting = []
        await self._replica.settle()
        await self._push(waiting, self._replica.rows())

    async def _push(self, entries: Sequence[Entry], rows: Sequence[OutboxRow] = ()) -> None:
        for start in range(0, max(len(entries), 1), CHUNK):
            some = entries[start : start + CHUNK]
            try:
                placed = await self._store.merge(some, rows if start == 0 else ())
            except Unconfirmed as unconfirmed:
                if isinstance(unconfirmed.reply, bytes):
                    self._pushed += unconfirmed.reply[: len(some)].count(NEW)
                raise
            self._pushed += placed.new
            if placed.refuted:
                self._replica.hear(News(evicted=placed.refuted))

    # What peers wrote.

    async def _listen(self) -> None:
        async with self._store.primary.link() as link:
            after = b"0-0"  # a connection is of one lineage; another lineage has another stream
            while True:
                try:
                    async with asyncio.timeout(_NEWS_SECONDS):
                        after, news = await self._store.news(
                            link, after, limit=_NEWS, block_milliseconds=_BLOCK_MILLISECONDS
                        )
                except TimeoutError as error:
                    msg = "the primary fell silent"
                    raise StoreUnavailable(msg) from error
                for one in news:
                    self.progress.heard += 1
                    self._replica.hear(one)

    # Both sides whole.

    async def _unite_in_turn(self) -> None:
        await asyncio.sleep(UNION_SECONDS)
        await self.unite()

    async def unite(self) -> None:
        """Bring what only one side has to the other; also before a new leader's first answer.

        Signatures are shared beside an outbox that cannot be read: that is a leader's matter.

        Raises:
            StoreUnavailable: Not finished.
        """
        stored_ids = await self._store.batch_ids()
        ids = list({*self._replica.batch_ids(), *stored_ids})
        for start in range(0, len(ids), BATCHES):
            chunk = ids[start : start + BATCHES]
            for batch_id, stored in (await self._store.signatures(chunk)).items():
                await self._unite_batch(batch_id, stored)
        with suppress(OutboxUnreadable):
            await self._unite_rows()
        self.progress.unions += 1

    async def _unite_batch(self, batch_id: BatchId, stored: Mapping[OperatorId, Signature]) -> None:
        held = self._replica.signatures(batch_id)
        missing_here = {one: value for one, value in stored.items() if one not in held}
        missing_there = {one: value for one, value in held.items() if one not in stored}
        if missing_here:
            self._replica.hear(News(entries=tuple(_entries(batch_id, missing_here))))
        if missing_there:
            await self._push(_entries(batch_id, missing_there))

    async def _unite_rows(self) -> None:
        stored = {row_key(row): row for row in await self._store.rows()}
        held = {row_key(row): row for row in self._replica.rows()}
        missing_here = [
            row for key, row in stored.items() if key not in held or held[key].hash != row.hash
        ]
        if missing_here:
            self._replica.hear(News(rows=tuple(missing_here)))
        if held.keys() <= stored.keys():
            return
        await self._replica.settle()  # a leader drops rows that peers who are away still have
        missing_there = [row for row in self._replica.rows() if row_key(row) not in stored]
        if missing_there:
            await self._push([], missing_there)


def _entries(batch_id: BatchId, signatures: Mapping[OperatorId, Signature]) -> list[Entry]:
    return [Entry(batch_id, operator_id, value) for operator_id, value in signatures.items()]
