from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from aggregator.journal import inspect
from aggregator.journal.format import Fence
from aggregator.journal.journal import Journal
from aggregator.journal.reading import Loaded
from aggregator.outbox import Kind, OutboxRow
from aligned.errors import BadConfiguration, StateDamaged, StateMismatch
from aligned.model import (
    Address,
    BatchId,
    BlockHash,
    Entry,
    Identity,
    Term,
    TransactionHash,
    Wei,
)
from tests.fakes.builders import a_batch_id, block, entry, operator

Start = Callable[..., Journal]


def row(nonce: int = 0, raw: bytes = b"raw") -> OutboxRow:
    return OutboxRow(
        sender=Address(b"\xaa" * 20),
        nonce=nonce,
        attempt=0,
        kind=Kind.ANSWER,
        batch_id=a_batch_id(1),
        created=block(100),
        raw=raw,
        hash=TransactionHash(b"h" * 32),
        gas=250_000,
        max_fee=Wei(2**80),
        max_priority_fee=Wei(1),
        term=Term(1),
    )


ENTRIES = (entry(1, 1), entry(1, 2), entry(2, 1))
REFUTED = (entry(2, 2),)
ROWS = (row(),)
FENCE = Fence(Term(3), "me")


def fill(
    path: Path,
    identity: Identity,
    *,
    entries: Sequence[Entry] = ENTRIES,
    refuted: Sequence[Entry] = REFUTED,
    rows: Sequence[OutboxRow] = ROWS,
    fence: Fence = FENCE,
) -> None:
    """Leave a closed journal at ``path``."""
    journal = Journal.open(path, identity)

    async def write() -> None:
        await journal.append(entries, height=7)
        await journal.evict(refuted)
        for item in rows:
            await journal.record(item)
        await journal.claim(fence)
        await journal.save_operators([operator(1)], block(9))

    asyncio.run(write())
    journal.close()


def content(path: Path, identity: Identity) -> Loaded:
    journal = Journal.open(path, identity)
    loaded = journal.load()
    journal.close()
    return loaded


def state(path: Path, identity: Identity) -> tuple[object, ...]:
    """What an export carries, without order."""
    loaded = content(path, identity)
    return (
        {one for some in loaded.entries.values() for one in some},
        set(loaded.refuted),
        loaded.outbox,
        loaded.fence,
    )


def test_a_summary_tells_what_is_there(path: Path, identity: Identity) -> None:
    fill(path, identity)
    found = inspect.summary(path)
    assert found.identity == identity
    assert found.batches == {a_batch_id(1): 2, a_batch_id(2): 1}
    assert (found.signatures, found.refuted, found.operators) == (3, 1, 1)
    assert found.outbox == [row()]
    assert found.fence == (3, "me")
    assert found.registry == block(9)
    assert found.moved is None
    assert found.size == path.stat().st_size


async def test_a_summary_of_a_live_journal_disturbs_nothing(start: Start, path: Path) -> None:
    journal = start()
    await journal.append([entry(1)], height=7)
    assert inspect.summary(path).signatures == 1
    await journal.append([entry(2)], height=7)
    assert inspect.summary(path).signatures == 2


def test_there_is_no_summary_of_a_missing_file(path: Path) -> None:
    with pytest.raises(BadConfiguration, match="no such file"):
        inspect.summary(path)
    assert not path.exists()


def test_there_is_no_summary_of_a_damaged_journal(path: Path, identity: Identity) -> None:
    fill(path, identity)
    data = bytearray(path.read_bytes())
    data[data.index(entry(1, 2).signature)] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateDamaged, match="Move"):
        inspect.summary(path)


def test_an_export_goes_whole_into_a_new_journal(
    path: Path, identity: Identity, tmp_path: Path
) -> None:
    fill(path, identity)
    before = state(path, identity)
    exported = inspect.export(path, tmp_path / "export")
    merged = inspect.import_(tmp_path / "new.db", tmp_path / "export")
    assert exported.signatures == merged.signatures == 3
    assert (merged.outbox, merged.refuted) == (1, 1)
    assert state(tmp_path / "new.db", identity) == before
    assert list(content(tmp_path / "new.db", identity).entries) == [7]


def test_an_exported_journal_is_not_run_any_more(
    path: Path, identity: Identity, tmp_path: Path
) -> None:
    fill(path, identity)
    inspect.export(path, tmp_path / "export")
    with pytest.raises(StateMismatch, match=rf"moved to {tmp_path}/export"):
        Journal.open(path, identity)
    assert inspect.summary(path).moved == str(tmp_path / "export")


def test_importing_into_an_exported_journal_takes_it_back(
    path: Path, identity: Identity, tmp_path: Path
) -> None:
    fill(path, identity)
    before = state(path, identity)
    inspect.export(path, tmp_path / "export")
    assert inspect.import_(path, tmp_path / "export") == inspect.Merged(
        signatures=0, outbox=0, refuted=0
    )
    assert state(path, identity) == before


async def test_a_backup_of_a_live_journal_marks_nothing(
    start: Start, path: Path, tmp_path: Path
) -> None:
    journal = start()
    await journal.append([entry(1)], height=7)
    inspect.export(path, tmp_path / "backup", keep=True)
    journal.close()
    start()
    assert inspect.import_(tmp_path / "new.db", tmp_path / "backup").signatures == 1


def test_a_live_journal_is_not_moved_away_under_its_daemon(
    start: Start, path: Path, tmp_path: Path
) -> None:
    start()
    with pytest.raises(BadConfiguration, match="in use by process"):
        inspect.export(path, tmp_path / "export")
    with pytest.raises(BadConfiguration, match="in use by process"):
        inspect.import_(path, _any_export(tmp_path))


def _any_export(folder: Path) -> Path:
    identity = Identity(
        chain_id=1,
        genesis_hash=BlockHash(b"g" * 32),
        service_manager=Address(b"s" * 20),
        deployment_hash=BlockHash(b"d" * 32),
    )
    fill(folder / "other.db", identity)
    inspect.export(folder / "other.db", folder / "other")
    return folder / "other"


def test_an_export_never_overwrites(path: Path, identity: Identity, tmp_path: Path) -> None:
    fill(path, identity)
    (tmp_path / "export").write_text("precious")
    with pytest.raises(BadConfiguration, match="exists already"):
        inspect.export(path, tmp_path / "export")
    assert (tmp_path / "export").read_text() == "precious"
    assert inspect.summary(path).moved is None


def test_a_journal_whose_export_failed_is_not_marked(
    path: Path, identity: Identity, tmp_path: Path
) -> None:
    fill(path, identity)
    with pytest.raises(BadConfiguration, match="cannot be written"):
        inspect.export(path, tmp_path / "missing" / "export")
    assert inspect.summary(path).moved is None


def test_a_missing_journal_is_not_exported(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="no such file"):
        inspect.export(path, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_an_import_merges(path: Path, identity: Identity, tmp_path: Path) -> None:
    fill(path, identity, refuted=[entry(3, 3)])
    other = tmp_path / "other.db"
    fill(
        other,
        identity,
        entries=[entry(1, 2), entry(2, 2), entry(3, 3), entry(4, 4)],
        refuted=[entry(2, 1)],
        rows=[row(), row(1)],
        fence=Fence(Term(5), "you"),
    )
    inspect.export(other, tmp_path / "export")
    merged = inspect.import_(path, tmp_path / "export")
    assert merged == inspect.Merged(signatures=2, outbox=1, refuted=1)
    assert state(path, identity) == (
        {entry(1, 1), entry(1, 2), entry(2, 2), entry(4, 4)},
        {entry(2, 1), entry(3, 3)},
        [row(), row(1)],
        (5, "you"),
    )


def test_an_import_never_lowers_the_fence(path: Path, identity: Identity, tmp_path: Path) -> None:
    fill(path, identity)
    inspect.export(path, tmp_path / "export", keep=True)
    fill(path, identity, fence=Fence(Term(9), "later"))
    inspect.import_(path, tmp_path / "export")
    assert content(path, identity).fence == (9, "later")


def test_an_import_that_contradicts_the_outbox_changes_nothing(
    path: Path, identity: Identity, tmp_path: Path
) -> None:
    fill(path, identity)
    other = tmp_path / "other.db"
    fill(other, identity, entries=[entry(8, 8)], rows=[row(raw=b"another")])
    inspect.export(other, tmp_path / "export")
    before = state(path, identity)
    with pytest.raises(StateDamaged, match="another transaction"):
        inspect.import_(path, tmp_path / "export")
    assert state(path, identity) == before


def test_an_import_of_another_deployment_is_refused(
    path: Path, identity: Identity, tmp_path: Path
) -> None:
    fill(path, identity)
    other = tmp_path / "other.db"
    fill(other, replace(identity, chain_id=5))
    inspect.export(other, tmp_path / "export")
    with pytest.raises(StateMismatch, match=r"chain 1 .*chain 5 "):
        inspect.import_(path, tmp_path / "export")


def _edit(**fields: object) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        first, rest = data.split(b"\n", 1)
        return json.dumps(json.loads(first) | fields).encode() + b"\n" + rest

    return edit


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "", id="cut anywhere"),
        pytest.param(lambda data: b"\n".join(data.split(b"\n")[:-2]), "torn", id="cut at a line"),
        pytest.param(
            lambda data: data.replace(b'"height": 7', b'"height": 8'), "changed", id="edited"
        ),
        pytest.param(_edit(version=2), "changed", id="head edited"),
        pytest.param(lambda _: b"", "torn", id="empty"),
        pytest.param(lambda _: b"not ours", "", id="something else"),
        pytest.param(lambda _: b"\xff\xfe\0\1", "", id="binary"),
        pytest.param(lambda _: b"[]\n", "", id="a list"),
    ],
)
def test_an_export_that_is_not_whole_is_refused(
    path: Path,
    identity: Identity,
    tmp_path: Path,
    harm: Callable[[bytes], bytes],
    problem: str,
) -> None:
    fill(path, identity)
    export = tmp_path / "export"
    inspect.export(path, export)
    export.write_bytes(harm(export.read_bytes()))
    with pytest.raises(StateDamaged, match=f"{problem}.*Take another export; nothing was imported"):
        inspect.import_(tmp_path / "new.db", export)
    assert not (tmp_path / "new.db").exists()


def test_a_missing_export_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="cannot be read: No such file"):
        inspect.import_(path, tmp_path / "export")


pairs = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8)


@given(ours=pairs, theirs=pairs, bad=pairs)
@settings(deadline=None, max_examples=25)
def test_merging_is_a_union_in_any_order_and_number(
    ours: set[tuple[int, int]],
    theirs: set[tuple[int, int]],
    bad: set[tuple[int, int]],
    identity: Identity,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("law")
    for name, numbers, refuted in (("a", ours, bad), ("b", theirs, set[tuple[int, int]]())):
        fill(
            folder / name,
            identity,
            entries=[entry(*number) for number in numbers],
            refuted=[entry(*number) for number in refuted],
        )
        inspect.export(folder / name, folder / f"{name}.export")
    for target, order in (("ab", "ab"), ("ba", "ba"), ("aba", "aba"), ("bb", "bb")):
        for source in order:
            inspect.import_(folder / target, folder / f"{source}.export")
    assert state(folder / "ab", identity) == state(folder / "ba", identity)
    assert state(folder / "ab", identity) == state(folder / "aba", identity)
    assert state(folder / "bb", identity) == (
        {entry(*n) for n in theirs},
        set(),
        [row()],
        (3, "me"),
    )
    batches: dict[BatchId, int] = dict(inspect.summary(folder / "ab").batches)
    assert sum(batches.values()) == len((ours | theirs) - bad)
