from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggregator.journal.journal import Journal
from aggregator.journal.reading import Loaded
from aligned.model import Address, BlockHash, Identity
from tests.fakes.builders import entry

ROOT = Path(__file__).parents[2]

IDENTITY = Identity(
    chain_id=1,
    genesis_hash=BlockHash(b"g" * 32),
    service_manager=Address(b"s" * 20),
    deployment_hash=BlockHash(b"d" * 32),
)

DAEMON = """
import asyncio, os, random, resource, sys
from dataclasses import replace
from pathlib import Path
from aggregator.journal.format import Fence
from aggregator.journal.journal import Journal
from aligned.errors import DiskRefused
from aligned.model import Term
from tests.contracts.test_store import row
from tests.fakes.builders import a_batch_id, entry
from tests.integration.test_journal_crash import IDENTITY

path, generation, seed, limit = Path(sys.argv[1]), *map(int, sys.argv[2:])
dice = random.Random(seed)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

async def sign(journal, worker):
    by = 0
    while True:
        group = [entry(generation * 100 + worker, by + n) for n in range(dice.randint(1, 40))]
        by += len(group)
        await journal.append(group, height=7)
        say("entries", generation * 100 + worker, by)

async def submit(journal):
    fence = Fence(Term(generation + 1), "me")
    await journal.claim(fence)
    nonce = generation * 1_000_000
    while True:
        await journal.record(row(nonce), fence=fence)
        say("row", nonce)
        nonce += 1

async def sweep(journal):
    number = (generation + 1) * 1_000_000
    while True:
        gone = [entry(number, by) for by in range(50)]
        await journal.append(gone, height=7)
        await journal.forget([a_batch_id(number)])
        say("forgotten", number)
        number += 1

async def main():
    journal = Journal.open(path, IDENTITY)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.failed())
        group.create_task(submit(journal))
        group.create_task(sweep(journal))
        for worker in range(8):
            group.create_task(sign(journal, worker))

try:
    asyncio.run(main())
except* DiskRefused as failures:
    say("damaged", failures.exceptions[0])
    sys.exit(1)
"""


class Promises:
    """What the process said was durable."""

    def __init__(self) -> None:
        self.signed: dict[int, int] = {}
        """Operators 0..n-1 of a batch by its number."""
        self.nonces: set[int] = set()
        self.forgotten: set[int] = set()
        self.complaints: list[str] = []

    def note(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            return
        verb, *words = line.decode().split()
        match verb:
            case "entries":
                self.signed[int(words[0])] = int(words[1])
            case "row":
                self.nonces.add(int(words[0]))
            case "forgotten":
                self.forgotten.add(int(words[0]))
            case _:
                self.complaints.append(" ".join(words))

    def broken_by(self, loaded: Loaded) -> list[str]:
        held = {one for some in loaded.entries.values() for one in some}
        nonces = {row.nonce for row in loaded.outbox}
        return [
            *(
                f"batch {number} operator {by}"
                for number, count in self.signed.items()
                for by in range(count)
                if entry(number, by) not in held
            ),
            *(f"nonce {nonce}" for nonce in self.nonces - nonces),
            *(f"batch {number} came back" for number in self.forgotten if entry(number, 0) in held),
        ]


@contextmanager
def daemon(
    path: Path, generation: int, seed: int, limit: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [str(path), str(generation), str(seed), str(limit)]
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, *arguments], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def reopened(path: Path) -> Loaded:
    journal = Journal.open(path, IDENTITY)
    loaded = journal.load()
    journal.close()
    return loaded


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_survives_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "journal.db"
    dice = random.Random(seed)  # noqa: S311 - when to kill
    promises = Promises()
    for generation in range(4):
        with daemon(path, generation, dice.randrange(1000)) as process:
            assert process.stdout is not None
            for _ in range(dice.randint(1, 600)):
                promises.note(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                promises.note(line)
        if generation % 2:  # at other times the next daemon finds the log as it was left
            assert promises.broken_by(reopened(path)) == []
    assert len(promises.signed) > 8
    assert promises.complaints == []


def test_a_full_disk_ends_the_process_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    promises = Promises()
    with daemon(path, 0, 1, limit=300_000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            promises.note(line)
        assert process.wait(60) == 1
    assert promises.signed
    assert promises.broken_by(reopened(path)) == []
    (complaint,) = promises.complaints
    assert str(path) in complaint
    assert "Make room if the disk or a quota is full" in complaint


def test_a_live_journal_is_kept_from_a_second_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path, IDENTITY)
    second = subprocess.run(
        [sys.executable, "-c", DAEMON, str(path), "0", "1", "0"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    journal.close()
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"in use by process {os.getpid()} on" in second.stderr
