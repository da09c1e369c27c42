"""A deployed network: its contracts, operators and owner's switches."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aligned.model import Address, BatchId, G1Point, G2Point, batch_id
from devnet.contracts import artifacts
from devnet.keys import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from devnet.anvil import Anvil
    from devnet.keys import OperatorKey

ETHER = 10**18

OWNER = Address(bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"))
"""The chain's account 0: deploys, registers operators, may pause."""

AGGREGATOR = Address(bytes.fromhex("15d34aaf54267db7d7c367839aaf71a00a2c6a65"))
"""Account 4."""

AGGREGATOR_KEY = bytes.fromhex("47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a")
"""Account 4's private key, as every anvil has it."""

_DEPLOY_GAS = 10_000_000
_CALL_GAS = 1_500_000


class Reverted(Exception):
    """A transaction of ours was mined and reverted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where the contracts are."""

    chain_id: int
    block: int
    """The service manager's."""
    service_manager: Address
    registry_coordinator: Address
    """Also the BLS key, stake and index registry."""
    operator_state_retriever: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """A batch in the contract's storage."""

    created_block: int
    """0: not there."""
    responded: bool
    fee_limit: int
    """Wei."""


class Network:
    """A deployed network on a chain. Every change is mined when its coroutine returns."""

    def __init__(self, anvil: Anvil, deployment: Deployment) -> None:
        self.anvil = anvil
        self.node = anvil.node
        """The chain itself, past any fault proxy."""
        self.deployment = deployment
        self.operators: tuple[OperatorKey, ...] = ()
        """In the order of registration, also those that left."""
        self._registry = artifacts.load().registry
        self._manager = artifacts.load().service_manager

    @classmethod
    async def deploy(cls, anvil: Anvil, *, stakes: Sequence[int] = (100,) * 4) -> Self:
        """Deploy the contracts and register one operator for each of ``stakes``.

        Raises:
            Reverted: The contracts are not deployable: the artifact is broken.
        """
        network = cls(anvil, await _deployment(anvil))
        await network.register(keys(len(stakes)), stakes)
        return network

    # ---- operators

    async def register(self, operators: Sequence[OperatorKey], stakes: Sequence[int]) -> None:
        """Register ``operators`` with ``stakes``, all in one block.

        Raises:
            Reverted: One is registered already.
        """
        registry = self.deployment.registry_coordinator
        name = "pubkeyRegistrationMessageHash"
        questions = [self._registry.call(name, hexed(key.address)) for key in operators]
        answers = await self.node.batch(
            [
                ("eth_call", [{"to": hexed(registry), "data": hexed(question)}, "latest"])
                for question in questions
            ]
        )
        await self._by_owner(
            registry,
            *(
                self._registration(key, stake, G1Point(bytes.fromhex(answer[2:])))
                for key, stake, answer in zip(operators, stakes, answers, strict=True)
            ),
        )
        self.operators += tuple(operators)

    def _registration(self, key: OperatorKey, stake: int, message: G1Point) -> bytes:
        return self._registry.call(
            "register",
            hexed(key.address),
            _words(key.g1),
            _words_g2(key.g2),
            _words(key.prove(message)),
            stake,
            "devnet",
        )

    async def deregister(self, operator: OperatorKey) -> None:
        """Let ``operator`` leave.

        Raises:
            Reverted: It is no member.
        """
        await self._change_registry("deregister", hexed(operator.address))

    async def rejoin(self, operator: OperatorKey, stake: int) -> None:
        """Let ``operator`` come back.

        Raises:
            Reverted: It is a member.
        """
        await self._change_registry("rejoin", hexed(operator.address), stake)

    async def set_stake(self, operator: OperatorKey, stake: int) -> None:
        """Change a member's stake.

        Raises:
            Reverted: It is no member.
        """
        await self._change_registry("setStake", hexed(operator.address), stake)

    async def _change_registry(self, name: str, *arguments: object) -> None:
        registry = self.deployment.registry_coordinator
        await self._by_owner(registry, self._registry.call(name, *arguments))

    # ---- the service manager

    async def set_aggregator(self, account: Address) -> None:
        """Make ``account`` the one that may answer."""
        await self._change_manager("setAggregator", hexed(account))

    async def pause(self, *, tasks: bool = False, answers: bool = False) -> None:
        """Refuse new batches, answers, both or (as at the start) neither."""
        await self._change_manager("pause", int(tasks) | int(answers) << 1)

    async def cap_fees(self, *, on: bool) -> None:
        """Let an answer above the batch's limit cost the aggregator the rest, or (False) revert."""
        await self._change_manager("setFeesCapped", on)

    async def _change_manager(self, name: str, *arguments: object) -> None:
        manager = self.deployment.service_manager
        await self._by_owner(manager, self._manager.call(name, *arguments))

    async def batch(self, batch_id: BatchId) -> BatchRecord:
        """Return a batch as the contract has it now."""
        created, responded, limit = await self._ask("batchesState", batch_id)
        return BatchRecord(created_block=created, responded=responded, fee_limit=limit)

    async def balance(self, batcher: Address) -> int:
        """Return what ``batcher`` has in the contract, in wei."""
        (wei,) = await self._ask("batchersBalances", hexed(batcher))
        return int(wei)

    async def answers(self, merkle_root: bytes, sender: Address) -> list[str]:
        """Return the hashes of the transactions that verified a batch: at most one, ever."""
        return (await self._verified(merkle_root)).get(batch_id(merkle_root, sender), [])

    async def all_answers(self) -> dict[BatchId, list[str]]:
        """Return the hashes of the transactions that verified each batch."""
        return await self._verified(None)

    async def _verified(self, merkle_root: bytes | None) -> dict[BatchId, list[str]]:
        question = {
            "address": hexed(self.deployment.service_manager),
            "fromBlock": hex(self.deployment.block),
            "topics": [hexed(BATCH_VERIFIED), merkle_root and hexed(merkle_root)],
        }
        found: dict[BatchId, list[str]] = {}
        for log in await self.node.call("eth_getLogs", question):
            root, sender = bytes.fromhex(log["topics"][1][2:]), _address(log["data"][-40:])
            found.setdefault(batch_id(root, sender), []).append(log["transactionHash"])
        return found

    async def _ask(self, name: str, *arguments: object) -> tuple[Any, ...]:
        data = self._manager.call(name, *arguments)
        call = {"to": hexed(self.deployment.service_manager), "data": hexed(data)}
        answer = await self.node.call("eth_call", call, "latest")
        return self._manager.result(name, bytes.fromhex(answer[2:]))

    async def _by_owner(self, contract: Address, *data: bytes) -> None:
        requests = [transaction(OWNER, contract, item, gas=_CALL_GAS) for item in data]
        await mined(self.anvil, requests)


NEW_BATCH_V3 = bytes.fromhex("8801fc966deb2c8f563a103c35c9e80740585c292cd97518587e6e7927e6af55")
"""Topic of ``NewBatchV3(bytes32 indexed batchMerkleRoot, address senderAddress, ...)``."""

BATCH_VERIFIED = bytes.fromhex("8511746b73275e06971968773119b9601fc501d7bdf3824d8754042d148940e2")
"""Topic of ``BatchVerified(bytes32 indexed batchMerkleRoot, address senderAddress)``."""


def hexed(data: bytes) -> str:
    """Return ``data`` as JSON-RPC writes it."""
    return "0x" + data.hex()


def transaction(
    sender: Address, to: Address | None, data: bytes, *, value: int = 0, gas: int
) -> dict[str, str]:
    """Return a transaction from one of the chain's own accounts; ``to`` is None to deploy."""
    request = {"from": hexed(sender), "data": hexed(data), "value": hex(value), "gas": hex(gas)}
    if to is not None:
        request["to"] = hexed(to)
    return request


async def mined(anvil: Anvil, requests: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Send transactions and mine them into one block; return their receipts in order.

    Raises:
        Reverted: One of them failed; the others are mined.
    """
    async with _one_block(anvil):
        numbered = await _numbered(anvil, requests)
        hashes = await anvil.node.batch([("eth_sendTransaction", [item]) for item in numbered])
    receipts: list[dict[str, Any] | None] = await anvil.node.batch(
        [("eth_getTransactionReceipt", [transaction_hash]) for transaction_hash in hashes]
    )
    good = [receipt for receipt in receipts if receipt and receipt["status"] == "0x1"]
    if len(good) != len(requests):
        failed = next(receipt for receipt in receipts if receipt not in good)
        raise Reverted(f"not mined, or reverted: {failed}")
    return good


async def _numbered(anvil: Anvil, requests: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Give each transaction its nonce: those of one JSON-RPC batch would all get the same."""
    senders = sorted({request["from"] for request in requests})
    counts = await anvil.node.batch(
        [("eth_getTransactionCount", [sender, "pending"]) for sender in senders]
    )
    following = {
        sender: itertools.count(int(count, 16))
        for sender, count in zip(senders, counts, strict=True)
    }
    return [{**request, "nonce": hex(next(following[request["from"]]))} for request in requests]


@asynccontextmanager
async def _one_block(anvil: Anvil) -> AsyncIterator[None]:
    """Mine what is sent inside as one block, then go on mining as before."""
    automine = await anvil.node.call("anvil_getAutomine")
    if automine:
        await anvil.automine(on=False)
    try:
        yield
        await anvil.mine()
    finally:
        if automine:
            await anvil.automine(on=True)


async def _deployment(anvil: Anvil) -> Deployment:
    contracts = artifacts.load()
    (retriever, registry) = await mined(
        anvil,
        [
            transaction(OWNER, None, contract.deployment(), gas=_DEPLOY_GAS)
            for contract in (contracts.retriever, contracts.registry)
        ],
    )
    coordinator = _address(registry["contractAddress"])
    creation = contracts.service_manager.deployment(hexed(coordinator), hexed(AGGREGATOR))
    (manager,) = await mined(anvil, [transaction(OWNER, None, creation, gas=_DEPLOY_GAS)])
    service_manager = _address(manager["contractAddress"])
    link = contracts.registry.call("setServiceManager", hexed(service_manager))
    await mined(anvil, [transaction(OWNER, coordinator, link, gas=_CALL_GAS)])
    return Deployment(
        chain_id=int(await anvil.node.call("eth_chainId"), 16),
        block=int(manager["blockNumber"], 16),
        service_manager=service_manager,
        registry_coordinator=coordinator,
        operator_state_retriever=_address(retriever["contractAddress"]),
    )


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text.removeprefix("0x")))


def _words(point: G1Point) -> tuple[int, int]:
    return int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")


def _words_g2(point: G2Point) -> tuple[tuple[int, int], tuple[int, int]]:
    """Contracts put the imaginary part first."""
    words = [int.from_bytes(point[at : at + 32], "big") for at in range(0, 128, 32)]
    return (words[1], words[0]), (words[3], words[2])
