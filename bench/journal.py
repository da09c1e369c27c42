"""Cost of making signatures durable, by how many share a commit.

    .venv/bin/python -m bench.journal [--runs 5] [--folder FOLDER]

Prints, for each group size, the process's CPU time per signature and the rate and latency of
commits: median of the runs with the lowest and highest. 100 batches of 200 operators in random
order, which is the worst case: a commit of 64 touches some 47 batches. ``busy`` is the median
latency beside a loop that computes without a pause. Then: how long a start takes with all of them.

FOLDER decides which disk is measured; the default is a temporary one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aggregator.journal.journal import Journal
from aligned.model import Address, BatchId, BlockHash, Entry, Identity, OperatorId, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUPS = (1, 16, 64, 256)
BATCHES = 100
OPERATORS = 200
COMMITS = 1500
"""At most, for each run."""
BUSY_COMMITS = 60

IDENTITY = Identity(
    chain_id=1,
    genesis_hash=BlockHash(bytes(32)),
    service_manager=Address(bytes(20)),
    deployment_hash=BlockHash(bytes(32)),
)

_random = random.Random(1)  # noqa: S311 - no secrets here


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one group size."""

    cpu: float
    """µs per signature."""
    rate: float
    """Commits per second."""
    latency: float
    """Median ms per commit."""


def signatures() -> list[Entry]:
    batches = [BatchId(_random.randbytes(32)) for _ in range(BATCHES)]
    operators = [OperatorId(_random.randbytes(32)) for _ in range(OPERATORS)]
    entries = [Entry(b, o, Signature(_random.randbytes(64))) for b in batches for o in operators]
    _random.shuffle(entries)
    return entries


async def measure(folder: Path, entries: Sequence[Entry], group: int) -> Run:
    count = min(COMMITS, len(entries) // group)
    journal = Journal.open(folder / "journal.db", IDENTITY)
    latencies = []
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(count):
        before = time.perf_counter()
        await journal.append(entries[number * group : (number + 1) * group], height=1)
        latencies.append(time.perf_counter() - before)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    journal.close()
    return Run(cpu / count / group * 1e6, count / wall, statistics.median(latencies) * 1e3)


async def measure_busy(folder: Path, entries: Sequence[Entry], group: int) -> float:
    """Return the median latency in ms beside a loop that never waits."""
    journal = Journal.open(folder / "journal.db", IDENTITY)
    latencies = []
    for number in range(min(BUSY_COMMITS, len(entries) // group)):
        before = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            some = entries[number * group : (number + 1) * group]
            append = tasks.create_task(journal.append(some, height=1))
            while not append.done():
                sum(range(2000))
                await asyncio.sleep(0)
        latencies.append(time.perf_counter() - before)
    journal.close()
    return statistics.median(latencies) * 1e3


async def start(folder: Path, entries: Sequence[Entry]) -> float:
    """Return ms to open and load a journal of all ``entries``."""
    journal = Journal.open(folder / "journal.db", IDENTITY)
    for first in range(0, len(entries), 64):
        await journal.append(entries[first : first + 64], height=1)
    journal.close()
    began = time.perf_counter()
    journal = Journal.open(folder / "journal.db", IDENTITY)
    journal.load()
    took = time.perf_counter() - began
    journal.close()
    return took * 1e3


def spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    entries = signatures()

    def in_folder() -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=arguments.folder)

    print(f"{arguments.runs} runs: median (lowest–highest)\n")
    print("| signatures per commit | CPU µs per signature | commits/s | latency ms | busy ms |")
    print("|---:|---:|---:|---:|---:|")
    for group in GROUPS:
        runs, busy = [], []
        for _ in range(arguments.runs):
            with in_folder() as folder:
                runs.append(asyncio.run(measure(Path(folder), entries, group)))
            with in_folder() as folder:
                busy.append(asyncio.run(measure_busy(Path(folder), entries, group)))
        cells = (
            spread([run.cpu for run in runs], 1),
            spread([run.rate for run in runs], 0),
            spread([run.latency for run in runs], 2),
            spread(busy, 2),
        )
        print(f"| {group} | {' | '.join(cells)} |")
    took = []
    for _ in range(arguments.runs):
        with in_folder() as folder:
            took.append(asyncio.run(start(Path(folder), entries)))
    print(f"\nopen and load {len(entries)} signatures: {spread(took, 0)} ms")


if __name__ == "__main__":
    main()
