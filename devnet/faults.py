"""What a fault proxy does to JSON-RPC calls, one fault at a time.

``Lagging`` answers as a node does that has not seen the newest blocks; the others refuse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from devnet.rpc import CallFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Forward = Callable[[str, list[Any]], Awaitable[Any]]

EVERY_METHOD: Final = "*"
_BLOCK_PARAMETER: Final = {
    "eth_call": 1,
    "eth_estimateGas": 1,
    "eth_getBalance": 1,
    "eth_getTransactionCount": 1,
    "eth_getCode": 1,
    "eth_getStorageAt": 2,
    "eth_feeHistory": 1,
}
_MINED: Final = ("eth_getTransactionReceipt", "eth_getTransactionByHash", "eth_getBlockByHash")
_SERVER_ERROR: Final = -32000


@dataclass(frozen=True, slots=True)
class RpcError:
    """A JSON-RPC error to answer with."""

    code: int
    message: str

    def failure(self, method: str) -> CallFailed:
        """Return it as the exception that carries it."""
        return CallFailed(method, {"code": self.code, "message": self.message})


@dataclass(frozen=True, slots=True)
class LogLimit:
    """How a provider limits ``eth_getLogs``."""

    blocks: int
    """More in one question are refused."""
    error: RpcError = RpcError(-32005, "query exceeds max block range")


@dataclass(slots=True, kw_only=True)
class Faults:
    """The switches of one proxy; all may be set at any time and together."""

    hang: bool = False
    """Hold every request until this is off again."""
    hanging: set[str] = field(default_factory=set)
    """Hold the calls of these methods, before they are forwarded, until they are taken out."""
    delay_seconds: float = 0.0
    """Answer later."""
    status: int | None = None
    """Answer every request with this HTTP status, e.g. 429."""
    lag_blocks: int = 0
    """Answer as if the newest blocks were not there: heads, logs, calls, receipts."""
    errors: dict[str, RpcError] = field(default_factory=dict)
    """Method, or ``EVERY_METHOD``, to the error it is answered with."""
    swallow_sends: bool = False
    """Answer a raw transaction with its hash, and do not forward it."""
    log_limit: LogLimit | None = None
    strict_replacement: bool = False
    """Refuse as geth does: a replacement that does not raise both fees by 10 %; a repeat."""
    chain_id: int | None = None
    """Claim to be on another chain."""


def refusal(faults: Faults, method: str) -> RpcError | None:
    """Return the error that calls of ``method`` get, if any."""
    return faults.errors.get(method) or faults.errors.get(EVERY_METHOD)


async def check_log_range(limit: LogLimit, params: list[Any], forward: Forward) -> None:
    """Return if the provider would answer this ``eth_getLogs``.

    Raises:
        CallFailed: It would not.
    """
    question = params[0]
    if "blockHash" in question:
        return
    head = int(await forward("eth_blockNumber", []), 16)
    first = _number(question.get("fromBlock", "latest"), head)
    last = _number(question.get("toBlock", "latest"), head)
    if last - first + 1 > limit.blocks:
        raise limit.error.failure("eth_getLogs")


def transaction_hash(raw: str) -> str:
    """Return the hash of a raw transaction."""
    return "0x" + keccak(hexstr=raw).hex()


async def check_replacement(raw: str, forward: Forward) -> None:
    """Return if geth would take this raw transaction as far as its pool is concerned.

    Raises:
        CallFailed: It is there already, or replaces one without raising both fees by 10 %.
    """
    method = "eth_sendRawTransaction"
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    sender = Account.recover_transaction(raw).lower()
    for waiting in await _waiting(sender, forward):
        if int(waiting["nonce"], 16) != fields["nonce"]:
            continue
        if waiting["hash"] == transaction_hash(raw):
            raise RpcError(_SERVER_ERROR, "already known").failure(method)
        for name in ("maxFeePerGas", "maxPriorityFeePerGas"):
            if fields[name] * 100 < int(waiting[name], 16) * 110:
                error = RpcError(_SERVER_ERROR, "replacement transaction underpriced")
                raise error.failure(method)


async def _waiting(sender: str, forward: Forward) -> list[dict[str, str]]:
    content = await forward("txpool_content", [])
    return [
        transaction
        for group in ("pending", "queued")
        for account, by_nonce in content[group].items()
        if account.lower() == sender
        for transaction in by_nonce.values()
    ]


class Lagging:
    """A node some blocks behind the one that ``forward`` reaches."""

    def __init__(self, blocks: int, forward: Forward) -> None:
        self._blocks = blocks
        self._forward = forward

    async def call(self, method: str, params: list[Any]) -> Any:
        """Return what such a node answers.

        Raises:
            CallFailed: It does not know the block asked for, or the real answer is an error.
        """
        head = max(0, int(await self._forward("eth_blockNumber", []), 16) - self._blocks)
        if method == "eth_blockNumber":
            return hex(head)
        if method == "eth_getBlockByNumber":
            return await self._block(params, head)
        if method == "eth_getLogs":
            return await self._logs(params[0], head)
        if method in _MINED:
            return await self._mined(method, params, head)
        if method in _BLOCK_PARAMETER:
            params = await self._as_of(method, params, head)
        return await self._forward(method, params)

    async def _block(self, params: list[Any], head: int) -> Any:
        tag = params[0]
        number = await self._known(tag, head)
        if number > head:
            return None
        return await self._forward("eth_getBlockByNumber", [hex(number), *params[1:]])

    async def _logs(self, question: dict[str, Any], head: int) -> Any:
        if "blockHash" in question:
            await self._require(question["blockHash"], head, "eth_getLogs")
            return await self._forward("eth_getLogs", [question])
        first = _number(question.get("fromBlock", "latest"), head)
        last = min(head, _number(question.get("toBlock", "latest"), head))
        if first > last:
            return []
        return await self._forward(
            "eth_getLogs", [{**question, "fromBlock": hex(first), "toBlock": hex(last)}]
        )

    async def _mined(self, method: str, params: list[Any], head: int) -> Any:
        result = await self._forward(method, params)
        number = result and (result.get("blockNumber") or result.get("number"))
        return None if number and int(number, 16) > head else result

    async def _as_of(self, method: str, params: list[Any], head: int) -> list[Any]:
        place = _BLOCK_PARAMETER[method]
        block = params[place] if len(params) > place else "latest"
        if isinstance(block, dict) and "blockHash" in block:
            await self._require(block["blockHash"], head, method)
            return params
        number = block["blockNumber"] if isinstance(block, dict) else block
        known = await self._known(number, head)
        if known > head:
            raise RpcError(_SERVER_ERROR, "header not found").failure(method)
        return [*params[:place], hex(known), *params[place + 1 :]]

    async def _known(self, tag: str, head: int) -> int:
        """Return the number of a block as this node has it."""
        if tag not in {"finalized", "safe"}:
            return _number(tag, head)
        block = await self._forward("eth_getBlockByNumber", [tag, False])
        return max(0, int(block["number"], 16) - self._blocks)

    async def _require(self, block_hash: str, head: int, method: str) -> None:
        block = await self._forward("eth_getBlockByHash", [block_hash, False])
        if block is None or int(block["number"], 16) > head:
            raise RpcError(_SERVER_ERROR, "header for hash not found").failure(method)


def _number(tag: str, head: int) -> int:
    if tag in {"latest", "pending"}:
        return head
    return 0 if tag == "earliest" else int(tag, 16)
