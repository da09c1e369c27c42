"""Statements that change a journal. Whoever calls opens and commits the transaction.

Each change is as few statements as possible: between two statements Python may hand the
interpreter to a busy event loop and get it back 5 ms later. With one ``executemany`` of 64 rows
instead of one statement a commit took 16–70 ms beside a busy thread, instead of 5.7 ms.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING

from aggregator.journal import format as layout, reading
from aligned.errors import Deposed, StateDamaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from aggregator.journal.format import Fence, Json, Pack
    from aggregator.outbox import OutboxRow
    from aligned.model import BatchId, BlockRef, Entry, Operator, OperatorId, Signature

STATEMENT_ROWS = 256
"""Rows that one INSERT takes; 5 variables each, SQLite allows 32,766."""


REPLACED_ROW = "replaced transaction"
"""Begins the names of hints with raw transactions that lost their key to another one."""

ROW_SIZE = 64
"""Bytes of a row of ``signatures`` beside the pack, roughly."""


class Content:
    """The tables of one open journal.

    Errors of SQLite pass through. ``AlignedError`` is raised before the call changed anything, so
    that the transaction may go on.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows_of: dict[BatchId, list[int]] = {}  # an index in the file would double the cost
        self._signatures_of: dict[BatchId, dict[OperatorId, Signature]] = {}
        self._last = 0
        for row_id, _, batch, packed in reading.read_packs(connection):
            self._rows_of.setdefault(batch, []).append(row_id)
            self._signatures_of.setdefault(batch, {}).update(layout.unpack(packed))
            self._last = row_id
        self._refuted = {batch for (batch,) in connection.execute("SELECT batch FROM refuted")}
        self._size = 0
        self.fence = reading.read_fence(connection)

    def take_size(self) -> int:
        """Return about how many bytes signatures took since the last call."""
        size, self._size = self._size, 0
        return size

    def pack_new(self, items: Iterable[tuple[Sequence[Entry], int]]) -> list[Pack]:
        """Return rows for what of ``items`` is not here yet, and count it as here.

        Operators repeat themselves; a file that took every repeat would grow without bound.
        """
        return layout.pack([(self._new(entries), height) for entries, height in items])

    def insert(self, packs: Sequence[Pack]) -> None:
        """Add packs of signatures, in one statement for each ``STATEMENT_ROWS``."""
        for start in range(0, len(packs), STATEMENT_ROWS):
            some = packs[start : start + STATEMENT_ROWS]
            values: list[bytes | int] = []
            for batch, height, checksum, packed in some:
                self._last += 1
                self._rows_of.setdefault(batch, []).append(self._last)
                values += (self._last, batch, height, checksum, packed)
                self._size += len(packed) + ROW_SIZE
            self._connection.execute(_INSERT + ",".join(["(?,?,?,?,?)"] * len(some)), values)

    def _new(self, entries: Sequence[Entry]) -> list[Entry]:
        new = []
        for entry in entries:
            batch_id, operator_id, signature = entry
            signatures = self._signatures_of.get(batch_id)
            if signatures is None:
                signatures = self._signatures_of[batch_id] = {}
            if signatures.get(operator_id) != signature:
                signatures[operator_id] = signature
                new.append(entry)
        return new

    def record(self, row: OutboxRow, fence: Fence | None) -> None:
        """Write one outbox row; the same bytes again change nothing.

        Raises:
            Deposed: ``fence`` is given and is not the journal's.
            StateDamaged: The key holds another transaction.
        """
        self._demand(fence)
        old = self._row_like(row)
        if old is None:
            self._insert_row(row)
        elif old.raw != row.raw:
            raise StateDamaged(
                f"outbox: nonce {row.nonce} attempt {row.attempt} of 0x{row.sender.hex()} already"
                " holds another transaction; rows are never rewritten. Two daemons sign with this"
                " key, or a journal was copied: stop the other one before this one starts again."
            )

    def settle_row(self, row: OutboxRow) -> OutboxRow | None:
        """Write one outbox row whatever its key holds; return the other one that it replaced.

        That one's transaction stays in the file, as a hint.
        """
        old = self._row_like(row)
        if old is not None and old.raw == row.raw:
            return None
        if old is not None:
            name = f"{REPLACED_ROW} 0x{old.sender.hex()} {old.nonce} {old.attempt}"
            self.save_hint(name, old.raw)
            self.drop_rows([old], None)
        self._insert_row(row)
        return old

    def _row_like(self, row: OutboxRow) -> OutboxRow | None:
        """Return the row that has the key of ``row``."""
        old = self._connection.execute(
            "SELECT body FROM outbox WHERE sender = ? AND nonce = ? AND attempt = ?",
            (row.sender, row.nonce, row.attempt),
        ).fetchone()
        return None if old is None else layout.decode_row(layout.parse_object(old[0]))

    def _insert_row(self, row: OutboxRow) -> None:
        body = json.dumps(layout.encode_row(row))
        self._connection.execute(
            "INSERT INTO outbox VALUES (?, ?, ?, ?, ?)",
            (row.sender, row.nonce, row.attempt, body, layout.checksum(body)),
        )

    def drop_rows(self, rows: Iterable[OutboxRow], fence: Fence | None) -> None:
        """Delete outbox rows by their keys. Raises ``Deposed`` as ``record``."""
        self._demand(fence)
        self._connection.executemany(
            "DELETE FROM outbox WHERE sender = ? AND nonce = ? AND attempt = ?",
            [(row.sender, row.nonce, row.attempt) for row in rows],
        )

    def evict(self, entries: Iterable[Entry], fence: Fence | None) -> None:
        """Delete exactly these entries and remember them as refuted. Raises as ``record``."""
        self._demand(fence)
        by_batch: dict[BatchId, list[tuple[OperatorId, Signature]]] = {}
        for batch_id, operator_id, signature in entries:
            by_batch.setdefault(batch_id, []).append((operator_id, signature))
            signatures = self._signatures_of.get(batch_id, {})
            if signatures.get(operator_id) == signature:
                del signatures[operator_id]
            values = (batch_id, operator_id, signature)
            self._connection.execute(
                "INSERT OR IGNORE INTO refuted VALUES (?, ?, ?, ?)",
                (*values, layout.checksum(*values)),
            )
        for batch_id, bad in by_batch.items():
            self._refuted.add(batch_id)
            self._take_out(batch_id, bad)

    def forget(self, batches: Iterable[BatchId]) -> None:
        """Delete all signatures of ``batches``, and what was refuted of them."""
        gone = set(batches)
        for batch in gone:
            self._signatures_of.pop(batch, None)
        self._delete(list(chain.from_iterable(self._rows_of.pop(batch, ()) for batch in gone)))
        refuted = self._refuted & gone
        self._refuted -= refuted
        self._connection.executemany(
            "DELETE FROM refuted WHERE batch = ?", [(batch,) for batch in refuted]
        )

    def claim(self, fence: Fence) -> list[OutboxRow]:
        """Make ``fence`` the journal's and return the whole outbox.

        Raises:
            Deposed: The journal's is higher, or equal with another holder.
        """
        if fence != self.fence:
            if fence.term <= self.fence.term:
                raise Deposed(f"{_name(fence)} comes after {_name(self.fence)}")
            self.set_meta("fence", [fence.term, fence.holder])
            self.fence = fence
        return reading.read_outbox(self._connection)

    def save_operators(self, operators: Iterable[Operator], progress: BlockRef) -> None:
        """Add or replace operators, and how far the registry was read."""
        rows = [(item.operator_id, item.address, item.g1, item.g2) for item in operators]
        self._connection.executemany(
            "INSERT OR REPLACE INTO operators VALUES (?, ?, ?, ?, ?)",
            [(*row, layout.checksum(*row)) for row in rows],
        )
        self.set_meta("registry", [progress.number, progress.hash.hex()])

    def save_hint(self, name: str, value: bytes) -> None:
        """Replace one hint."""
        self._connection.execute(
            "INSERT OR REPLACE INTO hints VALUES (?, ?, ?)",
            (name, value, layout.checksum(name, value)),
        )

    def set_meta(self, name: str, value: Json) -> None:
        """Replace one value of ``meta``; None removes it."""
        set_meta(self._connection, name, value)

    def _demand(self, fence: Fence | None) -> None:
        if fence is not None and fence != self.fence:
            raise Deposed(f"{_name(fence)} is over: {_name(self.fence)} has claimed")

    def _take_out(self, batch_id: BatchId, bad: list[tuple[OperatorId, Signature]]) -> None:
        emptied = []
        for row_id in self._rows_of.get(batch_id, ()):
            height, packed = self._connection.execute(
                "SELECT height, packed FROM signatures WHERE id = ?", (row_id,)
            ).fetchone()
            rest = layout.without(packed, bad)
            if not rest:
                emptied.append(row_id)
            elif rest != packed:
                self._connection.execute(
                    "UPDATE signatures SET packed = ?, checksum = ? WHERE id = ?",
                    (rest, layout.pack_checksum(batch_id, height, rest), row_id),
                )
        if emptied:
            self._rows_of[batch_id] = [i for i in self._rows_of[batch_id] if i not in emptied]
            self._delete(emptied)

    def _delete(self, rows: list[int]) -> None:
        self._connection.execute(
            "DELETE FROM signatures WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(rows),),
        )


def set_meta(connection: sqlite3.Connection, name: str, value: Json) -> None:
    """Replace one value of ``meta``; None removes it."""
    if value is None:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
        return
    text = json.dumps(value)
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, text, layout.checksum(name, text))
    )


_INSERT = "INSERT INTO signatures (id, batch, height, checksum, packed) VALUES "


def _name(fence: Fence) -> str:
    return f"term {fence.term} of {fence.holder or 'nobody'}"
