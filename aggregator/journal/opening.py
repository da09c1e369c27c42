"""Everything that is looked at before a journal file is used: place, lock, integrity, identity."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aggregator.journal import format as layout, reading
from aggregator.journal.content import set_meta
from aligned.errors import BadConfiguration, DiskRefused, StateDamaged, StateMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aligned.model import Identity

logger = logging.getLogger(__name__)

SHARED_FILESYSTEMS = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    "lustre", "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip
"""Kinds whose locks, memory maps or fsync are not those of a disk: WAL needs all three.
Source: https://www.sqlite.org/wal.html, "All processes … must be on the same host computer"."""

VOLATILE_FILESYSTEMS = frozenset({"ramfs", "tmpfs"})
"""Kinds that forget everything at a restart of the machine."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for a person's ``sqlite3`` shell that holds the file."""

WAL_LIMIT = 8 * 1024 * 1024
"""Bytes that the WAL file is cut back to when it starts over."""


class Lock:
    """Keeps a second process away from a journal, for as long as this object is not released.

    A file beside the journal is locked: locks on the database itself would be lost with the first
    other descriptor of it that this process closes (POSIX), and would keep readers out.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            BadConfiguration: Another process has it, or the folder cannot be written.
            DiskRefused: The disk is full or fails.
        """
        self.path = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror}"
            raise BadConfiguration(reading.at(path, problem)) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 200).decode(errors="replace").strip()
            os.close(self._descriptor)
            problem = (
                f"in use by {holder or 'another process'}. Each aggregator needs a journal of its"
                " own; stop the other process or configure another path"
            )
            raise BadConfiguration(reading.at(path, problem)) from error
        holder = f"process {os.getpid()} on {socket.gethostname()}\n"
        try:
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, holder.encode())
        except OSError as error:
            os.close(self._descriptor)
            raise DiskRefused(reading.refusal(path, error)) from error

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would let two processes lock."""
        os.close(self._descriptor)


def filesystem_of(path: Path) -> str | None:
    """Return the kind of file system below ``path``, such as ``"ext4"``; None if nobody tells.

    Source: proc_pid_mountinfo(5).
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # not Linux
    return filesystem_in(mounts, path.resolve())


def filesystem_in(mounts: str, path: Path) -> str | None:
    """Return the kind of the mount in ``mounts`` that holds the absolute ``path``."""
    kind, depth = None, -1
    for line in mounts.splitlines():
        place, _, source = line.partition(" - ")
        point = Path(place.split()[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = source.split()[0], len(point.parts)
    return kind


def check_place(path: Path, filesystem: Callable[[Path], str | None]) -> None:
    """Refuse places where a journal cannot keep its promise.

    Raises:
        BadConfiguration: No such folder, no plain file, or a network file system.
    """
    if not path.parent.is_dir():
        problem = f"there is no folder {path.parent}; create it or mount the volume"
        raise BadConfiguration(reading.at(path, problem))
    if path.exists() and not path.is_file():
        raise BadConfiguration(reading.at(path, "not a plain file; configure the path of a file"))
    kind = filesystem(path.parent)
    if kind in SHARED_FILESYSTEMS:
        problem = (
            f"on a network file system ({kind}), where SQLite can lose what it confirmed."
            " Configure a path on a local disk or block volume"
        )
        raise BadConfiguration(reading.at(path, problem))
    if kind in VOLATILE_FILESYSTEMS:
        logger.warning(
            "journal lies in memory and is lost when the machine restarts: put it on a disk",
            extra={"path": str(path), "filesystem": kind},
        )


def connect(path: Path, connection_class: type[sqlite3.Connection]) -> sqlite3.Connection:
    """Open for writing, create the tables if there are none, and check the whole file.

    Raises:
        BadConfiguration: Another program's file.
        DiskRefused: The disk is full or fails.
        StateDamaged: The file cannot be read.
        StateMismatch: A newer release wrote it.
    """
    with reading.damage_reported(path):
        _check_log(path)
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            timeout=BUSY_TIMEOUT,
            check_same_thread=False,  # opened here, then used by the writer's thread alone
            factory=connection_class,
        )
        try:
            _configure(connection)
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                _create(connection)
            check_format(path, connection)
            check_pages(connection)
            sync_folder(path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def read_only(path: Path) -> Generator[sqlite3.Connection]:
    """Open for reading as of one moment, also while a daemon writes.

    Raises:
        BadConfiguration: No such file, or another program's.
        DiskRefused: The disk is full or fails.
        StateDamaged: The file cannot be read.
        StateMismatch: A newer release wrote it.
    """
    if not path.is_file():
        problem = "no such file; name the journal that the configuration has"
        raise BadConfiguration(reading.at(path, problem))
    with reading.damage_reported(path):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")
            check_format(path, connection)
            yield connection


def check_format(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse files that are no journal, or one of a later release.

    Raises:
        BadConfiguration: Another program's file.
        StateMismatch: A newer release wrote it.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != layout.APPLICATION_ID:
        problem = "an SQLite database, but no journal; configure another path"
        raise BadConfiguration(reading.at(path, problem))
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != layout.VERSION:
        raise StateMismatch(
            f"journal {path}: written in format {version}, this release reads {layout.VERSION}."
            " Run the release that wrote it, or move the file away."
        )


def check_identity(path: Path, connection: sqlite3.Connection, identity: Identity) -> None:
    """Refuse a journal of another deployment or one that was exported; adopt one without owner.

    Raises:
        StateMismatch: Not to be used here.
    """
    if reading.read_meta(connection, "identity") is None:
        set_meta(connection, "identity", layout.encode_identity(identity))
    stored = reading.read_identity(connection)
    if stored != identity:
        raise StateMismatch(f"journal {path}: {mismatch(stored, identity)}")
    moved = reading.read_moved(connection)
    if moved is not None:
        raise StateMismatch(
            f"journal {path}: its content moved to {moved}. Run the daemon on the journal that was"
            f" imported into; to come back here, run `aggregator journal import` on {path} with"
            " the newest export."
        )


def mismatch(stored: Identity, expected: Identity) -> str:
    """Return what is wrong when a state of ``stored`` meets a configuration of ``expected``."""
    same_place = (stored.chain_id, stored.service_manager) == (
        expected.chain_id,
        expected.service_manager,
    )
    kind = "from before the chain was re-created" if same_place else "of another deployment"
    return (
        f"state {kind}: it is of {describe(stored)}, the configuration leads to"
        f" {describe(expected)}. Correct the configuration, or move the file away to start"
        " with an empty one."
    )


def describe(identity: Identity) -> str:
    """Return an identity for a person."""
    return (
        f"chain {identity.chain_id} (genesis 0x{identity.genesis_hash.hex()[:8]}…),"
        f" service manager 0x{identity.service_manager.hex()},"
        f" deployed in block 0x{identity.deployment_hash.hex()[:8]}…"
    )


def check_pages(connection: sqlite3.Connection) -> None:
    """Run SQLite's own check of the file's structure; measured, 17 ms for 50 MB.

    Raises:
        ValueError: What it found.
    """
    found = [str(line) for (line,) in connection.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        raise ValueError("; ".join(found))


def set_aside(path: Path) -> Path:
    """Rename a journal that nobody has open, with its log; return its new path.

    Raises:
        StateDamaged: It cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        for ending in ("", "-wal", "-shm"):
            part = path.with_name(path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        sync_folder(path)
    except OSError as error:
        msg = f"journal {path}: damaged, and cannot be moved away: {error.strerror}"
        raise StateDamaged(msg) from error
    return aside


def sync_folder(path: Path) -> None:
    """Make the name of a new file durable."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_log(path: Path) -> None:
    """Refuse a log whose file is gone: SQLite would delete it, and acknowledged signatures in it.

    Raises:
        ValueError: So it is.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > 0 and not (path.exists() and path.stat().st_size > 0):
        msg = f"{log.name} is there without {path.name}, which it belongs to"
        raise ValueError(msg)


def _configure(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        msg = f"SQLite stays in {mode} mode"
        raise ValueError(msg)
    connection.execute("PRAGMA synchronous = FULL")
    # SQLite's own checkpoints ignore their errors and would try a failed fsync again.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")


def _create(connection: sqlite3.Connection) -> None:
    """Make all tables in one transaction, so that a crash leaves none or all."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in layout.SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {layout.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {layout.VERSION}")
    connection.execute("COMMIT")
