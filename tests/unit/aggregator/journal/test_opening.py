from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aggregator.journal import opening
from aggregator.journal.format import Fence
from aggregator.journal.journal import Journal
from aggregator.journal.reading import Loaded
from aligned.errors import AlignedError, BadConfiguration, DiskRefused, StateDamaged, StateMismatch
from aligned.model import Address, BlockHash, Identity, Term
from tests.fakes.builders import a_batch_id, block, entry, operator

Start = Callable[..., Journal]

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:30 / /proc rw - proc proc rw
41 22 0:40 / /data rw - nfs4 server:/export rw
42 41 254:1 / /data/local\\040disk rw shared:1 - xfs /dev/vdb rw
43 22 0:41 / /over rw - ext4 /dev/vdc rw
44 22 0:42 / /over rw - fuse.sshfs host: rw
"""


def filled(path: Path, identity: Identity) -> Loaded:
    """Leave a closed journal of some 120 pages at ``path`` and return what is in it."""
    journal = Journal.open(path, identity)

    async def fill() -> None:
        for number in range(40):
            await journal.append([entry(number, by) for by in range(60)], height=7 + number % 3)
        await journal.evict([entry(1, 1)])
        await journal.save_operators([operator(number) for number in range(40)], block(9))
        await journal.claim(Fence(Term(3), "me"))
        await journal.save_hint("cursor", b"here")

    asyncio.run(fill())
    loaded = journal.load()
    journal.close()
    return loaded


def log_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_an_empty_file_becomes_a_journal(start: Start, path: Path) -> None:
    path.touch()
    assert start().load().entries == {}


def test_a_journal_whose_creation_was_cut_short_is_created_again(start: Start, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0
    assert start().load().entries == {}


def test_a_journal_that_nobody_owns_yet_is_adopted(start: Start, path: Path) -> None:
    opening.connect(path, sqlite3.Connection).close()
    start().close()
    start()


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        pytest.param({"chain_id": 5}, "of another deployment", id="chain"),
        pytest.param(
            {"service_manager": Address(b"t" * 20)}, "of another deployment", id="contract"
        ),
        pytest.param(
            {"deployment_hash": BlockHash(b"e" * 32)},
            "from before the chain was re-created",
            id="block of deployment",
        ),
        pytest.param(
            {"genesis_hash": BlockHash(b"h" * 32)},
            "from before the chain was re-created",
            id="genesis",
        ),
    ],
)
def test_a_journal_of_another_deployment_is_refused(
    start: Start, identity: Identity, other: dict[str, Any], kind: str
) -> None:
    start().close()
    configured = replace(identity, **other)
    with pytest.raises(StateMismatch, match=kind) as raised:
        start(of=configured)
    assert opening.describe(identity) in str(raised.value)
    assert opening.describe(configured) in str(raised.value)
    start()


def test_a_journal_of_a_newer_release_is_refused(start: Start, path: Path) -> None:
    start().close()
    change(path, "PRAGMA user_version = 2")
    with pytest.raises(StateMismatch, match="format 2, this release reads 1"):
        start()


def test_another_programs_database_is_refused_and_left_alone(start: Start, path: Path) -> None:
    change(path, "CREATE TABLE theirs (x)")
    with pytest.raises(BadConfiguration, match="no journal"):
        start()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


def test_a_second_opener_is_refused_and_told_who_has_it(start: Start, path: Path) -> None:
    start()
    with pytest.raises(BadConfiguration, match=f"in use by process {os.getpid()} on "):
        start()


def test_a_refused_opening_leaves_the_lock_free(start: Start, identity: Identity) -> None:
    start().close()
    with pytest.raises(StateMismatch):
        start(of=replace(identity, chain_id=5))
    start()


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        pytest.param("missing/journal.db", "there is no folder", id="no folder"),
        pytest.param("folder", "not a plain file", id="folder"),
    ],
)
def test_a_place_for_no_file_is_refused(
    start: Start, tmp_path: Path, place: str, problem: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadConfiguration, match=rf"journal\.path: .*{problem}"):
        start(tmp_path / place)


def test_a_folder_that_takes_no_lock_is_refused(start: Start, path: Path) -> None:
    path.with_name("journal.db.lock").mkdir()
    with pytest.raises(BadConfiguration, match=r"journal\.db\.lock cannot be written"):
        start()


def test_a_lock_that_the_disk_does_not_take_is_not_called_damaged(start: Start, path: Path) -> None:
    path.with_name("journal.db.lock").symlink_to("/dev/full")
    with pytest.raises(DiskRefused, match="Make room"):
        start()


def test_a_folder_that_the_disk_does_not_take_is_not_called_damaged(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(opening, "sync_folder", fails)
        with pytest.raises(DiskRefused, match=r"OSError: .*Input/output error.*Leave the file"):
            start()
    assert start().load().entries == {}


def test_a_journal_for_which_there_is_no_room_is_not_called_damaged(
    start: Start, path: Path
) -> None:
    class Small(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.execute("PRAGMA max_page_count = 3")

    with pytest.raises(DiskRefused, match=r"SQLITE_FULL: .* Make room"):
        start(connection_class=Small)
    assert start().load().entries == {}


def test_a_database_that_somebody_else_holds_is_not_called_damaged(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT", 0.01)
    start().close()
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("PRAGMA locking_mode = EXCLUSIVE")
        shell.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BadConfiguration, match="database is locked"):
            start()


@pytest.mark.parametrize("kind", sorted(opening.SHARED_FILESYSTEMS))
def test_a_network_file_system_is_refused(start: Start, path: Path, kind: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"network file system \({kind}\)"):
        start(filesystem=lambda _: kind)
    assert not path.exists()


def test_a_journal_in_memory_is_warned_of(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    start(filesystem=lambda _: "tmpfs")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("kind", ["ext4", "overlay", None])
def test_a_disk_is_taken_without_a_word(
    start: Start, caplog: pytest.LogCaptureFixture, kind: str | None
) -> None:
    start(filesystem=lambda _: kind)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/journal", "ext4"),
        ("/data", "nfs4"),
        ("/data/journal", "nfs4"),
        ("/database", "ext4"),
        ("/data/local disk/journal", "xfs"),
        ("/over/journal", "fuse.sshfs"),
    ],
)
def test_the_innermost_and_latest_mount_tells_the_file_system(path: str, kind: str) -> None:
    assert opening.filesystem_in(MOUNTS, Path(path)) == kind


def test_this_machine_tells_a_file_system_or_has_no_mount_table(tmp_path: Path) -> None:
    kind = opening.filesystem_of(tmp_path)
    assert (kind is not None) == Path("/proc/self/mountinfo").exists()


def test_a_file_that_is_no_database_stops_with_what_to_do(start: Start, path: Path) -> None:
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StateDamaged, match=r"Move .* away, .* `aggregator journal import`"):
        start()


@pytest.mark.parametrize("left", ["nothing", "empty file"])
def test_a_log_without_its_file_is_kept(
    path: Path, identity: Identity, tmp_path: Path, left: str
) -> None:
    journal = Journal.open(path, identity)
    asyncio.run(journal.append([entry()], height=7))
    copy = tmp_path / "copy.db"
    log = tmp_path / "copy.db-wal"
    shutil.copy(tmp_path / "journal.db-wal", log)
    journal.close()
    if left == "empty file":
        copy.touch()
    size = log.stat().st_size
    with pytest.raises(StateDamaged, match=r"copy\.db-wal is there without copy\.db"):
        Journal.open(copy, identity)
    assert log.stat().st_size == size


def test_a_file_cut_in_half_stops_with_what_to_do(
    start: Start, path: Path, identity: Identity
) -> None:
    filled(path, identity)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StateDamaged, match=r"Move .* away"):
        start()


def test_a_flipped_bit_in_a_signature_is_noticed(
    start: Start, path: Path, identity: Identity
) -> None:
    filled(path, identity)
    data = bytearray(path.read_bytes())
    at = data.index(entry(20, 30).signature)
    data[at + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateDamaged, match="a checksum of table signatures"):
        start()


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_are_noticed_or_change_nothing(
    path: Path, identity: Identity, tmp_path: Path, seed: int
) -> None:
    before = filled(path, identity)
    whole = path.read_bytes()
    spots = random.Random(seed)  # noqa: S311 - where to flip
    noticed = 0
    for number in range(25):
        data = bytearray(whole)
        # Every other flip in the first page or the last ones, where the small tables are.
        limit = len(data) if number % 2 else 4096
        data[spots.randrange(limit)] ^= 1 << spots.randrange(8)
        (folder := tmp_path / str(number)).mkdir()
        copy = folder / "journal.db"
        copy.write_bytes(data)
        try:
            journal = Journal.open(copy, identity)
        except AlignedError:
            noticed += 1
            continue
        try:
            assert journal.load() == before
        except StateDamaged:
            noticed += 1
        finally:
            journal.close()
    assert noticed > 0


@pytest.mark.parametrize("seed", range(4))
def test_what_was_committed_before_a_torn_end_of_the_log_survives(
    path: Path, identity: Identity, tmp_path: Path, seed: int
) -> None:
    sizes = []
    journal = Journal.open(path, identity)

    async def fill() -> None:
        for number in range(30):
            await journal.append([entry(number, by) for by in range(20)], height=7)
            sizes.append(log_size(path))

    asyncio.run(fill())
    cut = random.Random(seed).randrange(sizes[0], sizes[-1])  # noqa: S311 - where to cut
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    journal.close()
    os.truncate(f"{copy}-wal", cut)
    torn = Journal.open(copy, identity)
    found = {one.batch_id for some in torn.load().entries.values() for one in some}
    torn.close()
    assert found == {a_batch_id(number) for number, size in enumerate(sizes) if size <= cut}


def test_a_journal_set_aside_keeps_its_log_and_makes_room(
    tmp_path: Path, identity: Identity
) -> None:
    path = tmp_path / "journal.db"
    for number in (1, 2):
        Journal.open(path, identity).close()
        path.with_name("journal.db-wal").write_bytes(b"log")
        aside = opening.set_aside(path)
        assert aside == tmp_path / f"journal.db.damaged-{number}"
        assert aside.is_file()
        assert aside.with_name(aside.name + "-wal").read_bytes() == b"log"
        assert not path.exists()
