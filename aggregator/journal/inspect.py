"""What ``aggregator journal inspect|export|import`` do, as functions that return data."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.journal import format as layout, opening, portable, reading
from aggregator.journal.content import Content, set_meta
from aligned.errors import BadConfiguration, StateDamaged, StateMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aggregator.journal.format import Fence
    from aggregator.journal.portable import Exported
    from aggregator.journal.reading import Loaded
    from aggregator.outbox import OutboxRow
    from aligned.model import BatchId, BlockRef, Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a journal holds."""

    path: Path
    version: int
    """Of the format."""
    identity: Identity | None
    """None: no daemon has used it yet."""
    moved: str | None
    """Where an export took the content; the daemon refuses such a journal."""
    fence: Fence
    batches: Mapping[BatchId, int]
    """Signatures held for each, in the order of their first. Whether a batch is on chain is not
    in the journal."""
    refuted: int
    outbox: Sequence[OutboxRow]
    """Ascending by sender, nonce, attempt."""
    operators: int
    registry: BlockRef | None
    """Up to which operators are known."""
    size: int
    """Bytes of the file and its write-ahead log."""

    @property
    def signatures(self) -> int:
        """Of all batches."""
        return sum(self.batches.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What an import added."""

    signatures: int
    outbox: int
    refuted: int


def summary(path: Path) -> Summary:
    """Return what the journal at ``path`` holds, after checking all of it. A daemon may be at work.

    Raises:
        BadConfiguration: No such file, or another program's.
        StateDamaged: It cannot be read; the message says how to go on.
        StateMismatch: A newer release wrote it.
    """
    return _read_all(path)[0]


def export(path: Path, output: Path, *, keep: bool = False) -> Summary:
    """Write the journal at ``path`` to ``output`` and mark it as moved, so that no daemon uses it.

    Two daemons with the same outbox would answer against each other; so an export without
    ``keep`` needs the daemon stopped, and ``import_`` is the way back.

    Args:
        path: The journal.
        output: A file that does not exist yet. It appears whole or not at all.
        keep: Make a backup instead: nothing is marked, and the daemon may be at work.

    Returns:
        What was exported.

    Raises:
        BadConfiguration: No such journal, it is in use, or ``output`` exists or cannot be written.
        StateDamaged: The journal cannot be read.
        StateMismatch: A newer release wrote it, or no daemon has used it yet.
    """
    if keep:
        return _export(path, output)
    if not path.is_file():
        raise BadConfiguration(reading.at(path, "no such file"))
    lock = opening.Lock(path)
    try:
        exported = _export(path, output)
        with (
            reading.damage_reported(path),
            closing(opening.connect(path, sqlite3.Connection)) as connection,
        ):
            set_meta(connection, "moved", str(output))
        return exported
    finally:
        lock.release()


def import_(path: Path, source: Path) -> Merged:
    """Add what ``source`` exported to the journal at ``path``, which is created if absent.

    The union of both: importing twice, or in another order, gives the same. Where both hold
    another signature for a pair, or another fence of a term, ``path`` keeps its own. The mark of
    an earlier export is taken from ``path``: from now on this is where the content lives.

    Raises:
        BadConfiguration: ``source`` cannot be read, or ``path`` cannot hold a journal or is in use.
        StateDamaged: ``source`` or ``path`` is damaged, or both hold different transactions for
            one attempt at a nonce. Nothing was imported.
        StateMismatch: They belong to different deployments. Nothing was imported.
    """
    exported = _read(source)
    opening.check_place(path, opening.filesystem_of)
    lock = opening.Lock(path)
    try:
        with closing(opening.connect(path, sqlite3.Connection)) as connection:
            with reading.damage_reported(path):
                _check_same(path, connection, exported.identity)
                connection.execute("BEGIN IMMEDIATE")
                merged = _merge(connection, exported)
                connection.execute("COMMIT")
            return merged
    finally:
        lock.release()


def _export(path: Path, output: Path) -> Summary:
    if output.exists():
        raise BadConfiguration((f"{output}: exists already; name a new file.",))
    described, loaded = _read_all(path)
    if described.identity is None:
        raise StateMismatch(f"journal {path}: no daemon has used it yet; there is nothing in it.")
    try:
        _write(output, described.identity, loaded)
    except OSError as error:
        raise BadConfiguration((f"{output}: cannot be written: {error.strerror}.",)) from error
    return described


def _read_all(path: Path) -> tuple[Summary, Loaded]:
    with opening.read_only(path) as connection:
        opening.check_pages(connection)
        loaded = reading.load(connection)
        has_identity = reading.read_meta(connection, "identity") is not None
        described = Summary(
            path=path,
            version=layout.VERSION,
            identity=reading.read_identity(connection) if has_identity else None,
            moved=reading.read_moved(connection),
            fence=loaded.fence,
            batches=Counter(
                entry.batch_id for entries in loaded.entries.values() for entry in entries
            ),
            refuted=len(loaded.refuted),
            outbox=loaded.outbox,
            operators=len(loaded.operators),
            registry=loaded.registry,
            size=_size(path),
        )
        return described, loaded


def _write(output: Path, identity: Identity, loaded: Loaded) -> None:
    partial = output.with_name(output.name + ".partial")
    with partial.open("wb") as file:
        file.writelines(portable.write_lines(identity, loaded))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(output)
    opening.sync_folder(output)


def _read(source: Path) -> Exported:
    try:
        with source.open("rb") as file:
            return portable.read_lines(file)
    except OSError as error:
        raise BadConfiguration((f"{source}: cannot be read: {error.strerror}.",)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise StateDamaged(
            f"{source}: {error}. Take another export; nothing was imported."
        ) from error


def _check_same(path: Path, connection: sqlite3.Connection, identity: Identity) -> None:
    if reading.read_meta(connection, "identity") is None:
        return
    stored = reading.read_identity(connection)
    if stored != identity:
        raise StateMismatch(
            f"journal {path} is of {opening.describe(stored)}, the export of"
            f" {opening.describe(identity)}. Import it into a journal of its own."
        )


def _merge(connection: sqlite3.Connection, exported: Exported) -> Merged:
    before = reading.load(connection)
    held = {entry[:2] for entries in before.entries.values() for entry in entries}
    known = {(row.sender, row.nonce, row.attempt) for row in before.outbox}
    new_rows = sum((row.sender, row.nonce, row.attempt) not in known for row in exported.outbox)
    new_refuted = set(exported.refuted) - set(before.refuted)
    content = Content(connection)
    refuted = {*exported.refuted, *before.refuted}
    added = 0
    for height, entries in exported.entries.items():
        new = [e for e in entries if e[:2] not in held and e not in refuted]
        content.insert(content.pack_new([(new, height)]))
        added += len(new)
    content.evict(exported.refuted, None)
    for row in exported.outbox:
        content.record(row, None)
    if exported.fence.term > content.fence.term:
        content.claim(exported.fence)
    content.set_meta("identity", layout.encode_identity(exported.identity))
    content.set_meta("moved", None)
    return Merged(signatures=added, outbox=new_rows, refuted=len(new_refuted))


def _size(path: Path) -> int:
    log = path.with_name(path.name + "-wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)
