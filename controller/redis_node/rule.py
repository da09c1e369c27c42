"""Pure: which pod of the group is the primary, from what the other Sentinels say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ignorance(Enum):
    """Of one that cannot say who is the primary."""

    SILENT = auto()
    """It did not answer."""
    REFUSING = auto()
    """It answers, but not to this pod's password: it has another one."""
    STARTING = auto()
    """It answered that it does not know."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a Sentinel goes by."""

    primary: str
    """Its address."""
    epoch: int
    """Raised by each failover."""


Answer: TypeAlias = Configuration | Ignorance


def decide(
    answers: Sequence[Answer], *, addresses: Sequence[str], me: str, final: bool
) -> Configuration | None:
    """Return what this pod goes by; None: ask again.

    Args:
        answers: Of the other Sentinels, each one's last.
        addresses: Of all pods by ordinal. An answer that names none of them counts as ignorance:
            the address was given up.
        me: This pod's address.
        final: There is no time left to ask again.
    """
    named = [a for a in answers if isinstance(a, Configuration) and a.primary in addresses]
    someone_may_know = Ignorance.SILENT in answers or Ignorance.REFUSING in answers
    if not named:
        nobody_knows = final or not someone_may_know
        return Configuration(addresses[0], 0) if nobody_knows else None
    votes = [answer.primary for answer in named]
    best = max(named, key=lambda answer: (answer.epoch, votes.count(answer.primary)))
    by_majority = 2 * votes.count(best.primary) > len(answers)
    unopposed = not someone_may_know and len(set(votes)) == 1
    agreed = best.primary != me and (by_majority or unopposed)
    return best if final or agreed else None
