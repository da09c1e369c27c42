"""What the contracts' log entries say. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from aligned.chain.rpc import Undecodable, to_bytes, to_int
from aligned.model import (
    Address,
    Batch,
    BatchId,
    BlockHash,
    BlockRef,
    G1Point,
    G2Point,
    Operator,
    Wei,
    batch_id,
    operator_id,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Log(NamedTuple):
    """One log entry of a block that was in the chain when it was asked for."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes
    block: BlockRef
    position: int
    """Within the block: (block hash, position) is unique."""


class Answered(NamedTuple):
    """A ``BatchVerified`` event: the contract took an answer."""

    batch_id: BatchId
    block: BlockRef


def parse_log(entry: Mapping[str, Any]) -> Log:
    """Return a log entry from its JSON form.

    Raises:
        Undecodable: It lacks a part, or is pending.
    """
    return Log(
        address=Address(to_bytes(entry.get("address"))),
        topics=tuple(to_bytes(topic) for topic in entry.get("topics") or ()),
        data=to_bytes(entry.get("data")),
        block=BlockRef(
            to_int(entry.get("blockNumber")), BlockHash(to_bytes(entry.get("blockHash")))
        ),
        position=to_int(entry.get("logIndex")),
    )


def new_batch(log: Log) -> Batch:
    """Return the batch that a ``NewBatchV3`` log announces.

    Source: ``NewBatchV3(bytes32 indexed batchMerkleRoot, address senderAddress,
    uint32 taskCreatedBlock, string batchDataPointer, uint256 respondToTaskFeeLimit)``; the block
    in it is the log's own.

    Raises:
        Undecodable: The log is of another form.
    """
    # The pointer is decoded as bytes: whoever posts a batch may put anything into it.
    sender, _, _, fee_limit = _decode(("address", "uint32", "bytes", "uint256"), log)
    root, address = _root(log), _address(sender)
    return Batch(
        batch_id=batch_id(root, address),
        merkle_root=root,
        sender=address,
        created=log.block,
        fee_limit=Wei(fee_limit),
    )


def batch_verified(log: Log) -> Answered:
    """Return which batch a ``BatchVerified`` log declares answered.

    Source: ``BatchVerified(bytes32 indexed batchMerkleRoot, address senderAddress)``.

    Raises:
        Undecodable: The log is of another form.
    """
    (sender,) = _decode(("address",), log)
    return Answered(batch_id(_root(log), _address(sender)), log.block)


def new_operator(log: Log) -> Operator:
    """Return the operator that a ``NewPubkeyRegistration`` log brings.

    The contract checked possession and that both keys belong together.

    Source: ``NewPubkeyRegistration(address indexed operator, (uint256 X, uint256 Y) pubkeyG1,
    (uint256[2] X, uint256[2] Y) pubkeyG2)`` of ``BLSApkRegistry``; G2 words are imaginary first.

    Raises:
        Undecodable: The log is of another form.
    """
    data = log.data
    if len(log.topics) != 2 or len(data) != 6 * 32:  # noqa: PLR2004 - the event's own layout
        msg = f"a NewPubkeyRegistration log has {len(data)} bytes instead of 192"
        raise Undecodable(msg)
    g1 = G1Point(data[:64])
    x1, x0, y1, y0 = (data[start : start + 32] for start in range(64, 192, 32))
    return Operator(
        operator_id=operator_id(g1),
        address=Address(log.topics[1][12:]),
        g1=g1,
        g2=G2Point(x0 + x1 + y0 + y1),
    )


def _root(log: Log) -> bytes:
    if len(log.topics) != 2:  # noqa: PLR2004 - the event's name and its one indexed argument
        msg = f"a batch's log has {len(log.topics)} topics instead of 2"
        raise Undecodable(msg)
    return log.topics[1]


def _decode(types: tuple[str, ...], log: Log) -> tuple[Any, ...]:
    try:
        return decode(types, log.data)
    except (DecodingError, OverflowError) as error:
        msg = f"a log of block {log.block.number} cannot be decoded as {','.join(types)}"
        raise Undecodable(msg) from error


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
