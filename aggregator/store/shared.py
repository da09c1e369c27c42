"""The store of several replicas: Redis decides, the journal keeps what it confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.journal.format import Fence
from aggregator.ports import RowTaken
from aggregator.store.records import row_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.journal.journal import Journal
    from aggregator.outbox import OutboxRow
    from aggregator.store.redis import RedisStore
    from aggregator.store.replica import Held
    from aggregator.store.sharing import Sharing
    from aligned.model import BatchId, Entry, Term


class SharedStore:
    """See ``Store``.

    Redis comes first: a journal must not hold a leader's write that the fence refused, because
    everything in journals is merged into Redis again after a loss.

    Args:
        redis: The shared set.
        journal: This replica's disk; entries are journalled before they are put.
        held: What this replica knows.
        sharing: Keeps both the same.
        claimed: Is told of every term that has begun with everything there is.
    """

    def __init__(
        self,
        redis: RedisStore,
        journal: Journal,
        held: Held,
        sharing: Sharing,
        claimed: Callable[[Term], None] = lambda _: None,
    ) -> None:
        self._redis = redis
        self._journal = journal
        self._held = held
        self._sharing = sharing
        self._claimed = claimed

    async def put(self, entries: Sequence[Entry]) -> None:
        await self._redis.put(entries)

    async def claim(self, term: Term, holder: str) -> Sequence[OutboxRow]:
        """See ``Store.claim``; also unites both sides, so that a term begins with everything.

        The wait for the chain has no deadline of its own. Who was elected has nothing to wait for:
        until then it was not fit. Who leads without an election keeps nobody else from leading.

        Raises:
            Deposed: The fence is higher, or equal with another holder.
            StoreUnavailable: Not confirmed in time, or a row cannot be read.
        """
        claimed = await self._redis.claim(term, holder)
        await self._journal.claim(Fence(term, holder))
        await self._held.catch_up()
        await self._sharing.unite()
        rows = {row_key(row): row for row in self._held.rows()}
        rows |= {row_key(row): row for row in claimed}
        self._claimed(term)
        return [rows[key] for key in sorted(rows)]

    async def record(self, term: Term, holder: str, row: OutboxRow) -> None:
        """See ``Store.record``; what the fenced store took is right, whatever a journal holds.

        Raises:
            Deposed: (``term``, ``holder``) is not the fence. Nothing was written.
            RowTaken: The key holds other bytes, which this replica knows now.
            StoreUnavailable: Not confirmed in time.
        """
        try:
            await self._redis.record(term, holder, row)
        except RowTaken:
            await self._sharing.unite()
            raise
        self._held.add(row)
        await self._held.write_down(row)

    async def drop_rows(self, term: Term, holder: str, rows: Sequence[OutboxRow]) -> None:
        await self._redis.drop_rows(term, holder, rows)
        await self._journal.drop_rows(rows)
        self._held.drop(rows)

    async def evict(self, term: Term, holder: str, entries: Sequence[Entry]) -> None:
        await self._redis.evict(term, holder, entries)
        await self._journal.evict(entries)

    async def forget(self, batches: Sequence[BatchId]) -> None:
        self._held.forget(batches)
        await self._redis.forget(batches)
