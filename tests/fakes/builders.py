"""One line per noun. Values are plain patterns: recognisable, distinct, not valid cryptography."""

from __future__ import annotations

from aligned.model import (
    Address,
    Batch,
    BatchId,
    BlockHash,
    BlockRef,
    Entry,
    G1Point,
    G2Point,
    Operator,
    OperatorId,
    OperatorSet,
    Response,
    Signature,
    Stake,
    Wei,
    batch_id,
)

SENDER = Address(b"\x5e" * 20)


def root(number: int) -> bytes:
    """32 bytes, distinct by number."""
    return number.to_bytes(32, "big")


def a_batch_id(number: int) -> BatchId:
    return batch_id(root(number), SENDER)


def operator_id(number: int) -> OperatorId:
    return OperatorId(b"\x0b" + number.to_bytes(31, "big"))


def signature(number: int, by: int) -> Signature:
    """64 bytes, distinct by batch number and operator."""
    return Signature(number.to_bytes(32, "big") + by.to_bytes(32, "big"))


def block(number: int, fork: int = 0) -> BlockRef:
    return BlockRef(number, BlockHash(fork.to_bytes(16, "big") + number.to_bytes(16, "big")))


def entry(number: int = 1, by: int = 1) -> Entry:
    return Entry(a_batch_id(number), operator_id(by), signature(number, by))


def response(number: int = 1, by: int = 1, sig: Signature | None = None) -> Response:
    return Response(
        root(number),
        SENDER,
        a_batch_id(number),
        operator_id(by),
        signature(number, by) if sig is None else sig,
    )


def batch(number: int = 1, *, at: int = 100, fork: int = 0, fee_limit: int = 10**16) -> Batch:
    return Batch(
        batch_id=a_batch_id(number),
        merkle_root=root(number),
        sender=SENDER,
        created=block(at, fork),
        fee_limit=Wei(fee_limit),
    )


def operator(number: int) -> Operator:
    return Operator(
        operator_id=operator_id(number),
        address=Address(number.to_bytes(20, "big")),
        g1=G1Point(number.to_bytes(64, "big")),
        g2=G2Point(number.to_bytes(128, "big")),
    )


def operator_set(*stakes: int, at: int = 100) -> OperatorSet:
    """Operators 1, 2, ... with these stakes."""
    return OperatorSet(
        block=block(at),
        stakes={operator_id(n): Stake(s) for n, s in enumerate(stakes, 1)},
        total=Stake(sum(stakes)),
    )
