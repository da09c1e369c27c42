"""Cost of signature verification, by backend and by what waits together.

    .venv/bin/python -m bench.bls [--runs 9] [--backends arkworks,zksnake,py_ecc]
    .venv/bin/python -m bench.bls --load [--seconds 3]

The first prints CPU time per signature for one call of the backend, from Python objects to
verdicts: median µs with the lowest and highest run (wall time for py_ecc, whose work is in other
processes). All signatures are valid and no input repeats.

The second runs the stage in a loop: connections that send their next signature a while after the
last one's verdict, and arrivals at a fixed rate. CPU time is the whole process's, this driver too.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aggregator.ports import Standing
from aggregator.verify import Verifier
from aligned.bls.backend import Group, Runs
from aligned.bls.choose import BACKENDS
from aligned.bls.curve import G2, sum_g1
from aligned.model import BatchId, Entry, OperatorId, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from aligned.bls.backend import Backend, Key

SHAPES = [(1, 1), (1, 4), (1, 10), (1, 50), (1, 200), (8, 200), (20, 10), (64, 1)]
"""(messages, signatures on each)"""

_random = random.Random(1)  # noqa: S311 - no secrets here

SLOW_SHAPES = SHAPES[:3]
"""For py_ecc."""


class Operators:
    """Keys of the secrets 1, 2, 3, …"""

    def __init__(self, backend: Backend, count: int) -> None:
        one = backend.key(G2)
        self.keys = [one]
        while len(self.keys) < count:
            self.keys.append(backend.key(backend.sum_keys([self.keys[-1], one])))

    def sign(self, backend: Backend, batch_id: bytes) -> list[Signature]:
        """Return everybody's signature on a batch."""
        message = backend.hash_to_g1(batch_id)
        signatures = [message]
        while len(signatures) < len(self.keys):
            signatures.append(sum_g1([signatures[-1], message]))
        return [Signature(point) for point in signatures]


def random_batch() -> BatchId:
    return BatchId(_random.randbytes(32))


# One call of the backend.


def group(backend: Backend, operators: Operators, size: int) -> Group:
    batch_id = random_batch()
    chosen = _random.sample(range(len(operators.keys)), size)
    signatures = operators.sign(backend, batch_id)
    keys: list[Key] = [operators.keys[i] for i in chosen]
    return Group(backend.hash_to_g1(batch_id), [signatures[i] for i in chosen], keys)


def microseconds(backend: Backend, groups: Sequence[Group]) -> float:
    clock = time.perf_counter if backend.runs is Runs.PROCESS else time.process_time
    began = clock()
    bad = backend.bad_signatures(groups)
    spent = clock() - began
    if any(bad):
        msg = f"{backend.name} refuses valid signatures"
        raise SystemExit(msg)
    return spent * 1e6


def table(backends: Sequence[Backend], runs: int) -> Iterator[str]:
    shapes = [f"{messages}×{size}" if messages > 1 else f"{size}" for messages, size in SHAPES]
    yield "| backend | " + " | ".join(shapes) + " |"
    yield "|---" * (len(SHAPES) + 1) + "|"
    for backend in backends:
        is_slow = backend.runs is Runs.PROCESS
        operators = Operators(backend, 10 if is_slow else 200)
        cells = []
        for messages, size in SLOW_SHAPES if is_slow else SHAPES:
            costs = []
            for _ in range(min(runs, 3) if is_slow else runs):
                groups = [group(backend, operators, size) for _ in range(messages)]
                costs.append(microseconds(backend, groups) / (messages * size))
            low, middle, high = min(costs), statistics.median(costs), max(costs)
            cells.append(f"{middle:.1f} ({low:.1f}–{high:.1f})")
        cells += ["–"] * (len(SHAPES) - len(cells))
        yield f"| {backend.name} | " + " | ".join(cells) + " |"


# The stage under load.


@dataclass(eq=False)
class Arrival:
    """A signature of the load."""

    entry: Entry
    key: Key
    standing: Standing
    connection: int
    arrived: float = 0.0
    withdrawn: bool = False


@dataclass
class Load:
    """Signatures of 200 operators over many batches; each connection sends its operator's."""

    backend: Backend
    spread: int
    """Batches that are being signed at a time."""
    latencies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.verifier: Verifier[Arrival] = Verifier(self.backend, self._take)
        self.on_verdict: Callable[[Arrival], None] = lambda _: None
        self._operators = Operators(self.backend, 200)
        self._batches = [random_batch() for _ in range(max(400, self.spread))]
        self._signatures = [self._operators.sign(self.backend, b) for b in self._batches]
        self._standings = [Standing() for _ in self._operators.keys]
        for standing in self._standings:
            standing.verified = 1
        self._next = [_random.randrange(self.spread) for _ in self._operators.keys]

    def send(self, connection: int) -> None:
        at = self._next[connection]
        self._next[connection] = (at + 1) % len(self._batches)
        entry = Entry(
            self._batches[at],
            OperatorId(connection.to_bytes(32, "big")),
            self._signatures[at][connection],
        )
        key, standing = self._operators.keys[connection], self._standings[connection]
        self.verifier.submit(Arrival(entry, key, standing, connection, time.perf_counter()))

    def _take(self, verdicts: list[tuple[Arrival, bool]]) -> None:
        now = time.perf_counter()
        for arrival, _ in verdicts:
            self.latencies.append(now - arrival.arrived)
            self.on_verdict(arrival)

    async def closed(self, seconds: float, pause: float) -> None:
        """Each connection waits ``pause`` after a verdict, as for a commit and the network."""
        loop = asyncio.get_running_loop()

        def again(arrival: Arrival) -> None:
            loop.call_later(_random.uniform(0.5, 1.5) * pause, self.send, arrival.connection)

        self.on_verdict = again
        for connection in range(len(self._operators.keys)):
            self.send(connection)
        await asyncio.sleep(seconds)

    async def fixed(self, seconds: float, rate: float) -> None:
        """Poisson arrivals."""
        due = began = time.perf_counter()
        while due < began + seconds:
            while due <= time.perf_counter():
                self.send(_random.randrange(len(self._operators.keys)))
                due += _random.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def run(self, name: str, work: Coroutine[None, None, None]) -> str:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.verifier.run())
            began, cpu = time.perf_counter(), time.process_time()
            await work
            elapsed, spent = time.perf_counter() - began, time.process_time() - cpu
            task.cancel()
        done = self.verifier.statistics
        latencies = sorted(self.latencies)
        return (
            f"| {self.backend.name} | {name} | {done.signatures / elapsed:.0f} "
            f"| {spent / done.signatures * 1e6:.1f} | {done.seconds / done.signatures * 1e6:.1f} "
            f"| {done.signatures / done.calls:.1f} | {done.groups / done.calls:.1f} "
            f"| {latencies[len(latencies) // 2] * 1e3:.2f} "
            f"| {latencies[len(latencies) * 99 // 100] * 1e3:.2f} |"
        )


def loads(backend: Backend, seconds: float) -> Iterator[str]:
    yield (
        "| backend | load | signatures/s | CPU µs each | backend µs each | per call | messages "
        "| p50 ms | p99 ms |"
    )
    yield "|---" * 9 + "|"
    for spread in (1, 8, 20, 64, 400):
        load = Load(backend, spread)
        name = f"200 connections, 20 ms pause, {spread} batches"
        yield asyncio.run(load.run(name, load.closed(seconds, 0.02)))
    for rate in (200, 1000, 5000):
        load = Load(backend, 8)
        yield asyncio.run(load.run(f"{rate}/s, 8 batches", load.fixed(seconds, rate)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--backends", default="arkworks,zksnake,py_ecc")
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    backends = [BACKENDS[name]() for name in options.backends.split(",")]
    try:
        if options.load:
            tables = [loads(backend, options.seconds) for backend in backends]
        else:
            tables = [table(backends, options.runs)]
        for line in itertools.chain.from_iterable(tables):
            print(line, flush=True)
    finally:
        for backend in backends:
            backend.close()


if __name__ == "__main__":
    main()
