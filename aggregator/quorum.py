"""When a batch may be answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligned.model import THRESHOLD_PERCENT, Stake

if TYPE_CHECKING:
    from collections.abc import Collection

    from aligned.model import OperatorId, OperatorSet


@dataclass(frozen=True, slots=True)
class Tally:
    """Stake that has signed against stake there is."""

    signed: Stake
    total: Stake

    @property
    def is_quorum(self) -> bool:
        """Tell whether the contract would accept; exact, 67 % itself is enough.

        Source: ``AlignedLayerServiceManager.respondToTaskV2``,
        ``signed * 100 >= total * 67``. A total of zero never is one: there is nobody to sign.
        """
        return self.total > 0 and self.signed * 100 >= self.total * THRESHOLD_PERCENT

    @property
    def is_complete(self) -> bool:
        """Tell whether everybody has signed, so that waiting gains nothing."""
        return self.total > 0 and self.signed >= self.total


def tally(operators: OperatorSet, signers: Collection[OperatorId]) -> Tally:
    """Weigh ``signers`` (no repeats, any order); those that are not members count nothing."""
    stakes = operators.stakes
    signed = sum(stakes[signer] for signer in signers if signer in stakes)
    return Tally(signed=Stake(signed), total=operators.total)


def fire_at(counted: Tally, reached: float | None, now: float, window: float) -> float | None:
    """Return when to answer, as a time of the clock that gave ``now``; None without a quorum.

    Everybody's stake fires at once. The threshold alone waits ``window`` seconds from
    ``reached``, when it was first seen: each missing signer costs the batcher 18,000 gas.
    """
    if not counted.is_quorum:
        return None
    if counted.is_complete:
        return now
    return (now if reached is None else reached) + window
