"""This replica as sharing sees it: its memory, with the journal behind it.

What peers wrote goes into memory at once and into the journal soon: it was durable before we heard
of it, and the next start finds in Redis what the journal missed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from aggregator.store.records import row_key
from aligned.errors import Deposed, StateDamaged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from aggregator.batches import Batches
    from aggregator.journal.format import Fence
    from aggregator.journal.journal import Journal
    from aggregator.outbox import OutboxRow
    from aggregator.store.records import News, RowKey
    from aligned.model import BatchId, Entry, OperatorId, Signature

logger = logging.getLogger(__name__)

FORGOTTEN = 8192
"""Batches given up that are remembered: a peer may give them up a block later, and until then it
tells of them again and again."""

MAX_WRITES = 4096
"""Writes that may wait for the journal beside lazy entries."""


class Held:
    """Implements ``Replica``; also keeps the outbox, which the chain's machinery knows by term.

    Args:
        batches: The memory.
        journal: The disk.
        rows: The outbox as the journal had it.
        height: The chain's height, for signatures whose batch is not on chain yet.
    """

    def __init__(
        self,
        batches: Batches,
        journal: Journal,
        rows: Iterable[OutboxRow],
        height: Callable[[], int],
    ) -> None:
        self._batches = batches
        self._journal = journal
        self._rows: dict[RowKey, OutboxRow] = {row_key(row): row for row in rows}
        self._height = height
        self._forgotten: dict[BatchId, None] = {}
        self._writes: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue(MAX_WRITES)

    # What sharing asks.

    def batch_ids(self) -> Sequence[BatchId]:
        return [state.batch_id for state in self._batches if state.signatures]

    def signatures(self, batch_id: BatchId) -> Mapping[OperatorId, Signature]:
        state = self._batches.get(batch_id)
        return {} if state is None else dict(state.signatures)

    def rows(self) -> Sequence[OutboxRow]:
        return list(self._rows.values())

    def hear(self, news: News) -> None:
        self._hear_entries(news.entries)
        for row in news.rows:
            self._hear_row(row)
        if news.dropped:
            known = [self._rows[key] for key in news.dropped if key in self._rows]
            self.drop(known)
            self._later(lambda: self._journal.drop_rows(known))
        if news.evicted:
            self._batches.evict(news.evicted)
            self._later(lambda: self._journal.evict(news.evicted))

    def _hear_entries(self, entries: Sequence[Entry]) -> None:
        wanted = [entry for entry in entries if not self._is_gone(entry.batch_id)]
        height = self._height()
        new = self._batches.keep(wanted, height=height)
        if new and not self._journal.append_lazily(new, height=height):
            self._later(lambda: self._journal.append(new, height=height))

    def _is_gone(self, batch_id: BatchId) -> bool:
        if self._batches.is_final(batch_id):
            return True
        state = self._batches.get(batch_id)
        return batch_id in self._forgotten and (state is None or state.batch is None)

    def _hear_row(self, row: OutboxRow) -> None:
        known = self._rows.get(row_key(row))
        if known is None or known.hash != row.hash:
            self.add(row)
            self._later(lambda: self._journal.record(row))

    # What the store tells.

    def add(self, row: OutboxRow) -> None:
        """Keep a row that the store has confirmed."""
        self._rows[row_key(row)] = row

    def drop(self, rows: Iterable[OutboxRow]) -> None:
        """Forget rows that nobody needs any more."""
        for row in rows:
            self._rows.pop(row_key(row), None)

    def forget(self, batch_ids: Iterable[BatchId]) -> None:
        """Take no more signatures of these from peers, unless the chain shows them after all."""
        self._forgotten.update(dict.fromkeys(batch_ids))
        while len(self._forgotten) > FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    def learn(self, fence: Fence) -> None:
        """Keep a fence that a peer or the store showed."""
        self._later(lambda: self._journal.claim(fence))

    # The journal.

    def _later(self, write: Callable[[], Awaitable[object]]) -> None:
        try:
            self._writes.put_nowait(write)
        except asyncio.QueueFull:
            logger.warning(
                "the journal is too slow for what peers write: this stays in memory and in Redis. "
                "Look at the disk"
            )

    async def run(self) -> NoReturn:
        """Write down what peers told, until cancelled.

        A disk that refuses is the journal's own to tell: see ``Journal.failed``.
        """
        while True:
            write = await self._writes.get()
            try:
                await write()
            except Deposed:
                continue  # the journal knows a later term
            except StateDamaged as damaged:
                logger.error(  # noqa: TRY400 - the text says all
                    "what a peer wrote does not fit this replica's journal; what is in Redis "
                    "counts. Check whether someone else uses the signer's key",
                    extra={"reason": str(damaged)},
                )
