"""From an open file to everything a start needs. Every row's checksum is looked at."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.journal import format as layout
from aggregator.journal.format import Fence
from aligned.errors import BadConfiguration, DiskRefused, StateDamaged
from aligned.model import (
    Address,
    BatchId,
    Entry,
    G1Point,
    G2Point,
    Operator,
    OperatorId,
    Signature,
    Term,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from aggregator.journal.format import Json
    from aggregator.outbox import OutboxRow
    from aligned.model import BlockRef, Identity

_DISK = ("SQLITE_FULL", "SQLITE_IOERR")
_IN_THE_WAY = ("SQLITE_AUTH", "SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY")

NO_FENCE = Fence(Term(0), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """All that a journal holds."""

    entries: Mapping[int, list[Entry]]
    """By the chain's height when they came, ascending; no pair of batch and operator twice."""
    refuted: Sequence[Entry]
    """Found bad after all; none of them is in ``entries``."""
    outbox: Sequence[OutboxRow]
    """Ascending by sender, nonce, attempt."""
    operators: Sequence[Operator]
    """Ascending by id."""
    registry: BlockRef | None
    """Up to which ``operators`` is complete."""
    hints: Mapping[str, bytes]
    """Caches by name; losing or changing them breaks nothing."""
    fence: Fence


@contextmanager
def damage_reported(path: Path) -> Generator[None]:
    """Translate what a reader stumbles over.

    Raises:
        BadConfiguration: Something stands in the way of reading.
        DiskRefused: The disk is full or fails. Opening a file writes, too.
        StateDamaged: The file is not as it was written.
    """
    try:
        yield
    except OSError as error:
        raise DiskRefused(refusal(path, error)) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith(_DISK):
            raise DiskRefused(refusal(path, error)) from error
        if error.sqlite_errorname.startswith(_IN_THE_WAY):
            raise BadConfiguration(at(path, f"cannot be opened ({error})")) from error
        raise StateDamaged(damage(path, str(error))) from error
    except (sqlite3.Error, KeyError, TypeError, ValueError, OverflowError) as error:
        raise StateDamaged(damage(path, str(error))) from error


def refusal(path: Path, error: sqlite3.Error | OSError) -> str:
    """Return the message for a journal whose disk is full or fails."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    try:
        free = f"{shutil.disk_usage(path.parent).free // 2**20} MiB free"
    except OSError:
        free = "free space unknown"
    return (
        f"journal {path}: writing failed ({name}: {error}; {free}). Nothing that was acknowledged"
        " is lost; what was waiting was not acknowledged and operators send it again. Make room if"
        " the disk or a quota is full, replace the disk if it reports errors, then start again."
        " Leave the file where it is."
    )


def damage(path: Path, what: str) -> str:
    """Return the message for a file that cannot be used as it is."""
    return (
        f"journal {path}: damaged ({what}). Move {path} and {path}-wal away, keep them, and either"
        " restore the newest export with `aggregator journal import`, or start without a journal:"
        " then signatures only this replica held are missing until operators send them again."
    )


def at(path: Path, what: str) -> tuple[str]:
    """Return the problem of a path that the configuration should not name."""
    return (f"journal.path: {path}: {what}.",)


def load(connection: sqlite3.Connection) -> Loaded:
    """Read the whole journal as of one moment. Call it inside a transaction.

    Raises:
        sqlite3.Error: The file is damaged. So it is with KeyError, TypeError, ValueError and
            OverflowError; callers wrap this in ``damage_reported``.
    """
    refuted = read_refuted(connection)
    return Loaded(
        entries=_read_entries(connection, set(refuted)),
        refuted=refuted,
        outbox=read_outbox(connection),
        operators=_read_operators(connection),
        registry=read_registry(connection),
        hints=_read_hints(connection),
        fence=read_fence(connection),
    )


def read_identity(connection: sqlite3.Connection) -> Identity:
    """Return which deployment the journal belongs to.

    Raises:
        TypeError: It does not say; other errors as ``load``.
    """
    identity = read_meta(connection, "identity")
    if not isinstance(identity, dict):
        msg = "the identity is missing"
        raise TypeError(msg)
    return layout.decode_identity(identity)


def read_fence(connection: sqlite3.Connection) -> Fence:
    """Return the newest claimed term; errors as ``load``."""
    fence = read_meta(connection, "fence")
    return NO_FENCE if fence is None else layout.decode_fence(fence)


def read_registry(connection: sqlite3.Connection) -> BlockRef | None:
    """Return how far operators are known; errors as ``load``."""
    block = read_meta(connection, "registry")
    return None if block is None else layout.decode_block(block)


def read_moved(connection: sqlite3.Connection) -> str | None:
    """Return where an export took the content, None if it is here; errors as ``load``."""
    moved = read_meta(connection, "moved")
    return None if moved is None else layout.text(moved)


def read_meta(connection: sqlite3.Connection, name: str) -> Json:
    """Return one value of ``meta``, None where it is absent; errors as ``load``."""
    row = connection.execute("SELECT value, checksum FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    _check(row[1] == layout.checksum(name, row[0]), f"meta {name}")
    value: Json = json.loads(row[0])
    return value


def read_outbox(connection: sqlite3.Connection) -> list[OutboxRow]:
    """Return all outbox rows, ascending by key; errors as ``load``."""
    rows = []
    for *key, body, checksum in connection.execute(
        "SELECT sender, nonce, attempt, body, checksum FROM outbox ORDER BY 1, 2, 3"
    ):
        _check(checksum == layout.checksum(body), "outbox")
        row = layout.decode_row(layout.parse_object(body))
        _check([row.sender, row.nonce, row.attempt] == key, "outbox")
        rows.append(row)
    return rows


def read_refuted(connection: sqlite3.Connection) -> list[Entry]:
    """Return the entries found bad; errors as ``load``."""
    refuted = []
    for *fields, checksum in connection.execute(
        "SELECT batch, operator, signature, checksum FROM refuted"
    ):
        _check(checksum == layout.checksum(*fields), "refuted")
        batch_id, operator_id, signature = fields
        refuted.append(Entry(BatchId(batch_id), OperatorId(operator_id), Signature(signature)))
    return refuted


def read_packs(connection: sqlite3.Connection) -> Iterator[tuple[int, int, BatchId, bytes]]:
    """Yield (id, height, batch, pack) in the order of arrival; errors as ``load``."""
    for row_id, batch, height, checksum, packed in connection.execute(
        "SELECT id, batch, height, checksum, packed FROM signatures ORDER BY id"
    ):
        _check(checksum == layout.pack_checksum(batch, height, packed), f"signatures {row_id}")
        yield row_id, height, BatchId(batch), packed


def _read_entries(connection: sqlite3.Connection, refuted: set[Entry]) -> dict[int, list[Entry]]:
    by_height: dict[int, list[Entry]] = {}
    seen: dict[BatchId, set[OperatorId]] = {}
    known: dict[OperatorId, OperatorId] = {}  # 200 operators, not one copy for each signature
    for _, height, batch_id, packed in read_packs(connection):
        signers = seen.setdefault(batch_id, set())
        entries = by_height.setdefault(height, [])
        for fresh_id, signature in layout.unpack(packed):
            operator_id = known.setdefault(fresh_id, fresh_id)
            entry = Entry(batch_id, operator_id, signature)
            if operator_id not in signers and entry not in refuted:
                signers.add(operator_id)
                entries.append(entry)
    return {height: by_height[height] for height in sorted(by_height) if by_height[height]}


def _read_operators(connection: sqlite3.Connection) -> list[Operator]:
    operators = []
    for *fields, checksum in connection.execute(
        "SELECT id, address, g1, g2, checksum FROM operators ORDER BY 1"
    ):
        _check(checksum == layout.checksum(*fields), "operators")
        operator_id, address, g1, g2 = fields
        operators.append(
            Operator(
                operator_id=OperatorId(operator_id),
                address=Address(address),
                g1=G1Point(g1),
                g2=G2Point(g2),
            )
        )
    return operators


def _read_hints(connection: sqlite3.Connection) -> dict[str, bytes]:
    hints = {}
    for name, value, checksum in connection.execute("SELECT name, value, checksum FROM hints"):
        _check(checksum == layout.checksum(name, value), "hints")
        hints[name] = value
    return hints


def _check(good: bool, table: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not good:
        msg = f"a checksum of table {table} does not fit"
        raise ValueError(msg)
