"""The nouns of the protocol.

Bytes are big-endian throughout; hex appears only where a person reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, NewType

from eth_hash.auto import keccak

if TYPE_CHECKING:
    from collections.abc import Mapping

Address = NewType("Address", bytes)
"""An account or contract, 20 bytes."""

BatchId = NewType("BatchId", bytes)
"""keccak256(Merkle root ‖ sender), 32 bytes: the message operators sign."""

OperatorId = NewType("OperatorId", bytes)
"""keccak256(G1 key x ‖ y), 32 bytes."""

BlockHash = NewType("BlockHash", bytes)
"""32 bytes."""

TransactionHash = NewType("TransactionHash", bytes)
"""32 bytes."""

Signature = NewType("Signature", bytes)
"""A point of G1, 64 bytes: x ‖ y, each canonical (below the field modulus)."""

G1Point = NewType("G1Point", bytes)
"""64 bytes: x ‖ y. Infinity is 64 zero bytes and never valid from outside."""

G2Point = NewType("G2Point", bytes)
"""128 bytes: x.c0 ‖ x.c1 ‖ y.c0 ‖ y.c1, the real part first. Contracts and events put the
imaginary part first; ``aligned.chain`` converts at the border."""

Stake = NewType("Stake", int)
"""Weight in the stake registry's units (uint96)."""

Wei = NewType("Wei", int)
"""1e-18 ether."""

Term = NewType("Term", int)
"""A period of leadership, numbered from 1, rising."""

QUORUM_NUMBER = 0
"""The only quorum of Aligned."""

THRESHOLD_PERCENT = 67
"""Signed stake that the contract demands, in percent of the total: a constant there."""


class BlockRef(NamedTuple):
    """A block by number and hash: a number alone means another block after a reorg."""

    number: int
    hash: BlockHash


class Response(NamedTuple):
    """One operator's signature on one batch, as it came over the wire; nothing in it is proven."""

    merkle_root: bytes
    """32 bytes."""
    sender: Address
    batch_id: BatchId
    """As sent; equals ``batch_id(merkle_root, sender)`` only if the sender is honest."""
    operator_id: OperatorId
    signature: Signature
    """Canonical coordinates of a point on the curve, not infinity: the decoder checked that."""


class Entry(NamedTuple):
    """One verified signature: the unit that memory, journal and store keep.

    Only one valid signature exists for a batch and an operator, so entries are write-once and
    merging in any order gives the same set.
    """

    batch_id: BatchId
    operator_id: OperatorId
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of proofs as its ``NewBatchV3`` event tells it.

    The same batch id may appear in another block after a reorg: what was derived from a batch
    is keyed by ``created`` as well.
    """

    batch_id: BatchId
    merkle_root: bytes
    """32 bytes."""
    sender: Address
    """The batcher (payment service) that posted it and pays for the answer."""
    created: BlockRef
    """The reference block: operators and stakes count as of this block."""
    fee_limit: Wei
    """The most the contract pays for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A registered operator with the keys its registration proved possession of."""

    operator_id: OperatorId
    address: Address
    g1: G1Point
    g2: G2Point


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSet:
    """Quorum 0 as of one block."""

    block: BlockRef
    stakes: Mapping[OperatorId, Stake] = field(repr=False)
    """Every member, also those with no stake left."""
    total: Stake
    """The contract's own total, which its threshold counts against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which deployment on which chain a state belongs to. A state of another one is refused."""

    chain_id: int
    genesis_hash: BlockHash
    service_manager: Address
    deployment_hash: BlockHash
    """Hash of the deployment block: tells a re-created development chain from its predecessor."""


def batch_id(merkle_root: bytes, sender: Address) -> BatchId:
    """Return the id of the batch with this Merkle root (32 bytes) and sender.

    Source: ``AlignedLayerServiceManager``, ``keccak256(abi.encodePacked(root, sender))``.
    """
    return BatchId(keccak(merkle_root + sender))


def operator_id(g1: G1Point) -> OperatorId:
    """Return the id of the operator with this key.

    Source: eigenlayer-middleware, ``BN254.hashG1Point``.
    """
    return OperatorId(keccak(g1))
