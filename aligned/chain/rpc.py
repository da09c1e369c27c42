"""JSON-RPC: what callers may ask of the chain, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aligned.errors import AlignedError, ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aligned.model import Address, BlockHash


class RpcError(AlignedError):
    """A node understood the request and refused it: another node would say the same.

    Attributes:
        code: JSON-RPC error code.
        message: The node's words.
        data: Revert data and the like, in whatever form the node gave it.
    """

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.message = message
        self.data = data


class BlockMissing(ChainUnavailable):
    """Every endpoint that answered lacks the block asked for, or no longer has its state."""


class Undecodable(ChainUnavailable):
    """An endpoint answered with something that is no answer to the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one endpoint said to a raw transaction."""

    endpoint: str
    """Its name."""
    accepted: bool
    """It has the transaction: taken now, or known before."""
    error: RpcError | None = None
    """Its refusal; None too when it could not be reached."""
    reason: str = ""
    """Why it could not be reached, for people."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What all endpoints said to a raw transaction."""

    sent: tuple[Sent, ...]

    @property
    def is_accepted(self) -> bool:
        """At least one endpoint has the transaction."""
        return any(sent.accepted for sent in self.sent)

    @property
    def refusals(self) -> tuple[RpcError, ...]:
        """The refusals, in the order of the endpoints; empty also when none was reached."""
        return tuple(sent.error for sent in self.sent if sent.error is not None)


class Rpc(Protocol):
    """The chain as a set of endpoints that are asked in order of preference.

    Results are the JSON values as they came.
    """

    async def call(
        self, method: str, params: Sequence[object], *, reaching: int | None = None
    ) -> Any:
        """Return one answer, from the first endpoint that has one.

        Args:
            method: Its name.
            params: As JSON-RPC has them.
            reaching: Number of a block without which an endpoint is not believed; it is asked for
                in the same exchange. Several nodes answer a range of log entries beyond their
                head with what they have, and no error.

        Raises:
            RpcError: The request is wrong, or reverted; no other endpoint is asked.
            BlockMissing: No endpoint has the block that the request is pinned to, or is to reach.
            ChainUnavailable: No endpoint answers; or one that might have reached the block
                failed, and the others have not.
        """

    async def call_many(
        self, calls: Sequence[tuple[str, Sequence[object]]]
    ) -> list[Any | RpcError]:
        """Return the answers to several requests, in order, all from one endpoint.

        A refusal of one is its answer; the others stand.

        Raises:
            BlockMissing: As for ``call``, if it is so for any of them.
            ChainUnavailable: No endpoint answers.
        """

    async def find(self, method: str, params: Sequence[object]) -> Any:
        """Return the first answer that is not null, asking every healthy endpoint; else None.

        For receipts and the like, which one endpoint may have before the others.

        Raises:
            RpcError: As for ``call``.
            ChainUnavailable: No endpoint answers.
        """

    async def maximum(self, method: str, params: Sequence[object]) -> int:
        """Return the greatest answer of all healthy endpoints (nonces, heights).

        Raises:
            RpcError: Every endpoint that answered refused.
            ChainUnavailable: No endpoint answers.
        """

    async def broadcast(self, raw: bytes) -> Broadcast:
        """Send a signed transaction to all endpoints at once and return what each said.

        One that was away gets it when it is back, and is not waited for. Repeats are harmless.
        Never raises for what an endpoint does.
        """


def pinned(block_hash: BlockHash) -> Mapping[str, object]:
    """Return the block argument that stands for exactly this block (EIP-1898).

    A node that lacks the block, or has it in a side branch, answers with an error instead of
    the state of another one.
    """
    return {"blockHash": "0x" + block_hash.hex(), "requireCanonical": True}


def eth_call(
    to: Address, data: bytes, block: str | Mapping[str, object]
) -> tuple[str, list[object]]:
    """Return method and parameters of a read; ``block`` is a tag, a hex number or ``pinned``."""
    return "eth_call", [{"to": "0x" + to.hex(), "data": "0x" + data.hex()}, block]


def to_bytes(answer: object) -> bytes:
    """Return the bytes of a hex string.

    Raises:
        Undecodable: It is none.
    """
    if isinstance(answer, str) and answer.startswith("0x"):
        try:
            return bytes.fromhex(answer[2:])
        except ValueError:
            pass
    msg = f"an endpoint answered {answer!r:.80} where 0x-prefixed bytes belong"
    raise Undecodable(msg)


def to_int(answer: object) -> int:
    """Return the integer of a hex quantity.

    Raises:
        Undecodable: It is none.
    """
    if isinstance(answer, str) and answer.startswith("0x"):
        try:
            return int(answer, 16)
        except ValueError:
            pass
    msg = f"an endpoint answered {answer!r:.80} where a 0x-prefixed quantity belongs"
    raise Undecodable(msg)
