"""Pure: who keeps changing our objects back, and when to stop answering.

Changing a field that another manager sets again at once would go on for ever, and load the API
server with it. After three rounds we let it be for a while, longer each time, and name the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from controller import compare
from controller.compare import Path
from controller.observed import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from controller.ports import Manifest

ROUNDS = 3
"""Times in a row that a field was changed back before it is let be."""

QUIET = timedelta(minutes=10)
"""Without a change a contest is over."""

FIRST = timedelta(minutes=1)
"""That a field is let be at first; twice as long each further time."""

MOST_DOUBLED = 3
"""Times: shorter than ``QUIET`` is, or a contest would be forgotten while it goes on."""

Field = tuple[str, str, str, Path]
"""Namespace, kind, name, path."""


@dataclass(slots=True)
class _Contest:
    desired: str
    rounds: int
    last: datetime


class Contests:
    """What was applied lately, and how often the same again. For all resources."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._by_field: dict[Field, _Contest] = {}

    def held(
        self, desired: Manifest, live: Mapping[str, Any], wrong: tuple[Path, ...]
    ) -> Note | None:
        """Return what to tell if the object is to be let be for now.

        One field that nobody contests is reason enough to apply it whole.
        """
        if not all(self._is_held(desired, path) for path in wrong):
            return None
        who = compare.manager_of(live, wrong[0]) or "Somebody"
        return Note(
            "FieldContested",
            f"{who} keeps changing {'.'.join(wrong[0])} of {desired['kind']}"
            f" {desired['metadata']['name']}. Have it leave that field to us.",
        )

    def _is_held(self, desired: Manifest, path: Path) -> bool:
        contest = self._by_field.get(_field(desired, path))
        if contest is None or contest.rounds < ROUNDS or contest.desired != _at(desired, path):
            return False
        pause: timedelta = FIRST * 2 ** min(contest.rounds - ROUNDS, MOST_DOUBLED)
        return self._clock() < contest.last + pause

    def applied(self, desired: Manifest, wrong: tuple[Path, ...]) -> None:
        """Write down that these fields were set to what is desired."""
        now = self._clock()
        self._by_field = {
            field: contest
            for field, contest in self._by_field.items()
            if now < contest.last + QUIET
        }
        for path in wrong:
            field, value = _field(desired, path), _at(desired, path)
            before = self._by_field.get(field)
            again = before is not None and before.desired == value
            rounds = before.rounds + 1 if before is not None and again else 0
            self._by_field[field] = _Contest(value, rounds, now)


def _field(desired: Manifest, path: Path) -> Field:
    metadata = desired["metadata"]
    return metadata["namespace"], desired["kind"], metadata["name"], path


def _at(desired: Manifest, path: Path) -> str:
    """Return what is desired there, as far as it can be told; items of lists count whole."""
    at: Any = desired
    for step in path:
        if not isinstance(at, dict):
            break
        at = at.get(step)
    return json.dumps(at, sort_keys=True)
