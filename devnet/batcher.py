"""Posts batches, as Aligned's batcher does through its payment service."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligned.model import Address, BatchId, batch_id
from devnet.contracts import artifacts
from devnet.network import ETHER, hexed, mined, transaction

if TYPE_CHECKING:
    from devnet.network import Network

ACCOUNTS = tuple(
    Address(bytes.fromhex(account))
    for account in (
        "9965507d1a55bcc2695c58ba16fb37d819b0a4dc",
        "976ea74026e726554db657fa54763abd0c3a0aa9",
        "14dc79964da2c08b23698b3d3cc7ca32193d9955",
        "23618e81e3f5cdf7f54c3d65f7fbc0abf5b21e8f",
        "a0ee7a142d267c1f36714e4a8f75612f20a79720",
    )
)
"""The chain's accounts 5 to 9, who may post."""

FEE_LIMIT = ETHER // 100
"""0.01 ether: 300,000 gas at 33 gwei."""

_GAS = 500_000
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A batch that was mined."""

    batch_id: BatchId
    merkle_root: bytes
    sender: Address
    created_block: int
    fee_limit: int
    """Wei."""


class Batcher:
    """One of the chain's accounts that posts batches.

    The contract wants the batcher's balance in it to cover a batch's fee limit when the batch is
    posted and when it is answered.
    """

    def __init__(self, network: Network, account: Address = ACCOUNTS[0]) -> None:
        self.network = network
        self.account = account
        self._manager = artifacts.load().service_manager

    async def deposit(self, wei: int = ETHER) -> None:
        """Put money into the contract.

        Raises:
            Reverted: The contract refuses it.
        """
        await self._send(self._manager.call("depositToBatcher", hexed(self.account)), wei)

    async def withdraw(self, wei: int) -> None:
        """Take money out of the contract.

        Raises:
            Reverted: There is not as much.
        """
        await self._send(self._manager.call("withdraw", wei))

    async def post(
        self, merkle_root: bytes | None = None, *, fee_limit: int = FEE_LIMIT, value: int = 0
    ) -> Posted:
        """Post a batch.

        Args:
            merkle_root: 32 bytes; None: some random ones.
            fee_limit: The most that its answer may cost, in wei.
            value: Deposited along with it, in wei.

        Raises:
            Reverted: The balance does not cover ``fee_limit``, or the batch is there already.
        """
        root = secrets.token_bytes(32) if merkle_root is None else merkle_root
        data = self._manager.call("createNewTask", root, "devnet://batch", fee_limit)
        return Posted(
            batch_id=batch_id(root, self.account),
            merkle_root=root,
            sender=self.account,
            created_block=await self._send(data, value),
            fee_limit=fee_limit,
        )

    async def _send(self, data: bytes, value: int = 0) -> int:
        manager = self.network.deployment.service_manager
        request = transaction(self.account, manager, data, value=value, gas=_GAS)
        (receipt,) = await mined(self.network.anvil, [request])
        return int(receipt["blockNumber"], 16)


async def verified(network: Network, batch: Posted, *, seconds: float = 60.0) -> list[str]:
    """Wait until ``batch`` is verified; return the hashes of the transactions that did it.

    Raises:
        TimeoutError: It is not after ``seconds``.
    """
    async with asyncio.timeout(seconds):
        while True:
            if answers := await network.answers(batch.merkle_root, batch.sender):
                return answers
            await asyncio.sleep(_POLL_SECONDS)
