"""A store in memory, with knobs for what a real one does to its callers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aggregator.outbox import OutboxRow
from aligned.errors import Deposed, StateDamaged, StoreUnavailable
from aligned.model import Address, BatchId, Entry, Term


class MemoryStore:
    """Implements ``Store``. Several replicas of a test may share one."""

    def __init__(self) -> None:
        self.entries: set[Entry] = set()
        self.refuted: set[Entry] = set()
        self.rows: dict[tuple[Address, int, int], OutboxRow] = {}
        self.fence: tuple[Term, str] = (Term(0), "")
        self.calls: list[str] = []
        self.fail = False
        """Every call raises ``StoreUnavailable`` without an effect."""
        self.hang = False
        """Every call waits until it is cancelled."""
        self.refuse = False
        """Another holder claims a later term before every call."""

    async def put(self, entries: Sequence[Entry]) -> None:
        await self._call("put")
        self.entries |= set(entries) - self.refuted

    async def claim(self, term: Term, holder: str) -> Sequence[OutboxRow]:
        await self._call("claim")
        if (term, holder) != self.fence and term <= self.fence[0]:
            raise Deposed(f"term {term} of {holder} comes after {self.fence}")
        self.fence = (term, holder)
        return [self.rows[key] for key in sorted(self.rows)]

    async def record(self, term: Term, holder: str, row: OutboxRow) -> None:
        await self._call("record")
        self._demand(term, holder)
        key = (row.sender, row.nonce, row.attempt)
        if self.rows.setdefault(key, row).raw != row.raw:
            raise StateDamaged(f"nonce {row.nonce} attempt {row.attempt} holds other bytes")

    async def drop_rows(self, term: Term, holder: str, rows: Sequence[OutboxRow]) -> None:
        await self._call("drop_rows")
        self._demand(term, holder)
        for row in rows:
            self.rows.pop((row.sender, row.nonce, row.attempt), None)

    async def evict(self, term: Term, holder: str, entries: Sequence[Entry]) -> None:
        await self._call("evict")
        self._demand(term, holder)
        self.entries -= set(entries)
        self.refuted |= set(entries)

    async def forget(self, batches: Sequence[BatchId]) -> None:
        await self._call("forget")
        gone = set(batches)
        self.entries = {entry for entry in self.entries if entry.batch_id not in gone}
        self.refuted = {entry for entry in self.refuted if entry.batch_id not in gone}

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.hang:
            await asyncio.Event().wait()
        if self.fail:
            raise StoreUnavailable("the fake store was told to fail")
        if self.refuse:
            self.fence = (Term(self.fence[0] + 1), "a rival")

    def _demand(self, term: Term, holder: str) -> None:
        if (term, holder) != self.fence:
            raise Deposed(f"term {term} of {holder} is over: {self.fence}")
