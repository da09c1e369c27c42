"""Speed and size of the aggregator: measures, and prints tables.

Every run is also written to a file at once, one line of JSON, so that a long series can be
interrupted and taken up again with --resume. A run that fails is counted, shown and made up for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from bench.catalogue import PROGRAMS, Bench, catalogue
from bench.figures import Series, histograms, table
from devnet.daemon import DaemonFailed
from devnet.sentinel import GroupFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.figures import Figures

FAILURES = 0.2
"""Share of failed runs from which on a series is given up; three are always allowed."""

EXAMPLES = """
examples:
  make bench BENCH="--quick"                        everything once
  make bench BENCH="replicated --runs 5"            one of them
  make bench BENCH="failover handover redis --runs 100 --resume --draw docs/failovers.svg"
                                                    all failovers, 100 runs each, going on where
                                                    it was interrupted; an hour
  KUBECONFIG=... make bench BENCH=controller        the controller, at that API server
  make bench BENCH="failover handover redis --show" tables of what was measured before
"""


@dataclass(slots=True)
class Record:
    """What was measured of one benchmark, here and in its file."""

    file: Path
    runs: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, file: Path, *, keep: bool) -> Record:
        """Return what the file has; without ``keep`` that is set aside, and a new one begun."""
        record = cls(file)
        if not keep and file.exists():
            file.replace(file.with_suffix(".old"))
        for line in file.read_text().splitlines() if file.exists() else ():
            entry = json.loads(line)
            if "failed" in entry:
                record.failures.append(entry["failed"])
            else:
                record.runs.append(entry["figures"])
        return record

    def add(self, figures: Figures) -> None:
        self.runs.append(figures)
        self._write({"figures": figures})

    def fail(self, reason: str) -> None:
        self.failures.append(reason)
        self._write({"failed": reason})

    def _write(self, what: dict[str, object]) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self.file.open("a") as file:
            file.write(json.dumps({"at": at, **what}) + "\n")


async def measure(bench: Bench, record: Record, runs: int) -> bool:
    """Measure until the record has so many runs; return False if too many fail."""
    began = time.monotonic()
    failed = 0
    while len(record.runs) < runs:
        try:
            async with aclosing(bench.series(runs - len(record.runs))) as series:  # type: ignore[type-var] # a generator
                async for figures in series:
                    record.add(figures)
                    _tell(bench, record, runs, time.monotonic() - began)
        except (
            *(DaemonFailed, GroupFailed, TimeoutError, RuntimeError, OSError),
            *(aiohttp.ClientError, ExceptionGroup),
        ) as failure:
            failed += 1
            record.fail(repr(failure)[:2000])
            print(f"{bench.name}: a run failed: {failure!r}"[:500], file=sys.stderr, flush=True)
            if failed > max(3, FAILURES * runs):
                return False
    return True


def _tell(bench: Bench, record: Record, runs: int, seconds: float) -> None:
    name = bench.main or next(iter(record.runs[-1]))
    print(
        f"{bench.name}: run {len(record.runs)} of {runs}, {name} {record.runs[-1][name]:,.1f} "
        f"({seconds:.0f} s)",
        file=sys.stderr,
        flush=True,
    )


def chosen(names: Sequence[str], benches: dict[str, Bench]) -> list[str]:
    """Return the full names of what is asked for; a beginning stands for all that begin so.

    Raises:
        ValueError: Nothing has this name.
    """
    every = [*PROGRAMS, *benches]
    found: list[str] = []
    for asked in names or every:
        some = [asked] if asked in every else [name for name in every if name.startswith(asked)]
        if not some:
            msg = f"no benchmark is called {asked!r}; there are {', '.join(every)}"
            raise ValueError(msg)
        found += [name for name in some if name not in found]
    return found


def _program(name: str, options: argparse.Namespace) -> bool:
    if options.show:
        return True
    print(f"\n## bench.{name}", flush=True)
    runs = ["--runs", str(options.runs)] if options.runs else []
    command = [sys.executable, "-m", f"bench.{name}", *runs]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - our own program


def draw(benches: Sequence[Bench], records: Sequence[Record], file: Path) -> None:
    """Draw the main figure of every series that has one."""
    drawn = [
        Series(bench.title, bench.unit, [run[bench.main] for run in record.runs], bench.reach)
        for bench, record in zip(benches, records, strict=True)
        if bench.main and record.runs
    ]
    file.write_text(histograms(drawn))


def main() -> int:
    """Measure what is asked for."""
    benches = catalogue(200, 60)
    options = _arguments(benches)
    config = os.environ.get("KUBECONFIG")
    benches = catalogue(options.operators, options.batches, Path(config) if config else None)
    try:
        names = chosen(options.names, benches)
    except ValueError as unknown:
        print(unknown, file=sys.stderr)
        return 2
    options.results.mkdir(parents=True, exist_ok=True)
    done: list[tuple[Bench, Record]] = []
    good = True
    for name in names:
        if name in PROGRAMS:
            good = _program(name, options) and good
            continue
        bench = benches[name]
        if bench.lacks and not options.show:
            print(f"{name} is not measured: {bench.lacks}", file=sys.stderr)
            good = good and not options.names  # whoever asks for it by name wants to know
            continue
        record = Record.at(options.results / f"{name}.jsonl", keep=options.resume or options.show)
        if not options.show:
            good = asyncio.run(measure(bench, record, options.runs or bench.runs)) and good
        done.append((bench, record))
        print(table(bench.title, record.runs, len(record.failures)), flush=True)
    _write(done, options)
    return 0 if good else 1


def _write(done: Sequence[tuple[Bench, Record]], options: argparse.Namespace) -> None:
    if options.json is not None:
        everything = {bench.name: record.runs for bench, record in done}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    if options.draw is not None:
        draw([bench for bench, _ in done], [record for _, record in done], options.draw)


def _arguments(benches: dict[str, Bench]) -> argparse.Namespace:
    about = PROGRAMS | {name: bench.about for name, bench in benches.items()}
    wide = max(map(len, about))
    listed = "\n".join(f"  {name:{wide}}  {text}" for name, text in about.items())
    parser = argparse.ArgumentParser(
        prog="bench",
        description=__doc__,
        epilog=f"benchmarks:\n{listed}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="benchmarks, or how their names begin; none: all"
    )
    parser.add_argument("--runs", type=int, help="of each (3)")
    parser.add_argument(
        "--quick", dest="runs", action="store_const", const=1, help="the same as --runs 1"
    )
    parser.add_argument("--operators", type=int, default=200, help="of the load (200)")
    parser.add_argument("--batches", type=int, default=60, help="of a closed loop (60)")
    parser.add_argument("--resume", action="store_true", help="add to the runs that were recorded")
    parser.add_argument("--show", action="store_true", help="measure nothing, show what there is")
    parser.add_argument(
        "--results", type=Path, default=Path("bench-results"), help="folder of records"
    )
    parser.add_argument("--json", type=Path, help="write all runs to this file")
    parser.add_argument("--draw", type=Path, help="write histograms of failovers to this SVG")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
