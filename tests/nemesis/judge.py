"""What all checks find in a history, and what a person wants to know beside it: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.nemesis import checks
from tests.nemesis.checks import Bounds
from tests.nemesis.history import History
from tests.nemesis.plan import Options, quorum

WINDOW_SECONDS = 4.0
"""The leader's wait for late signatures."""

CALL_SECONDS = 75.0
"""See ``Bounds.call``."""

_SLACK_SECONDS = {"fast": 3.0, "normal": 7.0}
"""See ``Bounds.slack``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run."""

    options: Options
    folder: Path
    """Logs, journals, the plan and the history are here."""
    signatures: checks.Signatures
    answers: checks.Answers
    terms: checks.Terms
    calls: checks.Calls
    faults: Counter[str]
    """Faults that were carried out, by kind."""
    longest_without_acknowledgement: float
    """Seconds; information."""
    longest_without_answer: float
    """Seconds between answers, as this process saw them; information."""
    problems: tuple[str, ...]
    """Of all checks; none: all is well."""


def bounds(options: Options) -> Bounds:
    """Return what the configuration of a run allows."""
    return Bounds(
        needed=quorum(options.operators),
        window=WINDOW_SECONDS,
        slack=_SLACK_SECONDS[options.profile],
        call=CALL_SECONDS,
    )


def judged(history: History, options: Options, folder: Path) -> Outcome:
    """Return what all checks find."""
    limits = bounds(options)
    signatures = checks.signatures(history, limits)
    answers, terms = checks.answers(history), checks.terms(history)
    calls = checks.calls(history, limits)
    acknowledged = [one.ended for one in history.calls if one.code == 0 and one.ended is not None]
    return Outcome(
        options=options,
        folder=folder,
        signatures=signatures,
        answers=answers,
        terms=terms,
        calls=calls,
        faults=Counter(kind for one in history.struck for kind in one.kinds),
        longest_without_acknowledgement=_longest(acknowledged),
        longest_without_answer=_longest(history.seen_verified.values()),
        problems=(
            *signatures.problems,
            *answers.problems,
            *terms.problems,
            *calls.problems,
            *checks.recovery(history),
        ),
    )


def _longest(times: Iterable[float]) -> float:
    return max((after - before for before, after in pairwise(sorted(times))), default=0.0)
