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
        answers: Of the other Sentinels, each one's last; see ``translated``.
        addresses: Of all pods by ordinal.
        me: This pod's address.
        final: There is no time left to ask again.
    """
    named = best(answers)
    someone_may_know = Ignorance.SILENT in answers or Ignorance.REFUSING in answers
    if named is None:
        nobody_knows = final or not someone_may_know
        return Configuration(addresses[0], 0) if nobody_knows else None
    votes = _votes(answers)
    by_majority = 2 * votes.count(named.primary) > len(answers)
    unopposed = not someone_may_know and len(set(votes)) == 1
    agreed = named.primary != me and (by_majority or unopposed)
    return named if final or agreed else None


def best(answers: Sequence[Answer]) -> Configuration | None:
    """Return the newest configuration, of the newest ones what most go by; None: nobody has one."""
    votes = _votes(answers)
    return max(
        (answer for answer in answers if isinstance(answer, Configuration)),
        key=lambda answer: (answer.epoch, votes.count(answer.primary)),
        default=None,
    )


def _votes(answers: Sequence[Answer]) -> list[str]:
    return [answer.primary for answer in answers if isinstance(answer, Configuration)]


def translated(
    answers: Sequence[Answer], *, addresses: Sequence[str], claiming: Sequence[str]
) -> list[Answer]:
    """Return the answers in terms of addresses that there are.

    After a pod's Service was made anew, Sentinels that still run name its former address. If one
    of the other servers claims to be the primary, that is the one; else nobody can be understood.

    Args:
        answers: Of the other Sentinels.
        addresses: Of all pods.
        claiming: Addresses of the other servers that claim to be the primary.
    """

    def current(answer: Answer) -> Answer:
        if not isinstance(answer, Configuration) or answer.primary in addresses:
            return answer
        if len(claiming) == 1:
            return Configuration(claiming[0], answer.epoch)
        return Ignorance.SILENT

    return [current(answer) for answer in answers]
