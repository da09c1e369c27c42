"""Block headers: the latest, the finalized, by number, by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligned.chain.rpc import BlockMissing, RpcError, Undecodable, to_bytes, to_int
from aligned.errors import ChainUnavailable
from aligned.model import BlockHash, BlockRef, Wei

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.chain.rpc import Rpc

FINALITY_DEPTH: Final = 64
"""Blocks under the head that count as final on chains that do not say: two epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What of a block's header matters here."""

    number: int
    hash: BlockHash
    parent: BlockHash
    timestamp: int
    """Unix seconds."""
    base_fee: Wei
    """Per gas; 0 on chains without EIP-1559."""

    @property
    def ref(self) -> BlockRef:
        """Number and hash."""
        return BlockRef(self.number, self.hash)


def parse_header(block: object) -> Header:
    """Return the header of a block in its JSON form.

    Raises:
        Undecodable: It is none.
    """
    if not isinstance(block, dict):
        msg = f"an endpoint answered {block!r:.80} where a block belongs"
        raise Undecodable(msg)
    return Header(
        number=to_int(block.get("number")),
        hash=BlockHash(to_bytes(block.get("hash"))),
        parent=BlockHash(to_bytes(block.get("parentHash"))),
        timestamp=to_int(block.get("timestamp")),
        base_fee=Wei(to_int(block.get("baseFeePerGas") or "0x0")),
    )


async def latest(rpc: Rpc) -> Header:
    """Return the head.

    Raises:
        ChainUnavailable: No endpoint answers.
    """
    try:
        return parse_header(await rpc.call("eth_getBlockByNumber", ["latest", False]))
    except RpcError as refusal:
        msg = f"the head is refused: {refusal}"
        raise ChainUnavailable(msg) from refusal


async def finalized(rpc: Rpc) -> Header | None:
    """Return the finalized block; None on a chain that does not name one.

    Raises:
        ChainUnavailable: No endpoint answers.
    """
    try:
        block = await rpc.call("eth_getBlockByNumber", ["finalized", False])
    except (RpcError, BlockMissing):  # "unknown block" where nothing was ever finalized
        return None
    return None if block is None else parse_header(block)


async def headers(rpc: Rpc, numbers: Sequence[int]) -> list[Header]:
    """Return the headers of these blocks, in the same order.

    Raises:
        BlockMissing: The endpoint does not have one of them.
        ChainUnavailable: No endpoint answers.
    """
    answers = await rpc.call_many([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
    found = []
    for number, answer in zip(numbers, answers, strict=True):
        if answer is None or isinstance(answer, RpcError):
            msg = f"block {number} is not there" + (f": {answer}" if answer is not None else "")
            raise BlockMissing(msg)
        found.append(parse_header(answer))
    return found


async def first_since(rpc: Rpc, timestamp: int, lowest: int, head: Header) -> int:
    """Return the first block at or after ``timestamp``, not below ``lowest``, by bisection.

    Raises:
        ChainUnavailable: No endpoint answers.
    """
    low, high = min(lowest, head.number), head.number
    while low < high:
        middle = (low + high) // 2
        (header,) = await headers(rpc, [middle])
        if header.timestamp < timestamp:
            low = middle + 1
        else:
            high = middle
    return low
