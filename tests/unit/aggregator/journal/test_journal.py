from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from aggregator.journal.content import STATEMENT_ROWS
from aggregator.journal.format import Fence
from aggregator.journal.journal import LAZY_LIMIT, Journal
from aggregator.journal.writer import CHECKPOINT_SIZE
from aggregator.outbox import Kind, OutboxRow
from aligned.errors import Deposed, DiskRefused, StateDamaged
from aligned.model import (
    Address,
    Entry,
    Identity,
    Signature,
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
        max_fee=Wei(1),
        max_priority_fee=Wei(1),
        term=Term(1),
    )


def kept(journal: Journal) -> dict[int, set[Entry]]:
    return {height: set(entries) for height, entries in journal.load().entries.items()}


def size(path: Path, suffix: str = "") -> int:
    return path.with_name(path.name + suffix).stat().st_size


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


class Gated(sqlite3.Connection):
    """Waits at each INSERT of signatures until ``open`` is set; ``broken`` makes it fail there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()
        self.broken: str | None = None
        self.broken_at = "nothing"
        self.statements: list[str] = []

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self.statements.append(sql)
        if sql.startswith(self.broken_at):
            raise sqlite3.OperationalError("disk I/O error")
        if sql.startswith(("INSERT INTO signatures", "COMMIT")) and not self.in_creation():
            self.reached.release()
            self.open.wait(30)
            if self.broken is not None:
                raise sqlite3.OperationalError(self.broken)
        return super().execute(sql, *args)

    def in_creation(self) -> bool:
        return any(sql.startswith("CREATE") for sql in self.statements[-10:])


def gated(start: Start, **options: Any) -> tuple[Journal, Gated]:
    journal = start(connection_class=Gated, **options)
    connection = journal._writer._connection
    assert isinstance(connection, Gated)
    connection.statements.clear()
    return journal, connection


async def reach(connection: Gated) -> None:
    assert await asyncio.to_thread(connection.reached.acquire, timeout=30)


async def test_what_was_appended_is_there_at_the_next_start(start: Start) -> None:
    journal = start()
    await journal.append([entry(1, 1), entry(2, 1)], height=7)
    await journal.append([entry(1, 2)], height=8)
    journal.close()
    assert kept(start()) == {7: {entry(1, 1), entry(2, 1)}, 8: {entry(1, 2)}}


async def test_what_was_appended_is_on_disk_before_the_journal_is_closed(
    start: Start, path: Path, tmp_path: Path
) -> None:
    journal = start()
    await journal.append([entry()], height=7)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (path, path.with_name("journal.db-wal")):
        shutil.copy(file, copy)
    assert kept(start(copy / "journal.db")) == {7: {entry()}}


async def test_appending_nothing_commits_nothing(start: Start) -> None:
    journal = start()
    await journal.append([], height=7)
    assert journal.counts.commits == 0


async def test_repeats_cost_no_commit(start: Start) -> None:
    journal = start()
    await journal.append([entry(1, 1), entry(1, 2)], height=7)
    await journal.append([entry(1, 2), entry(1, 1)], height=8)
    journal.close()
    again = start()
    await again.append([entry(1, 1)], height=9)
    assert (journal.counts.commits, again.counts.commits) == (1, 0)
    assert kept(again) == {7: {entry(1, 1), entry(1, 2)}}


async def test_a_repeat_of_what_is_not_on_disk_yet_waits_for_it(start: Start) -> None:
    journal, connection = gated(start)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(journal.append([entry()], height=7))
        await reach(connection)
        repeat = group.create_task(journal.append([entry()], height=7))
        await asyncio.sleep(0)
        assert not first.done()
        assert not repeat.done()
        connection.open.set()
    assert journal.counts.commits == 1


async def test_what_comes_while_a_commit_runs_shares_the_next_one(start: Start) -> None:
    journal, connection = gated(start)
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.append([entry(0)], height=7))
        await reach(connection)
        for number in range(1, 50):
            group.create_task(journal.append([entry(number)], height=7))
        await asyncio.sleep(0)
        during = journal.counts.busy_since
        connection.open.set()
    assert during is not None
    assert journal.counts.busy_since is None
    assert journal.counts.commits == 2
    assert len(kept(journal)[7]) == 50


async def test_a_group_of_signatures_is_one_statement(start: Start) -> None:
    journal, connection = gated(start)
    connection.open.set()
    await journal.append([entry(n, by) for n in range(20) for by in range(5)], height=7)
    assert len(connection.statements) == 1


async def test_a_group_larger_than_one_statement_is_one_transaction(start: Start) -> None:
    journal, connection = gated(start)
    connection.open.set()
    await journal.append([entry(n) for n in range(2 * STATEMENT_ROWS + 1)], height=7)
    verbs = [sql.split()[0] for sql in connection.statements]
    assert verbs == ["BEGIN", "INSERT", "INSERT", "INSERT", "COMMIT"]
    assert len(kept(journal)[7]) == 2 * STATEMENT_ROWS + 1


async def test_a_write_survives_the_cancellation_of_its_waiter(start: Start) -> None:
    journal, connection = gated(start)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(journal.append([entry()], height=7))
        await reach(connection)
        task.cancel()
    connection.open.set()
    await journal.append([entry(2)], height=7)
    assert kept(journal) == {7: {entry(), entry(2)}}


async def test_work_is_done_in_the_order_of_the_calls(start: Start) -> None:
    journal, connection = gated(start)
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.append([entry(9)], height=7))
        await reach(connection)
        group.create_task(journal.append([entry(1, 1)], height=7))
        group.create_task(journal.forget([a_batch_id(1)]))
        group.create_task(journal.append([entry(1, 2)], height=8))
        await asyncio.sleep(0)
        connection.open.set()
    assert kept(journal) == {7: {entry(9)}, 8: {entry(1, 2)}}


async def test_one_refusal_leaves_the_rest_of_its_group_alone(start: Start) -> None:
    journal, connection = gated(start)
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.append([entry(9)], height=7))
        await reach(connection)
        refused = group.create_task(_refusal(journal))
        group.create_task(journal.append([entry(1)], height=7))
        await asyncio.sleep(0)
        connection.open.set()
    assert isinstance(refused.result(), Deposed)
    assert kept(journal) == {7: {entry(9), entry(1)}}


async def _refusal(journal: Journal) -> BaseException:
    with pytest.raises(Deposed) as raised:
        await journal.record(row(), fence=Fence(Term(3), "nobody"))
    return raised.value


async def test_peers_entries_are_kept_without_waiting(start: Start) -> None:
    journal = start()
    assert journal.append_lazily([entry(1, 1)], height=7)
    await journal.append([entry(1, 2)], height=7)
    assert kept(journal) == {7: {entry(1, 1), entry(1, 2)}}


async def test_peers_entries_are_turned_away_while_too_many_wait(start: Start) -> None:
    journal, connection = gated(start)
    many = [entry(1, by) for by in range(LAZY_LIMIT)]
    assert journal.append_lazily(many, height=7)
    assert not journal.append_lazily([entry(2)], height=7)
    connection.open.set()
    await journal.append([entry(3)], height=7)
    assert journal.append_lazily([entry(2)], height=7)


async def test_an_evicted_entry_stays_out_and_others_of_its_pack_stay(start: Start) -> None:
    journal = start()
    await journal.append([entry(1, 1), entry(1, 2), entry(2, 1)], height=7)
    await journal.evict([entry(1, 1), entry(2, 1)])
    await journal.append([entry(1, 1)], height=8)
    journal.close()
    loaded = start().load()
    assert loaded.entries == {7: [entry(1, 2)]}
    assert set(loaded.refuted) == {entry(1, 1), entry(2, 1)}


async def test_forgetting_forgets_what_was_refuted(start: Start) -> None:
    journal = start()
    await journal.evict([entry(1, 1), entry(2, 1)])
    await journal.forget([a_batch_id(1)])
    assert journal.load().refuted == [entry(2, 1)]


async def test_rows_need_no_fence_where_another_store_has_it(start: Start) -> None:
    journal = start()
    await journal.record(row(1))
    await journal.record(row(0))
    await journal.drop_rows([row(1)])
    assert journal.load().outbox == [row(0)]


async def test_another_transaction_under_the_same_key_is_refused(start: Start) -> None:
    journal = start()
    await journal.record(row(raw=b"first"))
    with pytest.raises(StateDamaged, match=r"nonce 0 attempt 0 .* stop the other one"):
        await journal.record(row(raw=b"second"))
    await journal.record(row(raw=b"first"))


async def test_the_fence_is_there_at_the_next_start(start: Start) -> None:
    journal = start()
    assert journal.fence == (0, "")
    await journal.claim(Fence(Term(4), "me"))
    journal.close()
    again = start()
    assert again.fence == again.load().fence == (4, "me")


async def test_operators_are_replaced_by_what_was_seen_last(start: Start) -> None:
    journal = start()
    assert journal.load().registry is None
    await journal.save_operators([operator(1), operator(2)], block(5))
    moved = replace(operator(1), address=Address(b"\x99" * 20))
    await journal.save_operators([moved], block(6))
    journal.close()
    loaded = start().load()
    assert loaded.operators == [moved, operator(2)]
    assert loaded.registry == block(6)


async def test_a_hint_is_replaced(start: Start) -> None:
    journal = start()
    await journal.save_hint("cursor", b"one")
    await journal.save_hint("cursor", b"two")
    assert journal.load().hints == {"cursor": b"two"}


async def test_pages_of_forgotten_batches_are_used_again(start: Start, path: Path) -> None:
    journal = start()
    sizes = []
    for generation in range(6):
        numbers = range(generation * 100, generation * 100 + 100)
        for number in numbers:
            await journal.append([entry(number, by) for by in range(50)], height=7)
        await journal.forget([a_batch_id(number) for number in numbers])
        journal.close()
        sizes.append(size(path))
        journal = start()
    assert sizes[0] > 400_000
    assert sizes[-1] <= sizes[0] * 1.1


async def test_the_log_is_merged_into_the_file_again_and_again(start: Start, path: Path) -> None:
    journal = start()
    for number in range(150):
        await journal.append([entry(number, by) for by in range(1000)], height=7)
        await journal.forget([a_batch_id(number)])
    assert journal.counts.checkpoints >= 3
    assert size(path, "-wal") < 3 * CHECKPOINT_SIZE


@pytest.mark.parametrize("at", ["INSERT", "COMMIT"])
async def test_a_failed_write_fails_everything_that_waits_and_all_later_calls(
    start: Start, at: str
) -> None:
    journal, connection = gated(start)
    connection.broken = "disk I/O error"
    failures: list[DiskRefused] = []

    async def fails(call: Any) -> None:
        with pytest.raises(
            DiskRefused, match=r"writing failed .*disk I/O error.*MiB free"
        ) as error:
            await call
        failures.append(error.value)

    async with asyncio.TaskGroup() as group:
        if at == "INSERT":
            group.create_task(fails(journal.append([entry(1)], height=7)))
        else:
            group.create_task(fails(journal.record(row())))
        group.create_task(fails(journal.failed()))
        await reach(connection)
        group.create_task(fails(journal.append([entry(2)], height=7)))
        group.create_task(fails(journal.save_hint("a", b"b")))
        await asyncio.sleep(0)
        connection.open.set()
    assert len(failures) == 4
    with pytest.raises(DiskRefused, match="writing failed"):
        journal.append_lazily([entry(3)], height=7)
    with pytest.raises(DiskRefused, match="writing failed"):
        await journal.append([entry(3)], height=7)


async def test_after_a_failed_write_nothing_is_tried_again(start: Start) -> None:
    journal, connection = gated(start)
    connection.broken = "disk I/O error"
    connection.open.set()
    with pytest.raises(DiskRefused):
        await journal.append([entry(1)], height=7)
    with pytest.raises(DiskRefused):
        await journal.append([entry(2)], height=7)
    journal.close()
    assert len(connection.statements) == 1


async def test_a_failed_write_leaves_what_was_acknowledged(
    start: Start, path: Path, tmp_path: Path
) -> None:
    journal, connection = gated(start)
    connection.open.set()
    await journal.append([entry(1)], height=7)
    connection.broken = "database or disk is full"
    with pytest.raises(DiskRefused, match="Make room"):
        await journal.append([entry(2)], height=7)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (path, path.with_name("journal.db-wal")):
        shutil.copy(file, copy)
    assert kept(start(copy / "journal.db")) == {7: {entry(1)}}


async def test_a_failed_checkpoint_is_not_tried_again(start: Start, path: Path) -> None:
    journal, connection = gated(start)
    connection.open.set()
    connection.broken_at = "PRAGMA wal_checkpoint"
    with pytest.raises(DiskRefused, match="writing failed"):
        await _append_for_ever(journal)
    with pytest.raises(DiskRefused, match="writing failed"):
        await journal.failed()
    journal.close()
    checkpoints = [sql for sql in connection.statements if "checkpoint" in sql]
    assert len(checkpoints) == 1
    assert size(path, "-wal") > CHECKPOINT_SIZE / 2


async def _append_for_ever(journal: Journal) -> None:
    for number in itertools.count():
        await journal.append([entry(number, by) for by in range(2000)], height=7)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_bug_in_the_writer_is_a_failure_too(start: Start) -> None:
    journal = start()
    with pytest.raises(StateDamaged, match="by a bug; see the traceback"):
        await journal.append([entry()._replace(signature=Signature(b"short"))], height=7)
    with pytest.raises(StateDamaged, match="by a bug"):
        await journal.failed()


async def test_closing_commits_what_was_handed_over(start: Start) -> None:
    journal = start()
    journal.append_lazily([entry(1)], height=7)
    journal.close()
    assert kept(start()) == {7: {entry(1)}}


async def test_closing_leaves_one_file_and_the_lock(start: Start, path: Path) -> None:
    journal = start()
    await journal.append([entry()], height=7)
    journal.close()
    journal.close()
    assert files_in(path.parent) == ["journal.db", "journal.db.lock"]


async def test_a_closed_journal_takes_nothing(start: Start) -> None:
    journal = start()
    journal.close()
    with pytest.raises(RuntimeError, match="closed"):
        await journal.append([entry()], height=7)


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("evict"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("forget"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
)


@given(script=st.lists(steps, max_size=25))
@settings(deadline=None, max_examples=60)
def test_the_file_holds_what_a_set_would(
    script: list[tuple[str, int, int]], identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("law") / "journal.db"
    expected: set[Entry] = set()
    refuted: set[Entry] = set()

    async def play() -> None:
        nonlocal expected, refuted
        journal = Journal.open(path, identity)
        for verb, number, by in script:
            one = entry(number, by)
            match verb:
                case "append":
                    await journal.append([one, entry(number, by + 1)], height=7)
                    expected |= {one, entry(number, by + 1)} - refuted
                case "evict":
                    await journal.evict([one, one._replace(signature=Signature(b"\1" * 64))])
                    expected -= {one}
                    refuted |= {one}
                case "forget":
                    await journal.forget([one.batch_id])
                    expected = {e for e in expected if e.batch_id != one.batch_id}
                    refuted = {e for e in refuted if e.batch_id != one.batch_id}
                case _:
                    journal.close()
                    journal = Journal.open(path, identity)
        journal.close()

    asyncio.run(play())
    journal = Journal.open(path, identity)
    found = [one for some in journal.load().entries.values() for one in some]
    journal.close()
    assert set(found) == expected
    assert len(found) == len(expected)
