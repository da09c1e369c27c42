"""The one thread that writes. Everything that waits while a commit runs shares the next one."""

from __future__ import annotations

import ctypes
import sqlite3
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from aggregator.journal import content, reading
from aligned.errors import AlignedError, DiskRefused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aggregator.journal.content import Content
    from aligned.model import Entry

GROUP = 4096
"""Entries after which a group is closed: some 0.5 MB."""

CHECKPOINT_SIZE = 4 * 1024 * 1024
"""Estimated bytes in the WAL after which they are copied into the main file."""

COMMIT_SIZE = 12 * 1024
"""Estimated bytes of the pages that each commit touches whatever it brings."""

Result = TypeVar("Result")


class Append(NamedTuple):
    """Add signatures."""

    entries: Sequence[Entry]
    height: int
    waiter: asyncio.Future[Any] | None
    """None: nobody waits."""

    @property
    def size(self) -> int:
        """In entries."""
        return len(self.entries)


class Action(NamedTuple):
    """Do something else to the tables, between the work before and after it."""

    apply: Callable[[Content], Any]
    waiter: asyncio.Future[Any]
    size: int = 1


Work: TypeAlias = Append | Action


class Outcome(NamedTuple):
    """What became of one piece of work, once its group is on disk."""

    work: Work
    result: Any
    error: AlignedError | None


@dataclass(slots=True)
class Counts:
    """What the writer did since it started. Read by other threads, written by its own."""

    commits: int = 0
    """Groups made durable; repeats alone need none."""
    checkpoints: int = 0
    busy_since: float | None = None
    """Monotonic time at which the commit began that now runs; None between commits."""


class Writer:
    """Takes work from a queue, commits it in groups, reports each group with one call.

    Error handling:
        The first failed write or fsync ends the thread. Nothing is tried again: after a failed
        fsync the kernel may have dropped what it could not write, and a second one lies. The
        connection is then kept for ever, since closing it would write a checkpoint; the process
        is expected to end, and the next start finds every group that was reported.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        report: Callable[[list[Outcome]], None],
        fail: Callable[[DiskRefused | None], None],
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            path: For messages.
            connection: Handed over: nobody else uses it until the thread has ended.
            report: Called in the thread after each commit, with work in the order of arrival.
            fail: Called in the thread when it ends by an error; None for a bug, which the thread's
                own traceback shows.
        """
        self.counts = Counts()
        self.tables = content.Content(connection)
        self._path = path
        self._connection = connection
        self._report = report
        self._fail = fail
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._group: list[Work] = []
        self._unmerged = 0
        self._thread = Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Hand work over."""
        self._queue.put(work)

    def stop(self, timeout: float) -> bool:
        """Commit what was handed over, checkpoint, close; tell whether that was done in time."""
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def drain(self) -> list[Work]:
        """Return work that was handed over and not reported. For use after the thread gave up."""
        left = self._group
        while True:
            try:
                work = self._queue.get_nowait()
            except Empty:
                return left
            if work is not None:
                left.append(work)

    def _run(self) -> None:
        try:
            self._work()
        except (sqlite3.Error, OSError) as error:
            self._give_up(DiskRefused(reading.refusal(self._path, error)), error)
        except BaseException:
            self._give_up(None, None)
            raise

    def _work(self) -> None:
        going = True
        while going:
            self._group, going = self._next_group()
            if self._group:
                self.counts.busy_since = time.monotonic()
                outcomes = self._commit(self._group)
                self.counts.busy_since = None
                self._group = []
                self._report(outcomes)
            self._unmerged += self.tables.take_size()
            if self._unmerged >= CHECKPOINT_SIZE:
                self._checkpoint("PRAGMA wal_checkpoint(PASSIVE)")
        self._checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _next_group(self) -> tuple[list[Work], bool]:
        group: list[Work] = []
        size = 0
        work = self._queue.get()
        while work is not None:
            group.append(work)
            size += work.size
            if size >= GROUP:
                return group, True
            try:
                work = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _commit(self, group: list[Work]) -> list[Outcome]:
        appends = [work for work in group if isinstance(work, Append)]
        if len(appends) < len(group):
            outcomes = self._in_transaction(lambda: self._apply_in_order(group))
        else:
            outcomes = [Outcome(work, None, None) for work in group]
            packs = self.tables.pack_new((work.entries, work.height) for work in appends)
            if not packs:
                return outcomes  # repeats of what earlier commits brought
            if len(packs) <= content.STATEMENT_ROWS:
                self.tables.insert(packs)  # one statement is a transaction of its own
            else:
                self._in_transaction(lambda: self.tables.insert(packs))
        self.counts.commits += 1
        self._unmerged += COMMIT_SIZE
        return outcomes

    def _in_transaction(self, change: Callable[[], Result]) -> Result:
        self._connection.execute("BEGIN IMMEDIATE")
        result = change()
        self._connection.execute("COMMIT")
        return result

    def _apply_in_order(self, group: list[Work]) -> list[Outcome]:
        outcomes = []
        for work in group:
            result, refusal = None, None
            if isinstance(work, Append):
                self.tables.insert(self.tables.pack_new([(work.entries, work.height)]))
            else:
                try:
                    result = work.apply(self.tables)
                except AlignedError as error:
                    refusal = error
            outcomes.append(Outcome(work, result, refusal))
        return outcomes

    def _checkpoint(self, statement: str) -> None:
        self._connection.execute(statement).fetchone()
        self.counts.checkpoints += 1
        self._unmerged = 0

    def _give_up(self, error: DiskRefused | None, cause: BaseException | None) -> None:
        # Never closed, not even when the interpreter ends: see the class.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        if error is not None:
            error.__cause__ = cause
        self._fail(error)
