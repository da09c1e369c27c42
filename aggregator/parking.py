"""Batches that cannot be answered now: why, and when to try again. Pure.

A parked batch is never dropped: it is tried again until the chain shows its answer or it expires.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from aligned.errors import AlignedError, ChainUnavailable, StoreUnavailable, Unavailable

if TYPE_CHECKING:
    from aligned.model import BatchId, BlockRef

FIRST_SECONDS = 5.0
"""Before the first new attempt."""

CAP_SECONDS = 300.0
"""The longest wait."""

_SHORT_CAP_SECONDS = 60.0

_JITTER = 0.25
"""Part of a wait that is drawn at random, so that a hundred batches do not ask at once."""


class Reason(StrEnum):
    """Why a batch waits."""

    NO_QUORUM_DATA = "no_quorum_data"
    """Keys, stakes or indices of its block cannot be had, or do not fit together."""
    FEE_LIMIT = "fee_limit"
    """The market is above what the batch, or our own cap, pays."""
    BATCHER_FUNDS = "batcher_funds"
    OWN_FUNDS = "own_funds"
    PAUSED = "paused"
    """The contract is."""
    WRONG_AGGREGATOR = "wrong_aggregator"
    """The contract knows another account as its aggregator."""
    FOREIGN_NONCE = "foreign_nonce"
    """Somebody else sends with our key."""
    CHAIN_AWAY = "chain_away"
    SIGNER_AWAY = "signer_away"
    STORE_AWAY = "store_away"
    MOVED = "moved"
    """A reorg took the batch to another block, or off the chain."""
    TOO_EARLY = "too_early"
    """The chain must be a block further than the batch's own."""
    ANSWERED = "answered"
    """The contract says it is answered; the event was not seen yet."""
    BUSY = "busy"
    """What it needs went to another: the nonce meant for it, or its batcher's deposit."""
    REVERT = "revert"
    """The contract refuses for a reason that is not known."""


QUIET = frozenset({Reason.TOO_EARLY, Reason.ANSWERED, Reason.MOVED, Reason.BUSY})
"""Reasons that pass by themselves: nobody has to do anything."""

ALARMING = frozenset(
    {
        Reason.NO_QUORUM_DATA,
        Reason.BATCHER_FUNDS,
        Reason.OWN_FUNDS,
        Reason.WRONG_AGGREGATOR,
        Reason.FOREIGN_NONCE,
        Reason.REVERT,
    }
)
"""Reasons that stay until a person acts."""

ADVICE = {
    Reason.NO_QUORUM_DATA: "check the endpoints: they must serve logs and "
    "state of the batch's block",
    Reason.FEE_LIMIT: "wait for a lower base fee, or raise submission.max_fee_per_gas",
    Reason.BATCHER_FUNDS: "the batcher must deposit into the service manager",
    Reason.OWN_FUNDS: "fund the aggregator's account",
    Reason.PAUSED: "wait until the contract's owner resumes it",
    Reason.WRONG_AGGREGATOR: "configure the key of the contract's aggregator, or have its owner "
    "call setAggregator",
    Reason.FOREIGN_NONCE: "stop the other program that uses this key, then restart the aggregator",
    Reason.CHAIN_AWAY: "check the endpoints",
    Reason.SIGNER_AWAY: "check the signer",
    Reason.STORE_AWAY: "check the store",
    Reason.REVERT: "look up the revert; if it persists, report it with this line",
}
"""What a person should do, for logs and status."""

_SHORT = frozenset(
    {
        Reason.FEE_LIMIT,
        Reason.BATCHER_FUNDS,
        Reason.OWN_FUNDS,
        Reason.CHAIN_AWAY,
        Reason.SIGNER_AWAY,
        Reason.STORE_AWAY,
        Reason.MOVED,
        Reason.ANSWERED,
        Reason.BUSY,
    }
)
"""Reasons that change by the minute and cost one round of reading to look at again."""


class CannotSend(AlignedError):
    """A batch cannot be answered now.

    Attributes:
        reason: Why.
        detail: The facts, with numbers, for a person.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """One batch that waits."""

    batch_id: BatchId
    created: BlockRef
    """Its block when it was parked: in another one it is another case."""
    reason: Reason
    detail: str
    attempts: int
    """In a row for this reason, from 1."""
    since: float
    """When this reason was first met, in seconds of the clock."""
    retry_at: float
    """In seconds of the same clock."""


def delay(reason: Reason, attempts: int, luck: float) -> float:
    """Return the seconds to wait after this many attempts; ``luck`` is drawn from [0, 1)."""
    cap = _SHORT_CAP_SECONDS if reason in _SHORT else CAP_SECONDS
    whole: float = min(FIRST_SECONDS * 2.0 ** min(attempts - 1, 16), cap)
    return whole * (1 - _JITTER * luck)


def outage(away: Unavailable) -> CannotSend:
    """Return what it means for an answer that something outside is away."""
    match away:
        case ChainUnavailable():
            reason = Reason.CHAIN_AWAY
        case StoreUnavailable():
            reason = Reason.STORE_AWAY
        case _:
            reason = Reason.SIGNER_AWAY
    return CannotSend(reason, str(away))


def park(
    before: Parked | None,
    batch_id: BatchId,
    created: BlockRef,
    problem: CannotSend,
    *,
    now: float,
    luck: float,
) -> Parked:
    """Return the record of a batch that met ``problem``; ``before`` is its last one.

    The same reason in the same block waits longer each time; another one starts over.
    """
    same = before is not None and before.reason is problem.reason and before.created == created
    attempts = before.attempts + 1 if same and before is not None else 1
    return Parked(
        batch_id=batch_id,
        created=created,
        reason=problem.reason,
        detail=problem.detail,
        attempts=attempts,
        since=before.since if same and before is not None else now,
        retry_at=now + delay(problem.reason, attempts, luck),
    )
