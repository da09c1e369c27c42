"""A chain with one account and one contract, in memory: pool, blocks, reorgs.

It understands just what the transactor asks. Every call gives way to other tasks once.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode

from aggregator.chain import signer
from aggregator.chain.signer import SignerUnavailable, Transaction
from aligned.chain import abi
from aligned.chain.calldata import Indices
from aligned.chain.rpc import Broadcast, RpcError, Sent
from aligned.errors import ChainUnavailable
from aligned.model import Address, Batch, BatchId, BlockRef, OperatorId, batch_id
from tests.fakes.builders import block
from tests.fakes.rows import ACCOUNT, CONTRACT, unsigned

GAS = 250_000


@dataclass
class State:
    """What a reorg takes back."""

    count: int = 5
    batches: dict[BatchId, list[Any]] = field(default_factory=dict)
    """Created block, responded, fee limit."""
    receipts: dict[bytes, dict[str, str]] = field(default_factory=dict)


class FakeChain:
    """Implements ``Rpc``, ``HeadSource`` and ``Indexes``."""

    refuse: Callable[[str, list[Any]], Exception | None] = staticmethod(
        lambda _method, _params: None
    )
    """What a request meets in place of its answer."""

    def __init__(self) -> None:
        self.state = State()
        self.blocks: list[tuple[BlockRef, State]] = [(block(100), State())]
        self.fork = 0
        self.pool: dict[int, bytes] = {}
        self.base_fee = 100
        self.tip = 10
        self.balance = 10**18
        self.deposit = 10**18
        self.aggregator = ACCOUNT
        self.final_depth = 10**6
        self.pending_foreign = 0
        self.away = False
        self.revert: RpcError | None = None
        """Of simulations."""
        self.simulates = True
        """It has ``eth_simulateV1``."""
        self.swallow = False
        """Raw transactions are taken and forgotten."""
        self.lag_receipts = False
        """Nobody shows a receipt."""
        self.undo = False
        """What is mined is undone."""
        self.broadcasts: list[bytes] = []
        self.on_broadcast: Callable[[bytes], None] = lambda _: None
        self.turns: list[tuple[int, int]] = []
        """When each request began and ended, in the order of their ends."""
        self._moments = itertools.count()
        self._news = asyncio.Event()

    # Switches.

    def post(self, batch: Batch, *, fee_limit: int | None = None) -> None:
        self.state.batches[batch.batch_id] = [
            batch.created.number,
            False,
            batch.fee_limit if fee_limit is None else fee_limit,
        ]

    def mine(self, *, empty: bool = False) -> None:
        """Mine what is payable, in the order of nonces."""
        before = copy.deepcopy(self.state)
        number = self.blocks[-1][0].number + 1
        ref = block(number, self.fork)
        while not empty and self.state.count in self.pool:
            raw = self.pool[self.state.count]
            transaction = signer.decode(raw)
            if transaction.max_fee < self.base_fee:
                break
            del self.pool[self.state.count]
            self.state.count += 1
            self._execute(raw, transaction, ref)
        self.blocks.append((ref, before))
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _execute(self, raw: bytes, transaction: Transaction, ref: BlockRef) -> None:
        succeeded = True
        if transaction.to == CONTRACT:
            found = self.state.batches.get(answered_by(transaction))
            succeeded = found is not None and not found[1] and not self.undo
            if found is not None and succeeded:
                found[1] = True
        self.state.receipts[bytes(signer.transaction_hash(raw))] = {
            "transactionHash": "0x" + signer.transaction_hash(raw).hex(),
            "blockNumber": hex(ref.number),
            "blockHash": "0x" + ref.hash.hex(),
            "status": hex(succeeded),
            "gasUsed": hex(GAS),
            "effectiveGasPrice": hex(min(transaction.max_fee, self.base_fee + transaction.tip)),
        }

    def reorg(self, depth: int) -> None:
        """Take the last blocks back; their transactions are gone. New ones take their place."""
        self.fork += 1
        self.state = self.blocks[-depth][1]
        del self.blocks[-depth:]
        for _ in range(depth):
            self.mine(empty=True)

    def steal(self) -> None:
        """Let somebody else use the next nonce."""
        self.state.count += 1
        self.pool.pop(self.state.count - 1, None)

    @property
    def rounds(self) -> int:
        """How many requests had to wait for one before, in the longest chain of them."""
        count, last = 0, -1
        for began, ended in self.turns:
            if began > last:
                count, last = count + 1, ended
        return count

    @property
    def responded(self) -> set[BatchId]:
        return {batch_id for batch_id, found in self.state.batches.items() if found[1]}

    # HeadSource, Indexes.

    @property
    def head(self) -> BlockRef:
        return self.blocks[-1][0]

    @property
    def finalized(self) -> BlockRef | None:
        at = len(self.blocks) - self.final_depth - 1
        return self.blocks[at][0] if at >= 0 else None

    async def next_head(self) -> BlockRef:
        await self._news.wait()
        return self.head

    async def indices(
        self, created: BlockRef, non_signers: Sequence[OperatorId], *, at: BlockRef
    ) -> Indices:
        del created, at
        await self._turn()
        zeros = tuple(0 for _ in non_signers)
        return Indices(
            non_signer_bitmap=zeros,
            quorum_apk=(0,),
            total_stake=(0,),
            non_signer_stake=(zeros,),
        )

    # Rpc.

    async def call(
        self, method: str, params: Sequence[object], *, reaching: int | None = None
    ) -> Any:
        assert reaching is None
        (answer,) = await self.call_many([(method, params)])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def call_many(
        self, calls: Sequence[tuple[str, Sequence[object]]]
    ) -> list[Any | RpcError]:
        await self._turn()
        return [self._meet(method, list(params)) for method, params in calls]

    def _meet(self, method: str, params: list[Any]) -> Any:
        problem = self.refuse(method, params)
        if problem is None or isinstance(problem, RpcError):
            return problem or self._answer(method, params)
        raise problem

    async def find(self, method: str, params: Sequence[object]) -> Any:
        return await self.call(method, params)

    async def maximum(self, method: str, params: Sequence[object]) -> int:
        return int(await self.call(method, params), 16)

    async def broadcast(self, raw: bytes) -> Broadcast:
        self.on_broadcast(raw)
        self.broadcasts.append(raw)
        try:
            await self._turn()
        except ChainUnavailable as away:
            return Broadcast((Sent(endpoint="fake", accepted=False, reason=str(away)),))
        error = None if self.swallow else self._take(raw)
        return Broadcast((Sent(endpoint="fake", accepted=error is None, error=error),))

    def _take(self, raw: bytes) -> RpcError | None:
        transaction = signer.decode(raw)
        if transaction.nonce < self.state.count:
            return RpcError(-32000, "nonce too low")
        if (held := self.pool.get(transaction.nonce)) not in {None, raw} and held is not None:
            old = signer.decode(held)
            if transaction.max_fee * 10 < old.max_fee * 11 or transaction.tip * 10 < old.tip * 11:
                return RpcError(-32000, "replacement transaction underpriced")
        self.pool[transaction.nonce] = raw
        return None

    async def _turn(self) -> None:
        began = next(self._moments)
        await asyncio.sleep(0)
        self.turns.append((began, next(self._moments)))
        if self.away:
            raise ChainUnavailable("the fake chain was told to be away")

    def _answer(self, method: str, params: list[Any]) -> Any:
        answers: dict[str, Callable[[], Any]] = {
            "eth_getTransactionCount": lambda: self._count(params[1]),
            "eth_getBlockByNumber": lambda: {"baseFeePerGas": hex(self.base_fee)},
            "eth_maxPriorityFeePerGas": lambda: hex(self.tip),
            "eth_getBalance": lambda: hex(self.balance),
            "eth_estimateGas": lambda: self.revert or hex(GAS),
            "eth_simulateV1": self._simulate,
            "eth_getTransactionReceipt": lambda: self._receipt(params[0]),
            "eth_call": lambda: self._read(bytes.fromhex(params[0]["data"][2:]), params[1]),
        }
        return answers[method]()

    def _simulate(self) -> Any:
        if not self.simulates:
            return RpcError(-32601, "the method eth_simulateV1 does not exist")
        result: dict[str, Any] = {"status": hex(self.revert is None), "gasUsed": hex(GAS)}
        if self.revert is not None:
            result["error"] = {"code": self.revert.code, "message": self.revert.message}
        return [{"calls": [result]}]

    def _receipt(self, transaction_hash: str) -> dict[str, str] | None:
        known = self.state.receipts.get(bytes.fromhex(transaction_hash[2:]))
        return None if self.lag_receipts else known

    def _count(self, tag: str) -> str:
        if tag == "pending":
            return hex(self.state.count + len(self.pool) + self.pending_foreign)
        return hex(self._as_of(tag).count)

    def _as_of(self, tag: str) -> State:
        if tag.startswith("0x"):
            after = (before for ref, before in self.blocks if ref.number == int(tag, 16) + 1)
            return next(after, self.state)
        return self.state

    def _read(self, data: bytes, tag: str) -> Any:
        selector = data[:4]
        if selector == abi.ALIGNED_AGGREGATOR:
            return "0x" + encode(["address"], [self.aggregator]).hex()
        if selector == abi.BATCHERS_BALANCES:
            return "0x" + encode(["uint256"], [self.deposit]).hex()
        if selector == abi.BATCHES_STATE:
            found = self._as_of(tag).batches.get(BatchId(data[4:36]), [0, False, 0])
            return "0x" + encode(["uint32", "bool", "uint256"], found).hex()
        return self.revert or "0x"


def answered_by(transaction: Transaction) -> BatchId:
    """Return the batch in the call data of an answer."""
    return batch_id(transaction.data[4:36], Address(transaction.data[48:68]))


class PaperSigner:
    """Signs with nothing: what it returns decodes, and costs no arithmetic."""

    def __init__(self, account: Address = ACCOUNT) -> None:
        self.address = account
        self.away = False

    async def account(self) -> Address:
        return self.address

    async def sign(self, transaction: Transaction, account: Address) -> bytes:
        del account
        await asyncio.sleep(0)
        if self.away:
            raise SignerUnavailable("the fake signer was told to be away")
        return unsigned(transaction)
