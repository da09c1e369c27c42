"""Those who post and sign: a batcher in a steady pace, and operators that retry as Go's do."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from eth_hash.auto import keccak

from aligned.model import BatchId, OperatorId, batch_id
from aligned.wire.gob import Value
from aligned.wire.netrpc import CLIENT_FIRST_ID
from devnet.batcher import Batcher
from devnet.go_client import RECONNECTED, Attempt, SharedClient
from devnet.network import ETHER, Network
from devnet.operator import Operator, Retries, Seen
from devnet.rpc import NodeAway
from tests.nemesis.history import Call, History, Post
from tests.nemesis.plan import Options, manner

RETRIES = Retries(attempts=10_000, pause_seconds=1.0)
"""A Go operator's way, with pauses a tenth as long and without its giving up: what an operator
forgets was never promised, and a batch that it forgot would never be answered."""

EARLIEST_SECONDS = 2.0
"""So long before its posting a batch may be signed."""

_DEPOSIT = 1000 * ETHER


class Recorder(SharedClient):
    """Notes every attempt when it begins and when it ends."""

    def __init__(self, address: tuple[str, int], first_id: int, history: History) -> None:
        super().__init__(*address, first_id=first_id)
        self._history = history

    async def attempt(self, value: Value) -> Attempt:
        fields = cast("dict[str, list[int]]", value)
        call = Call(
            BatchId(bytes(fields["BatchIdentifierHash"])),
            OperatorId(bytes(fields["OperatorId"])),
            time.time(),
        )
        self._history.calls.append(call)
        attempt = await super().attempt(value)
        call.ended = time.time()
        if attempt.problem and attempt.problem != RECONNECTED:
            call.problem = attempt.problem
        elif attempt.problem != RECONNECTED:
            call.code = attempt.code
        return attempt


class Crew:
    """Posts batches and signs them as the plan says."""

    def __init__(self, network: Network, options: Options, history: History) -> None:
        self._network = network
        self._options = options
        self._history = history
        self._batcher = Batcher(network)
        self._operators: list[Operator] = []
        self._posted = asyncio.Condition()
        self._posting = asyncio.Lock()  # the batcher's transactions take one nonce after the other
        self.delivering = 0
        """Signatures that operators hold and nobody has acknowledged."""
        self.acknowledged = 0

    async def prepare(self, address: tuple[str, int]) -> None:
        """Pay in advance, and dial ``address`` as operators do when they start."""
        await self._batcher.deposit(_DEPOSIT)
        self._operators = [
            Operator(
                key,
                # Go releases differ in where their type ids begin: have both
                Recorder(address, CLIENT_FIRST_ID - index % 2, self._history),
                retries=RETRIES,
            )
            for index, key in enumerate(self._network.operators)
        ]
        for operator in self._operators:
            await operator.client.connect()

    async def post(self, at_least: int, is_enough: asyncio.Event) -> None:
        """Post and sign batches in a steady pace, ``at_least`` so many and until ``is_enough``.

        Returns when every signature has been acknowledged; connections are closed then, or when
        it is cancelled.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        number = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                while number < at_least or not is_enough.is_set():
                    due = began + number * self._options.pace
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    number += 1
                    tasks.create_task(self._batch(number), name=f"batch {number}")
        finally:
            for operator in self._operators:
                operator.close()

    async def _batch(self, number: int) -> None:
        root = keccak(f"{self._options.seed} batch {number}".encode())
        seen = Seen(root, self._batcher.account)
        _, delays = manner(self._options, number)
        began = asyncio.get_running_loop().time() + EARLIEST_SECONDS
        async with asyncio.TaskGroup() as tasks:
            for operator, delay in zip(self._operators, delays, strict=True):
                if delay is not None:
                    self.delivering += 1
                    tasks.create_task(self._sign(operator, seen, began + delay))
            await asyncio.sleep(began - asyncio.get_running_loop().time())
            await self._post(root)
            self._history.posts.append(
                Post(number, batch_id(root, self._batcher.account), time.time())
            )
            async with self._posted:
                self._posted.notify_all()

    async def _post(self, root: bytes) -> None:
        """Post a batch; a machine so slow that the chain did not answer in time is asked again."""
        name = batch_id(root, self._batcher.account)
        async with self._posting:
            while True:
                try:
                    if not (await self._network.batch(name)).created_block:
                        await self._batcher.post(root)
                except NodeAway:
                    await asyncio.sleep(self._options.pace)
                else:
                    return

    async def _sign(self, operator: Operator, seen: Seen, at: float) -> None:
        await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
        delivery = await operator.answer(seen)
        self.delivering -= 1
        self.acknowledged += delivery.acknowledged

    async def posted(self, number: int) -> None:
        """Wait until so many batches have been posted."""
        async with self._posted:
            await self._posted.wait_for(lambda: len(self._history.posts) >= number)
