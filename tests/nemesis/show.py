"""How a run looks: a live picture in a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tests.nemesis.judge import Outcome
from tests.nemesis.plan import command

_EVENTS = 12
_REFRESH_PER_SECOND = 4
_PROBLEMS = 20


@dataclass(slots=True)
class Scene:
    """What can be seen now."""

    steps: int
    step: int = 0
    posted: int = 0
    acknowledged: int = 0
    delivering: int = 0
    answered: int = 0
    replicas: dict[str, str] = field(default_factory=dict)
    """What each is doing, by name."""


class Painter(Protocol):
    """Shows progress."""

    is_live: bool
    """Whether ``refresh`` does anything."""

    def event(self, text: str) -> None:
        """Something worth a line happened."""

    def refresh(self, scene: Scene) -> None:
        """The scene may have changed."""


class PlainPainter:
    """One line an event, with the seconds since the start."""

    is_live = False

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def event(self, text: str) -> None:
        self._console.print(
            f"{time.monotonic() - self._started:7.1f} s  {text}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def refresh(self, scene: Scene) -> None:
        pass


class LivePainter:
    """The scene with the last events under it."""

    is_live = True

    def __init__(self, live: Live) -> None:
        self._live = live
        self._started = time.monotonic()
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._scene: Scene | None = None

    def event(self, text: str) -> None:
        self._events.append(f"{time.monotonic() - self._started:7.1f} s  {text}")
        self._paint()

    def refresh(self, scene: Scene) -> None:
        self._scene = scene
        self._paint()

    def _paint(self) -> None:
        parts: list[Text] = []
        if self._scene is not None:
            parts += [_replicas(self._scene), _counts(self._scene)]
        parts += [Text(event, style="dim") for event in self._events]
        self._live.update(Group(*parts))


def _replicas(scene: Scene) -> Text:
    text = Text()
    for name, state in scene.replicas.items():
        text.append(f"{name}: ")
        text.append(state, style="green" if state.startswith("leads") else "")
        text.append("   ")
    return text


def _counts(scene: Scene) -> Text:
    return Text(
        f"step {scene.step} of {scene.steps}   batches {scene.posted}, answered {scene.answered}   "
        f"signatures acknowledged {scene.acknowledged}, on their way {scene.delivering}"
    )


@contextmanager
def painter(console: Console) -> Iterator[Painter]:
    """Give the painter that fits where the output goes."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainPainter(console)
        return
    with Live(console=console, refresh_per_second=_REFRESH_PER_SECOND) as live:
        yield LivePainter(live)


def report(outcome: Outcome) -> Group:
    """Return the summary."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _figures(outcome):
        table.add_row(name, value)
    lines = [Text(f"FAILED: {problem}", style="red") for problem in outcome.problems[:_PROBLEMS]]
    if more := len(outcome.problems) - len(lines):
        lines.append(Text(f"and {more} more, in {outcome.folder / 'problems.txt'}"))
    end = [Text(f"logs, journals, plan and history: {outcome.folder}")]
    if outcome.problems:
        end.append(Text(f"replay: {command(outcome.options)}", style="bold"))
    else:
        end.append(Text("All good.", style="bold green"))
    return Group(Text(), table, Text(), *lines, *end)


def _figures(outcome: Outcome) -> list[tuple[str, str]]:
    signatures, answers = outcome.signatures, outcome.answers
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.faults.items()))
    return [
        ("batches posted", f"{answers.posted}"),
        ("batches answered", f"{answers.answered}"),
        ("answered twice", f"{answers.twice}"),
        ("answers that reverted (gas wasted)", f"{answers.wasted}"),
        ("signatures acknowledged", f"{signatures.acknowledged}"),
        ("of them in an answer", f"{signatures.counted}"),
        ("of them too late for their answer", f"{signatures.late}"),
        ("signatures lost", f"{signatures.lost}"),
        ("terms, and transactions in them", f"{outcome.terms.terms}, {outcome.terms.effects}"),
        ("calls, the longest", f"{outcome.calls.calls}, {outcome.calls.longest:.1f} s"),
        ("faults", f"{outcome.faults.total()}: {faults or 'none'}"),
        ("longest without an acknowledgement", f"{outcome.longest_without_acknowledgement:.1f} s"),
        ("longest without an answer", f"{outcome.longest_without_answer:.1f} s"),
    ]
