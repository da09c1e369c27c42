"""What nodes answer to plain questions, decoded. Pure."""

from __future__ import annotations

from aggregator.outbox import Receipt
from aligned.chain.rpc import RpcError, Undecodable, to_bytes, to_int
from aligned.errors import ChainUnavailable
from aligned.model import BlockHash, BlockRef, TransactionHash, Wei

DEFAULT_TIP = Wei(1_000_000_000)
"""Per gas, where the node suggests none."""


def receipt(answer: object) -> Receipt | None:
    """Return the receipt of a mined transaction; None if it is not mined.

    Raises:
        Undecodable: It lacks a part.
    """
    if not isinstance(answer, dict) or answer.get("blockHash") is None:
        return None
    try:
        return Receipt(
            hash=TransactionHash(to_bytes(answer["transactionHash"])),
            block=BlockRef(to_int(answer["blockNumber"]), BlockHash(to_bytes(answer["blockHash"]))),
            succeeded=to_int(answer["status"]) == 1,
            gas_used=to_int(answer["gasUsed"]),
            gas_price=Wei(to_int(answer["effectiveGasPrice"])),
        )
    except KeyError as missing:
        msg = f"a receipt without {missing}"
        raise Undecodable(msg) from missing


def known(answer: object) -> object:
    """Return an answer that no node should refuse.

    Raises:
        ChainUnavailable: It was refused.
    """
    if isinstance(answer, RpcError):
        msg = f"an endpoint refuses a plain read: {answer}"
        raise ChainUnavailable(msg) from answer
    return answer


def base_fee(block: object) -> Wei:
    """Return what a block burns per gas; 0 on chains without EIP-1559.

    Raises:
        Undecodable: It is no block.
    """
    if not isinstance(block, dict):
        msg = "an endpoint has no latest block"
        raise Undecodable(msg)
    return Wei(to_int(block.get("baseFeePerGas", "0x0")))


def tip(answer: object) -> Wei:
    """Return the priority fee per gas that a node suggests, or the default if it refuses."""
    return DEFAULT_TIP if isinstance(answer, RpcError) else Wei(to_int(answer))
