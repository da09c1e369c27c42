"""The store of a single process: its journal is all there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.journal.format import Fence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.journal.journal import Journal
    from aggregator.outbox import OutboxRow
    from aligned.model import BatchId, Entry, Term


class SingleStore:
    """``Store`` over the journal of this process; its fence is the store's.

    ``StoreUnavailable`` never comes up: a journal that cannot be written raises ``DiskRefused``
    and ends the process.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def put(self, entries: Sequence[Entry]) -> None:
        """Do nothing: entries are shared after they were journalled, and nobody else reads."""

    async def claim(self, term: Term, holder: str) -> Sequence[OutboxRow]:
        return await self._journal.claim(Fence(term, holder))

    async def record(self, term: Term, holder: str, row: OutboxRow) -> None:
        await self._journal.record(row, fence=Fence(term, holder))

    async def drop_rows(self, term: Term, holder: str, rows: Sequence[OutboxRow]) -> None:
        await self._journal.drop_rows(rows, fence=Fence(term, holder))

    async def evict(self, term: Term, holder: str, entries: Sequence[Entry]) -> None:
        await self._journal.evict(entries, fence=Fence(term, holder))

    async def forget(self, batches: Sequence[BatchId]) -> None:
        await self._journal.forget(batches)
