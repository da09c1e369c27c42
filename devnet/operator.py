"""Simulated operators: watch for batches, sign, deliver as the Go operator does."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from aligned.model import Address, BatchId, OperatorId, Response, batch_id
from aligned.wire import messages
from aligned.wire.netrpc import CLIENT_FIRST_ID
from devnet.go_client import ATTEMPTS, PAUSE_SECONDS, RECONNECTED, Attempt, SharedClient
from devnet.network import NEW_BATCH_V3, hexed
from devnet.rpc import CallFailed, NodeAway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aligned.wire.gob import Value
    from devnet.keys import OperatorKey
    from devnet.network import Network

logger = logging.getLogger(__name__)

_REORG_BLOCKS = 64


class Seen(NamedTuple):
    """A batch as operators learn of it."""

    merkle_root: bytes
    """32 bytes."""
    sender: Address

    @property
    def batch_id(self) -> BatchId:
        """What is signed."""
        return batch_id(self.merkle_root, self.sender)


@dataclass(slots=True)
class Delivery:
    """One response and what became of it, as its operator sees it."""

    batch_id: BatchId
    operator_id: OperatorId
    attempts: list[Attempt] = field(default_factory=list)
    given_up: bool = False
    """All attempts failed: the operator forgets the response without a word."""

    @property
    def replied(self) -> Attempt | None:
        """The attempt that got a reply without an error: the operator takes any for success."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.code is not None else None

    @property
    def acknowledged(self) -> bool:
        """Whether the reply was 0, a promise to keep the response."""
        return self.replied is not None and self.replied.code == 0


class Book:
    """Every delivery, in the order of their beginnings."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def acknowledged(self, batch: BatchId) -> set[OperatorId]:
        """Return whose response to ``batch`` was promised to be kept."""
        return self._those(batch, lambda delivery: delivery.acknowledged)

    def refused(self, batch: BatchId) -> set[OperatorId]:
        """Return whose response to ``batch`` got another reply than 0."""
        return self._those(
            batch, lambda delivery: delivery.replied is not None and not delivery.acknowledged
        )

    def given_up(self, batch: BatchId) -> set[OperatorId]:
        """Return whose response to ``batch`` the operator lost."""
        return self._those(batch, lambda delivery: delivery.given_up)

    def _those(self, batch: BatchId, holds: Callable[[Delivery], bool]) -> set[OperatorId]:
        return {
            delivery.operator_id
            for delivery in self.deliveries
            if delivery.batch_id == batch and holds(delivery)
        }


@dataclass(frozen=True, slots=True)
class Retries:
    """How long an operator tries."""

    attempts: int = ATTEMPTS
    pause_seconds: float = PAUSE_SECONDS


class Operator:
    """One operator process: a key and a connection.

    Resource handling: ``close`` it.
    """

    def __init__(
        self,
        key: OperatorKey,
        client: SharedClient,
        *,
        book: Book | None = None,
        retries: Retries | None = None,
    ) -> None:
        self.key = key
        self.client = client
        self.book = Book() if book is None else book
        self._retries = retries or Retries()
        self.online = True
        """False: it sees batches and does not answer them, as if it were down."""
        self.delay_seconds = 0.0
        """Between seeing a batch and signing it."""

    def response(self, seen: Seen) -> Response:
        """Sign ``seen``."""
        digest = seen.batch_id
        return Response(
            seen.merkle_root, seen.sender, digest, self.key.operator_id, self.key.sign(digest)
        )

    async def answer(self, seen: Seen) -> Delivery:
        """Sign and deliver; return when the operator is done with it, for better or worse."""
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        return await self.deliver(self.response(seen))

    async def deliver(self, response: Response, value: Value | None = None) -> Delivery:
        """Deliver ``response``, whatever is in it.

        Args:
            response: What it is booked as.
            value: What is sent; None: ``response``.
        """
        sent = messages.to_value(response) if value is None else value
        delivery = Delivery(response.batch_id, response.operator_id)
        self.book.deliveries.append(delivery)
        for _ in range(self._retries.attempts):
            attempt = await self.client.attempt(sent)
            delivery.attempts.append(attempt)
            if attempt.code is not None and not attempt.problem:
                return delivery
            if attempt.problem != RECONNECTED:
                await asyncio.sleep(self._retries.pause_seconds)
        delivery.given_up = True
        return delivery

    def close(self) -> None:
        """Close its connections. Repeats are free."""
        self.client.close()


class Fleet:
    """All operators of a network in one process and one loop, each with its own connection.

    Error handling: a chain that does not answer is asked again; deliveries do not fail.
    """

    def __init__(
        self,
        network: Network,
        address: tuple[str, int],
        *,
        keys: Iterable[OperatorKey] | None = None,
        retries: Retries | None = None,
        poll_seconds: float = 0.2,
    ) -> None:
        """Describe a fleet.

        Args:
            network: Where batches appear; the chain itself is asked, past any proxy.
            address: Host and port of the aggregator.
            keys: None: those of all of the network's operators.
            retries: As the Go operator's unless given.
            poll_seconds: Between looks at the chain.
        """
        self.book = Book()
        self._network = network
        self._poll_seconds = poll_seconds
        self._watching = asyncio.Event()
        chosen = network.operators if keys is None else tuple(keys)
        self.operators: Sequence[Operator] = [
            Operator(
                key,
                # Go releases differ in where their type ids begin: have both
                SharedClient(*address, first_id=CLIENT_FIRST_ID - index % 2),
                book=self.book,
                retries=retries,
            )
            for index, key in enumerate(chosen)
        ]

    async def connect(self) -> None:
        """Dial with every operator, as they do when they start.

        Raises:
            OSError: The aggregator does not accept; Go operators end then.
        """
        for operator in self.operators:
            await operator.client.connect()

    async def watching(self) -> None:
        """Wait until ``run`` has seen the chain: batches that appear afterwards are answered."""
        await self._watching.wait()

    async def run(self) -> None:
        """Answer every batch that appears from now on, until cancelled; then close."""
        try:
            async with asyncio.TaskGroup() as deliveries:
                await self._watch(deliveries)
        finally:
            self.close()

    def close(self) -> None:
        """Close all connections. Repeats are free."""
        for operator in self.operators:
            operator.close()

    async def _watch(self, deliveries: asyncio.TaskGroup) -> None:
        known: set[BatchId] = set()
        first: int | None = None
        while True:
            try:
                head = await self._network.anvil.head()
                first = head + 1 if first is None else first
                self._watching.set()
                # the newest blocks again each time: a reorganization may bring others
                found = await self._batches(max(first, head - _REORG_BLOCKS))
            except (NodeAway, CallFailed) as away:
                logger.debug("the chain does not answer", extra={"problem": str(away)})
                found = []
            for seen in found:
                if seen.batch_id not in known:
                    known.add(seen.batch_id)
                    self._begin(seen, deliveries)
            await asyncio.sleep(self._poll_seconds)

    def _begin(self, seen: Seen, deliveries: asyncio.TaskGroup) -> None:
        for operator in self.operators:
            if operator.online:
                deliveries.create_task(operator.answer(seen), name=f"answer {seen.batch_id.hex()}")

    async def _batches(self, first: int) -> list[Seen]:
        logs = await self._network.node.call(
            "eth_getLogs",
            {
                "address": hexed(self._network.deployment.service_manager),
                "fromBlock": hex(first),
                "toBlock": "latest",
                "topics": [hexed(NEW_BATCH_V3)],
            },
        )
        return [
            Seen(
                bytes.fromhex(log["topics"][1][2:]),
                Address(bytes.fromhex(log["data"][2 + 24 : 2 + 64])),
            )
            for log in logs
        ]
