"""A chain in memory with Aligned's contracts, and nodes that show it with every fault.

``FakeChain`` is the truth; a ``FakeNode`` answers JSON-RPC about it, perhaps late or wrongly;
``FakeNet`` is the ``Transport`` that leads to nodes by URL.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eth_abi.abi import decode, encode
from eth_hash.auto import keccak

from aligned.chain import abi
from aligned.chain.deployment import Contracts
from aligned.chain.transport import TransportFailed
from aligned.model import Address, BatchId, BlockHash, BlockRef, Operator, OperatorId, batch_id
from tests.fakes.builders import SENDER, root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHAIN_ID = 31337
SECONDS = 12
"""Between blocks."""

CONTRACTS = Contracts(
    service_manager=Address(b"\xa1" * 20),
    registry_coordinator=Address(b"\xa2" * 20),
    operator_state_retriever=Address(b"\xa3" * 20),
    bls_apk_registry=Address(b"\xa4" * 20),
    stake_registry=Address(b"\xa5" * 20),
)
AGGREGATOR = Address(b"\xaa" * 20)


@dataclass(frozen=True, slots=True)
class FakeLog:
    address: Address
    topics: tuple[bytes, ...]
    data: bytes


def new_batch(number: int, *, fee_limit: int = 10**16, pointer: bytes = b"https://x") -> FakeLog:
    data = encode(("address", "uint32", "bytes", "uint256"), (SENDER, 0, pointer, fee_limit))
    return FakeLog(CONTRACTS.service_manager, (abi.NEW_BATCH_V3, root(number)), data)


def batch_verified(number: int) -> FakeLog:
    topics = (abi.BATCH_VERIFIED, root(number))
    return FakeLog(CONTRACTS.service_manager, topics, encode(("address",), (SENDER,)))


def registration(operator: Operator) -> FakeLog:
    g2 = operator.g2
    words = (g2[32:64], g2[:32], g2[96:], g2[64:96])
    return FakeLog(
        CONTRACTS.bls_apk_registry,
        (abi.NEW_PUBKEY_REGISTRATION, bytes(12) + operator.address),
        operator.g1 + b"".join(words),
    )


@dataclass(frozen=True, slots=True)
class FakeBlock:
    number: int
    hash: BlockHash
    parent: BlockHash
    timestamp: int
    logs: tuple[FakeLog, ...] = ()
    stakes: Mapping[OperatorId, int] = field(default_factory=dict)
    """Members at the end of the block."""

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.number, self.hash)


class FakeChain:
    """Blocks with logs; the contracts' storage follows from them."""

    def __init__(
        self, *, genesis: bytes = b"genesis", finality: int | None = 64, age: float = 0.0
    ) -> None:
        self._salt = 0
        first = BlockHash(keccak(genesis))
        self.blocks = [FakeBlock(0, first, BlockHash(bytes(32)), int(time.time() - age))]
        self.finality = finality
        """Depth of ``finalized``; None: the chain does not know the word."""
        self.deployment = 0
        """Block from which on the contracts are there."""
        self.raw: list[bytes] = []
        """Transactions that arrived."""

    @property
    def head(self) -> FakeBlock:
        return self.blocks[-1]

    def mine(self, *logs: FakeLog, stakes: Mapping[OperatorId, int] | None = None) -> BlockRef:
        parent = self.head
        self._salt += 1
        block = FakeBlock(
            parent.number + 1,
            BlockHash(keccak(parent.hash + self._salt.to_bytes(8, "big"))),
            parent.hash,
            parent.timestamp + SECONDS,
            logs,
            parent.stakes if stakes is None else stakes,
        )
        self.blocks.append(block)
        return block.ref

    def mine_many(self, count: int) -> BlockRef:
        for _ in range(count):
            self.mine()
        return self.head.ref

    def drop(self, depth: int) -> None:
        """Take the newest blocks away; mining goes on in another branch."""
        del self.blocks[-depth:]

    def reorg(self, depth: int) -> BlockRef:
        """Replace the newest blocks by as many empty ones, and one more."""
        self.drop(depth)
        return self.mine_many(depth + 1)

    def visible(self, lag: int = 0) -> list[FakeBlock]:
        return self.blocks[: len(self.blocks) - lag]


class Refusal(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class FakeNode:
    """One node on a chain. Attributes are faults; all off at first."""

    def __init__(self, chain: FakeChain) -> None:
        self.chain = chain
        self.chain_id = CHAIN_ID
        self.lag = 0
        """Blocks it has not got yet; beyond its head there are no log entries, and no error."""
        self.says_syncing = False
        self.is_down = False
        self.hangs = False
        self.status = 200
        self.body: bytes | None = None
        """Sent in place of any answer."""
        self.refuses_batches = False
        self.log_range: int | None = None
        """Most blocks of one eth_getLogs."""
        self.keeps_states: int | None = None
        """Newest blocks whose state it has."""
        self.errors: dict[str, tuple[int, str]] = {}
        """Refusals by method."""
        self.aggregator = AGGREGATOR
        self.before: Callable[[str, list[Any]], None] = lambda _method, _params: None
        self.after: Callable[[str, list[Any]], None] = lambda _method, _params: None
        """Run around each request: to move the chain, the clock or this node in the middle."""
        self.asked: list[str] = []
        """Methods, in order."""
        self.exchanges = 0

    async def answer(self, body: bytes) -> tuple[int, bytes]:
        self.exchanges += 1
        await asyncio.sleep(0)  # others get a turn, as they do on a network
        if self.is_down:
            raise TransportFailed("no connection")
        if self.hangs:
            await asyncio.Event().wait()
        if self.body is not None or self.status != 200:
            return self.status, self.body or b""
        answer = json.dumps(self._answer(json.loads(body))).encode()
        if self.is_down:
            raise TransportFailed("the connection broke")
        return 200, answer

    def _answer(self, request: Any) -> object:
        if not isinstance(request, list):
            return self._one(request)
        if self.refuses_batches:
            error = {"code": -32600, "message": "batches are not allowed"}
            return {"jsonrpc": "2.0", "id": None, "error": error}
        return [self._one(one) for one in request][::-1]

    def _one(self, request: dict[str, Any]) -> dict[str, Any]:
        method = request["method"]
        self.asked.append(method)
        self.before(method, request["params"])
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            answer["result"] = self._result(method, request["params"])
        except Refusal as refusal:
            answer["error"] = refusal.error
        self.after(method, request["params"])
        return answer

    def _result(self, method: str, params: list[Any]) -> object:
        if method in self.errors:
            raise Refusal(*self.errors[method])
        handler = getattr(self, "_" + method, None)
        if handler is None:
            raise Refusal(-32601, f"the method {method} does not exist/is not available")
        return handler(*params)

    # Methods, by their names.

    def _eth_chainId(self) -> str:  # noqa: N802 - JSON-RPC's name
        return hex(self.chain_id)

    def _eth_syncing(self) -> object:
        if not self.says_syncing:
            return False
        return {
            "currentBlock": self._eth_blockNumber(),
            "highestBlock": hex(self.chain.head.number),
        }

    def _eth_blockNumber(self) -> str:  # noqa: N802 - JSON-RPC's name
        return hex(self._blocks()[-1].number)

    def _eth_getTransactionCount(self, _account: str, _tag: str) -> str:  # noqa: N802 - as above
        return hex(max(len(self.chain.raw) - self.lag, 0))

    def _eth_getTransactionReceipt(self, _hash: str) -> object:  # noqa: N802 - as above
        return None if self.lag else {"status": "0x1"}

    def _eth_sendRawTransaction(self, raw: str) -> str:  # noqa: N802 - as above
        data = bytes.fromhex(raw[2:])
        if data in self.chain.raw:
            raise Refusal(-32000, "already known")
        self.chain.raw.append(data)
        return "0x" + keccak(data).hex()

    def _eth_getCode(self, address: str, _tag: str) -> str:  # noqa: N802 - as above
        known = {
            CONTRACTS.service_manager,
            CONTRACTS.registry_coordinator,
            CONTRACTS.operator_state_retriever,
        }
        is_there = bytes.fromhex(address[2:]) in known and self._is_deployed(self._blocks())
        return "0x60" if is_there else "0x"

    def _eth_getBlockByNumber(self, tag: str, _full: bool) -> object:  # noqa: N802 - as above
        blocks = self._blocks()
        if tag == "finalized":
            if self.chain.finality is None:
                raise Refusal(-39001, "unknown block")
            tag = hex(max(blocks[-1].number - self.chain.finality, 0))
        number = blocks[-1].number if tag == "latest" else int(tag, 16)
        if number >= len(blocks):
            return None
        block = blocks[number]
        return {
            "number": hex(block.number),
            "hash": "0x" + block.hash.hex(),
            "parentHash": "0x" + block.parent.hex(),
            "timestamp": hex(block.timestamp),
            "baseFeePerGas": hex(10**9),
        }

    def _eth_getLogs(self, wanted: dict[str, Any]) -> list[dict[str, object]]:  # noqa: N802 - as above
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        if self.log_range is not None and last - first + 1 > self.log_range:
            raise Refusal(-32005, f"query exceeds max block range {self.log_range}")
        return [
            entry
            for block in self._blocks()[first : last + 1]
            for entry in _entries(block)
            if _matches(entry, wanted)
        ]

    def _eth_call(self, request: dict[str, str], tag: object) -> str:
        state = self._state(tag)
        data = bytes.fromhex(request["data"][2:])
        read = _READS.get(data[:4])
        if read is None or not self._is_deployed(state):
            return "0x"
        return "0x" + read(self, state, data[4:]).hex()

    # State.

    def _is_deployed(self, state: list[FakeBlock]) -> bool:
        return state[-1].number >= self.chain.deployment

    def _blocks(self) -> list[FakeBlock]:
        return self.chain.visible(self.lag)

    def _state(self, tag: object) -> list[FakeBlock]:
        """Blocks up to the one whose state is asked."""
        blocks = self._blocks()
        if not isinstance(tag, dict):
            return blocks
        for block in blocks:
            if "0x" + block.hash.hex() == tag["blockHash"]:
                age = blocks[-1].number - block.number
                if self.keeps_states is not None and age >= self.keeps_states:
                    raise Refusal(-32000, "missing trie node 1234 (path ) state is not available")
                return blocks[: block.number + 1]
        raise Refusal(-32000, "header for hash not found")

    def batches_state(self, state: list[FakeBlock], arguments: bytes) -> bytes:
        created, responded, fee_limit = 0, False, 0
        for block in state:
            for log in block.logs:
                if _batch(log) != arguments:
                    continue
                if log.topics[0] == abi.NEW_BATCH_V3:
                    created = block.number
                    fee_limit = decode(("address", "uint32", "bytes", "uint256"), log.data)[3]
                else:
                    responded = True
        return encode(("uint32", "bool", "uint256"), (created, responded, fee_limit))

    def operator_state(self, state: list[FakeBlock], arguments: bytes) -> bytes:
        _, _, number = decode(("address", "bytes", "uint32"), arguments)
        stakes = state[min(number, len(state) - 1)].stakes  # as the contracts: the last entry <=
        members = [(i[-20:], i, stake) for i, stake in stakes.items()]
        return encode(("(address,bytes32,uint96)[][]",), ([members],))

    def total_stake_indices(self, _state: list[FakeBlock], arguments: bytes) -> bytes:
        number, _ = decode(("uint32", "bytes"), arguments)
        return encode(("uint32[]",), ([number],))

    def total_stake(self, state: list[FakeBlock], arguments: bytes) -> bytes:
        _, number, _ = decode(("uint8", "uint32", "uint256"), arguments)
        return encode(("uint256",), (sum(state[min(number, len(state) - 1)].stakes.values()),))

    def check_signatures_indices(self, _state: list[FakeBlock], arguments: bytes) -> bytes:
        _, number, _, ids = decode(("address", "uint32", "bytes", "bytes32[]"), arguments)
        numbers = list(range(len(ids)))
        return encode(
            ("(uint32[],uint32[],uint32[],uint32[][])",),
            ((numbers, [number], [number + 1], [numbers]),),
        )

    def operator_from_pubkey_hash(self, state: list[FakeBlock], arguments: bytes) -> bytes:
        for block in state:
            for log in block.logs:
                is_one = log.topics[0] == abi.NEW_PUBKEY_REGISTRATION
                if is_one and keccak(log.data[:64]) == arguments:
                    return log.topics[1]
        return bytes(32)


_READS: dict[bytes, Callable[[FakeNode, list[FakeBlock], bytes], bytes]] = {
    abi.BATCHES_STATE: FakeNode.batches_state,
    abi.ALIGNED_AGGREGATOR: lambda node, _s, _a: bytes(12) + node.aggregator,
    abi.BLS_APK_REGISTRY: lambda _n, _s, _a: bytes(12) + CONTRACTS.bls_apk_registry,
    abi.STAKE_REGISTRY: lambda _n, _s, _a: bytes(12) + CONTRACTS.stake_registry,
    abi.GET_OPERATOR_STATE: FakeNode.operator_state,
    abi.GET_TOTAL_STAKE_INDICES: FakeNode.total_stake_indices,
    abi.GET_TOTAL_STAKE: FakeNode.total_stake,
    abi.GET_CHECK_SIGNATURES_INDICES: FakeNode.check_signatures_indices,
    abi.GET_OPERATOR_FROM_PUBKEY_HASH: FakeNode.operator_from_pubkey_hash,
}


def _batch(log: FakeLog) -> BatchId | None:
    return batch_id(log.topics[1], SENDER) if log.address == CONTRACTS.service_manager else None


def _entries(block: FakeBlock) -> Iterator[dict[str, object]]:
    for position, log in enumerate(block.logs):
        yield {
            "address": "0x" + log.address.hex(),
            "topics": ["0x" + topic.hex() for topic in log.topics],
            "data": "0x" + log.data.hex(),
            "blockNumber": hex(block.number),
            "blockHash": "0x" + block.hash.hex(),
            "logIndex": hex(position),
            "removed": False,
        }


def _matches(entry: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if entry["address"] != wanted["address"]:
        return False
    pairs = zip(wanted["topics"], entry["topics"], strict=False)
    return all(topic in choice for choice, topic in pairs)


class FakeNet:
    """``Transport`` to nodes by URL."""

    def __init__(self, nodes: Mapping[str, FakeNode]) -> None:
        self.nodes = dict(nodes)

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        node = self.nodes.get(url)
        if node is None:
            raise TransportFailed("no connection")
        return await node.answer(body)
