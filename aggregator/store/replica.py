"""This replica as sharing sees it: its memory, with the journal behind it.

What peers wrote goes into memory at once and into the journal soon: it was durable before we heard
of it, and the next start finds in Redis what the journal missed.

What the chain has settled is not shared. A journal that was away may be full of it: nothing of one
is shared before the chain was asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from aggregator.store.records import row_key
from aligned.errors import ChainUnavailable, Deposed, StateDamaged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from aggregator.batches import Batches, BatchState
    from aggregator.journal.format import Fence
    from aggregator.journal.journal import Journal
    from aggregator.outbox import OutboxRow
    from aggregator.store.records import News, RowKey
    from aligned.model import Address, BatchId, Entry, OperatorId, Signature

logger = logging.getLogger(__name__)

FORGOTTEN = 8192
"""Batches given up that are remembered: a peer may give them up a block later, and until then it
tells of them again and again."""

MAX_WRITES = 4096
"""Writes that may wait for the journal beside lazy entries."""


_CHAIN_RETRY_SECONDS = 1.0


class Chain(Protocol):
    """What the chain says of things remembered."""

    @property
    def height(self) -> int:
        """Its newest block; 0 before the first look."""

    async def known(self) -> None:
        """Return once it has told of every batch that memory holds."""

    def is_settled(self, state: BatchState) -> bool:
        """Tell whether nobody needs the signatures of a batch any more. Memory only."""

    async def used(self, account: Address) -> int:
        """Return how many nonces of ``account`` were used for good; 0 where nobody can tell.

        Raises:
            ChainUnavailable: No endpoint answers.
        """


class Held:
    """Implements ``Replica``; also keeps the outbox, which the chain's machinery knows by term.

    Args:
        batches: The memory.
        journal: The disk.
        rows: The outbox as the journal had it.
        remembered: Batches of which the journal had signatures.
        chain: Says what of all that is settled.
    """

    def __init__(
        self,
        batches: Batches,
        journal: Journal,
        chain: Chain,
        rows: Iterable[OutboxRow] = (),
        remembered: Iterable[BatchId] = (),
    ) -> None:
        self._batches = batches
        self._journal = journal
        self._rows: dict[RowKey, OutboxRow] = {row_key(row): row for row in rows}
        self._chain = chain
        self._unasked_rows = set(self._rows)
        self._unasked = set(remembered)
        self._asking = asyncio.Lock()
        self._forgotten: dict[BatchId, None] = {}
        self._writes: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue(MAX_WRITES)

    # What sharing asks.

    def batch_ids(self) -> Sequence[BatchId]:
        return [one.batch_id for one in self._batches if one.signatures and self._is_shared(one)]

    def signatures(self, batch_id: BatchId) -> Mapping[OperatorId, Signature]:
        state = self._batches.get(batch_id)
        return dict(state.signatures) if state is not None and self._is_shared(state) else {}

    def _is_shared(self, state: BatchState) -> bool:
        return state.batch_id not in self._unasked and not self._chain.is_settled(state)

    def rows(self) -> Sequence[OutboxRow]:
        return [row for key, row in self._rows.items() if key not in self._unasked_rows]

    @property
    def is_caught_up(self) -> bool:
        """The chain has said what of the journal is settled: ``catch_up`` waits for nothing."""
        return not self._unasked and not self._unasked_rows

    async def catch_up(self) -> None:
        async with self._asking:
            if self.is_caught_up:
                return
            await self._chain.known()
            while not await self._settled(list(self._rows.values())):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(_CHAIN_RETRY_SECONDS)
            self._unasked.clear()
            self._unasked_rows.clear()

    async def settle(self) -> None:
        await self._settled(self.rows())

    async def _settled(self, rows: Sequence[OutboxRow]) -> bool:
        """Forget those of ``rows`` whose nonce was used for good; tell whether that is known."""
        for sender in {row.sender for row in rows}:
            try:
                used = await self._chain.used(sender)
            except ChainUnavailable:
                return False
            self._drop_everywhere([r for r in rows if r.sender == sender and r.nonce < used])
        return True

    def hear(self, news: News) -> None:
        self._hear_entries(news.entries)
        for row in news.rows:
            self._hear_row(row)
        if news.dropped:
            self._drop_everywhere([self._rows[key] for key in news.dropped if key in self._rows])
        if news.evicted:
            self._batches.evict(news.evicted)
            self._later(lambda: self._journal.evict(news.evicted))

    def _hear_entries(self, entries: Sequence[Entry]) -> None:
        wanted = [entry for entry in entries if not self._is_gone(entry.batch_id)]
        height = self._chain.height
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
            self._later(lambda: self.write_down(row))

    def _drop_everywhere(self, rows: Sequence[OutboxRow]) -> None:
        if rows:
            self.drop(rows)
            self._later(lambda: self._journal.drop_rows(rows))

    # What the store tells.

    def add(self, row: OutboxRow) -> None:
        """Keep a row that the store has confirmed."""
        self._rows[row_key(row)] = row
        self._unasked_rows.discard(row_key(row))

    def drop(self, rows: Iterable[OutboxRow]) -> None:
        """Forget rows that nobody needs any more."""
        for row in rows:
            self._rows.pop(row_key(row), None)
            self._unasked_rows.discard(row_key(row))

    def forget(self, batch_ids: Iterable[BatchId]) -> None:
        """Take no more signatures of these from peers, unless the chain shows them after all."""
        self._forgotten.update(dict.fromkeys(batch_ids))
        while len(self._forgotten) > FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    def learn(self, fence: Fence) -> None:
        """Keep a fence that a peer or the store showed."""
        self._later(lambda: self._journal.claim(fence))

    # The journal.

    async def write_down(self, row: OutboxRow) -> None:
        """Journal a row that the store has confirmed.

        The store is fenced and its rows are write-once, so its word counts against a journal's.

        Raises:
            DiskRefused: The disk refused.
        """
        replaced = await self._journal.settle_row(row)
        if replaced is not None:
            logger.error(
                "the journal held another transaction under the key of one that the shared store "
                "confirmed: the store's counts, the journal keeps the other as a hint. Check "
                "whether someone else signs with this key; if not, nothing is to do",
                extra={
                    "nonce": row.nonce,
                    "attempt": row.attempt,
                    "transaction": row.hash,
                    "replaced": replaced.hash,
                },
            )

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

        Raises:
            DiskRefused: The process must end, as ``Journal.failed`` has it, too.
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
