"""Outbox rows and receipts: one line each."""

from __future__ import annotations

import rlp  # type: ignore[import-untyped]  # it ships no types

from aggregator.chain import signer
from aggregator.chain.signer import Transaction
from aggregator.outbox import Kind, OutboxRow, Receipt
from aligned.model import Address, Batch, Term, TransactionHash, Wei
from tests.fakes.builders import block

ACCOUNT = Address(b"\xac" * 20)
CONTRACT = Address(b"\xc0" * 20)
CHAIN_ID = 31337


def data(answers: Batch | None) -> bytes:
    """Return call data with root and sender where ``respondToTaskV2`` has them."""
    if answers is None:
        return b""
    return b"\xab\x21\x73\x9a" + answers.merkle_root + bytes(12) + answers.sender


def unsigned(transaction: Transaction) -> bytes:
    """Return the bytes of a transaction with a signature that is none."""
    fields = [
        transaction.chain_id,
        transaction.nonce,
        transaction.tip,
        transaction.max_fee,
        transaction.gas,
        transaction.to,
        transaction.value,
        transaction.data,
        [],
        0,
        1,
        1,
    ]
    return b"\x02" + bytes(rlp.encode(fields))


def row(
    nonce: int,
    answers: Batch | None = None,
    *,
    attempt: int = 0,
    max_fee: int = 200,
    tip: int = 10,
    gas: int = 300_000,
) -> OutboxRow:
    """A row of our account; without a batch, a cancellation."""
    transaction = Transaction(
        chain_id=CHAIN_ID,
        nonce=nonce,
        to=ACCOUNT if answers is None else CONTRACT,
        value=Wei(0),
        data=data(answers),
        gas=gas,
        max_fee=Wei(max_fee),
        tip=Wei(tip),
    )
    raw = unsigned(transaction)
    return OutboxRow(
        sender=ACCOUNT,
        nonce=nonce,
        attempt=attempt,
        kind=Kind.CANCEL if answers is None else Kind.ANSWER,
        batch_id=None if answers is None else answers.batch_id,
        created=None if answers is None else answers.created,
        raw=raw,
        hash=signer.transaction_hash(raw),
        gas=gas,
        max_fee=Wei(max_fee),
        max_priority_fee=Wei(tip),
        term=Term(1),
    )


def receipt(of: OutboxRow, *, at: int = 110, fork: int = 0, succeeded: bool = True) -> Receipt:
    return Receipt(
        hash=TransactionHash(of.hash),
        block=block(at, fork),
        succeeded=succeeded,
        gas_used=of.gas - 20_000,
        gas_price=of.max_fee,
    )
