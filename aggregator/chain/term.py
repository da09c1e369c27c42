"""What the transactor keeps for one term, and whom it works for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.chain.pen import Fence, Pen
    from aggregator.outbox import OutboxRow, Receipt
    from aggregator.parking import CannotSend
    from aligned.model import BatchId


class Desk(Protocol):
    """Who hands in answers, and hears what became of them. All methods return at once."""

    def waiting(self) -> int:
        """Return how many batches are ready and have no nonce."""

    def park(self, batch_id: BatchId, problem: CannotSend) -> None:
        """Take note that an answer failed, or was withdrawn."""

    def mined(self, batch_id: BatchId, receipt: Receipt) -> None:
        """Take note that an answer of ours was mined and did not revert; once for each receipt."""

    def look_again(self) -> None:
        """Take note that something changed: a nonce was consumed, there is room."""


@dataclass(slots=True)
class TermState:
    """State of one term."""

    fence: Fence
    rows: Sequence[OutboxRow]
    desk: Desk
    pen: Pen | None = None
    """None until the signer has told its account."""
    admitted: bool = False
    """The account is the contract's aggregator, and all that is pending is ours."""
    stolen: set[int] = field(default_factory=set)
    """Nonces that somebody else used, until a receipt of ours shows after all."""
    away: bool = False
