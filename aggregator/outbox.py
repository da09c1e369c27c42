"""Transactions written down before they are sent.

A row is write-once and keyed (sender, nonce, attempt): a fee bump or a cancellation is a new row.
Whoever leads next can send the same bytes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aligned.chain.calldata import BatchRecord, Indices
    from aligned.model import Address, BatchId, BlockRef, Term, TransactionHash, Wei


class Kind(StrEnum):
    """What a transaction is for."""

    ANSWER = "answer"
    """``respondToTaskV2`` for a batch."""
    CANCEL = "cancel"
    """A transfer of nothing to ourselves that uses up a nonce."""


class Standing(StrEnum):
    """What the outbox does about a batch."""

    FREE = "free"
    """Nothing: no nonce answers it."""
    UNDER_WAY = "under way"
    """A nonce answers it, or may still do so."""
    STALE = "stale"
    """A nonce has an answer built for another block: it is to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """One signed transaction."""

    sender: Address
    """Our account."""
    nonce: int
    attempt: int
    """From 0 within the nonce, rising by one."""
    kind: Kind
    batch_id: BatchId | None
    """None for a cancellation."""
    created: BlockRef | None
    """The batch's block that the answer was built for: another one after a reorg needs new data."""
    raw: bytes
    """The signed transaction as broadcast."""
    hash: TransactionHash
    gas: int
    """Gas limit."""
    max_fee: Wei
    """Per gas."""
    max_priority_fee: Wei
    """Per gas."""
    term: Term
    """In which it was signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a mined transaction, as long as its block is in the chain."""

    hash: TransactionHash
    block: BlockRef
    succeeded: bool
    gas_used: int
    gas_price: Wei
    """Paid, per gas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the chain says about a batch right before it is answered."""

    indices: Indices
    """For the non-signers that were asked about, in their order."""
    record: BatchRecord
    aggregator: Address
    """The account the contract takes answers from."""
    deposit: Wei
    """The batcher's, in the service manager."""
    balance: Wei
    """Our own."""
    base_fee: Wei
    """Of the head, per gas."""
    tip: Wei
    """What the node suggests as priority fee, per gas."""
