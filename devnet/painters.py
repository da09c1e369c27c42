"""How the demo looks: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from devnet.cast import KILLED, STANDS_BY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devnet.demo import Outcome, Painter, Row, Stage

_EVENTS = 6
_REFRESH_PER_SECOND = 8
_HASH_DIGITS = 12


class PlainPainter:
    """One line an event, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def event(self, text: str) -> None:
        """See ``Painter.event``."""
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", flush=True)  # noqa: T201

    def refresh(self, stage: Stage) -> None:
        """See ``Painter.refresh``."""


class LivePainter:
    """A table of batches with the last events under it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._started = time.monotonic()
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._stage: Stage | None = None

    def event(self, text: str) -> None:
        """See ``Painter.event``."""
        self._events.append(f"{time.monotonic() - self._started:6.1f} s  {text}")
        self._paint()

    def refresh(self, stage: Stage) -> None:
        """See ``Painter.refresh``."""
        self._stage = stage
        self._paint()

    def _paint(self) -> None:
        parts: list[Table | Text] = []
        if self._stage is not None:
            parts += [_headline(self._stage), _table(self._stage)]
        parts += [Text(event, style="dim") for event in self._events]
        self._live.update(Group(*parts))


def _headline(stage: Stage) -> Text:
    text = Text()
    for name, state in stage.aggregators.items():
        text.append(f"{name}: ")
        text.append(state, style=_style(state))
        text.append("   ")
    text.append(f"operators: {stage.needed} of {stage.operators} up, as many as the quorum needs")
    return text


def _style(state: str) -> str:
    if state == KILLED:
        return "bold red"
    return "dim" if state == STANDS_BY else "green"


def _table(stage: Stage) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("batch", "block", "signatures acknowledged", "answer"):
        table.add_column(column)
    for row in stage.rows:
        table.add_row(str(row.number), str(row.posted.created_block), _bar(row, stage), _end(row))
    return table


def _bar(row: Row, stage: Stage) -> Text:
    missing = stage.needed - row.acknowledged
    text = Text("█" * row.acknowledged, style="green" if not missing else "yellow")
    text.append("░" * max(missing, 0), style="dim")
    text.append(f" {row.acknowledged}/{stage.needed}")
    return text


def _end(row: Row) -> Text:
    if row.answers:
        return Text(f"verified {row.answers[0][: _HASH_DIGITS + 2]}…", style="bold green")
    return Text("collecting", style="dim")


@contextmanager
def painter(console: Console | None = None) -> Iterator[Painter]:
    """Give the painter that fits where the output goes."""
    console = console or Console(file=sys.stdout)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainPainter()
        return
    with Live(console=console, refresh_per_second=_REFRESH_PER_SECOND) as live:
        yield LivePainter(live)


def report(outcome: Outcome) -> str:
    """Return the summary as text."""
    gaps, failovers = (
        ", ".join(map(str, each)) or "none" for each in (outcome.gaps_ms, outcome.failovers_ms)
    )
    lines = [
        "",
        f"replicas                  {outcome.replicas}",
        f"batches posted            {outcome.posted}",
        f"batches verified          {outcome.verified}",
        f"signatures acknowledged   {outcome.acknowledged}",
        f"signatures lost           {outcome.lost}",
        f"batches answered twice    {outcome.answered_twice}",
        f"kills                     {outcome.kills}",
        f"gaps in ms                {gaps}   (from a kill to the next acknowledgement)",
        f"failovers in ms           {failovers}   (from a kill until somebody can answer)",
        "",
    ]
    lines += [f"FAILED: {problem}" for problem in outcome.problems]
    return "\n".join([*lines, "" if outcome.problems else "All good."]).rstrip()
