"""The asyncio side of the journal: hand work to the writer, hear when it is on disk."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

from aggregator.journal import opening, reading
from aggregator.journal.writer import Action, Append, Writer
from aligned.errors import StateDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from aggregator.journal.content import Content
    from aggregator.journal.format import Fence
    from aggregator.journal.reading import Loaded
    from aggregator.journal.writer import Counts, Outcome
    from aggregator.outbox import OutboxRow
    from aligned.errors import DiskRefused
    from aligned.model import BatchId, BlockRef, Entry, Identity, Operator

logger = logging.getLogger(__name__)

LAZY_LIMIT = 65_536
"""Peers' entries that may wait for the disk."""

CLOSE_TIMEOUT = 10.0
"""Seconds for the last commit and checkpoint."""

Result = TypeVar("Result")


class Journal:
    """One replica's file of signatures, outbox rows and the fence.

    Each write returns when an fsync has covered it. Work is done in the order in which it was
    handed over; what is handed over while a commit runs shares the next one. A write survives
    the cancellation of whoever waits for it. Methods belong to one event loop.

    The file keeps its largest size: pages of finished batches are used again, not given back.

    Resource handling:
        ``close`` releases the file and the thread, also after a failure.

    Error handling:
        When the disk refuses a write, everything that waits and every later call raises
        ``DiskRefused``, and so does ``failed``, which the daemon awaits in order to end. A bug in
        the writer is told in the same way, as ``StateDamaged``.
    """

    def __init__(self, path: Path, lock: opening.Lock, connection: sqlite3.Connection) -> None:
        """See ``open``."""
        self.path = path
        self._lock = lock
        self._writer = Writer(path, connection, self._committed, self._died)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed = asyncio.Event()
        self._error: DiskRefused | StateDamaged | None = None
        self._closed = False
        self._lazy = 0
        self._writer.start()

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Identity,
        *,
        filesystem: Callable[[Path], str | None] = opening.filesystem_of,
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> Self:
        """Open the journal of ``identity`` at ``path``; an absent or empty file becomes one.

        Blocks while it reads and checks the whole file: measured, 40 ms for 20,000 signatures.

        Raises:
            BadConfiguration: The path cannot hold a journal, or another process uses it.
            DiskRefused: The disk is full or fails; the file is as it was.
            StateDamaged: The file is damaged; the message says how to go on.
            StateMismatch: It is another deployment's, was moved by an export, or is of a newer
                release.
        """
        opening.check_place(path, filesystem)
        lock = opening.Lock(path)
        try:
            connection = opening.connect(path, connection_class)
            try:
                with reading.damage_reported(path):
                    opening.check_identity(path, connection, identity)
                    return cls(path, lock, connection)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            lock.release()
            raise

    @property
    def fence(self) -> Fence:
        """The newest claimed term and its holder; term 0 before the first."""
        return self._writer.tables.fence

    @property
    def counts(self) -> Counts:
        """What the writer did so far, and since when it has been at the present commit."""
        return self._writer.counts

    def load(self) -> Loaded:
        """Return everything on disk. Blocks: measured, 45 ms for 20,000 signatures.

        Raises:
            DiskRefused: The disk is full or fails.
            StateDamaged: A checksum does not fit, or a row cannot be read.
        """
        with opening.read_only(self.path) as connection:
            return reading.load(connection)

    async def append(self, entries: Sequence[Entry], *, height: int) -> None:
        """Keep entries that this replica verified. Those already on disk cost no write.

        Args:
            entries: Not changed by the caller from now on.
            height: The chain's, from which entries of batches not on chain grow old.

        Raises:
            DiskRefused: The disk refused. Part of them may be there all the same.
        """
        if entries:
            waiter = self._waiter()
            self._writer.put(Append(entries, height, waiter))
            await waiter

    def append_lazily(self, entries: Sequence[Entry], *, height: int) -> bool:
        """Keep entries of peers without waiting; False if ``LAZY_LIMIT`` wait already.

        Raises:
            DiskRefused: The disk refused an earlier write.
        """
        self._bind()
        if self._lazy + len(entries) > LAZY_LIMIT:
            return False
        self._lazy += len(entries)
        self._writer.put(Append(entries, height, None))
        return True

    async def record(self, row: OutboxRow, *, fence: Fence | None = None) -> None:
        """Write one outbox row, write-once: the same key with the same bytes is a repeat.

        Args:
            row: What is about to be broadcast.
            fence: Where the journal is the store, the term that must still hold.

        Raises:
            Deposed: ``fence`` is not the journal's. Nothing was written.
            DiskRefused: The disk refused.
            StateDamaged: The key holds other bytes. Nothing was written.
        """
        await self._do(lambda tables: tables.record(row, fence))

    async def settle_row(self, row: OutboxRow) -> OutboxRow | None:
        """Write one outbox row that the shared store confirmed, whatever its key holds here.

        Returns the other row that it replaced, whose transaction the file keeps as a hint.

        Raises:
            DiskRefused: The disk refused.
        """
        return await self._do(lambda tables: tables.settle_row(row))

    async def drop_rows(self, rows: Sequence[OutboxRow], *, fence: Fence | None = None) -> None:
        """Forget outbox rows. Same errors as ``record``."""
        await self._do(lambda tables: tables.drop_rows(rows, fence))

    async def evict(self, entries: Sequence[Entry], *, fence: Fence | None = None) -> None:
        """Delete exactly these entries and remember them as refuted. Same errors as ``record``."""
        await self._do(lambda tables: tables.evict(entries, fence))

    async def forget(self, batches: Sequence[BatchId]) -> None:
        """Delete all signatures of ``batches`` and what was refuted of them.

        Raises:
            DiskRefused: The disk refused.
        """
        await self._do(lambda tables: tables.forget(batches))

    async def claim(self, fence: Fence) -> Sequence[OutboxRow]:
        """Make ``fence`` the journal's and return the whole outbox, ascending by nonce.

        Raises:
            Deposed: The journal's is higher, or equal with another holder.
            DiskRefused: The disk refused.
        """
        return await self._do(lambda tables: tables.claim(fence))

    async def save_operators(self, operators: Sequence[Operator], progress: BlockRef) -> None:
        """Add or replace operators; from now on all up to ``progress`` are known.

        Raises:
            DiskRefused: The disk refused.
        """
        await self._do(lambda tables: tables.save_operators(operators, progress))

    async def save_hint(self, name: str, value: bytes) -> None:
        """Replace a cached value that can be derived again, such as the chain cursor.

        Raises:
            DiskRefused: The disk refused.
        """
        await self._do(lambda tables: tables.save_hint(name, value))

    async def failed(self) -> None:
        """Wait for the journal's failure; never returns otherwise.

        Raises:
            DiskRefused: The disk refused a write. The process must end.
        """
        self._loop = asyncio.get_running_loop()
        await self._failed.wait()
        self._demand()

    def close(self) -> None:
        """Commit what was handed over, checkpoint, release the file. Repeats do nothing.

        Blocks for at most ``CLOSE_TIMEOUT``; nobody should wait for a write any more.
        """
        if self._closed:
            return
        self._closed = True
        if not self._writer.stop(CLOSE_TIMEOUT):
            logger.error(
                "journal did not close: the disk hangs; look for I/O errors in the system log",
                extra={"path": str(self.path), "seconds": CLOSE_TIMEOUT},
            )
        self._lock.release()

    async def _do(self, apply: Callable[[Content], Result]) -> Result:
        waiter = self._waiter()
        self._writer.put(Action(apply, waiter))
        result: Result = await waiter
        return result

    def _waiter(self) -> asyncio.Future[Any]:
        return self._bind().create_future()

    def _bind(self) -> asyncio.AbstractEventLoop:
        self._demand()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _demand(self) -> None:
        if self._error is not None:
            raise type(self._error)(str(self._error)) from self._error
        if self._closed:
            msg = "the journal is closed"
            raise RuntimeError(msg)

    # Called by the writer's thread.

    def _committed(self, outcomes: list[Outcome]) -> None:
        self._call(self._settle, outcomes)

    def _died(self, error: DiskRefused | None) -> None:
        bug = StateDamaged(f"journal {self.path}: the writer ended by a bug; see the traceback")
        self._call(self._settle_failure, error or bug)

    def _call(self, function: Callable[[Any], None], argument: object) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, argument)

    # Called in the loop.

    def _settle(self, outcomes: list[Outcome]) -> None:
        for work, result, error in outcomes:
            waiter = work.waiter
            if waiter is None:
                self._lazy -= work.size
            elif waiter.done():
                continue  # cancelled
            elif error is None:
                waiter.set_result(result)
            else:
                waiter.set_exception(error)

    def _settle_failure(self, error: DiskRefused | StateDamaged) -> None:
        self._error = error
        self._failed.set()
        for work in self._writer.drain():
            if work.waiter is not None and not work.waiter.done():
                work.waiter.set_exception(type(error)(str(error)))
