"""Replicas that compete for a lock and do leader's work, over a store's fence in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, NoReturn

from aggregator.lead import while_leading
from aggregator.leadership.elected import ElectedLeadership, Health
from aggregator.leadership.election import Candidate, Profile
from aggregator.leadership.lock import Lock
from aligned.errors import Deposed, StoreUnavailable
from aligned.model import Term

BRISK = Profile(lease=1.5, deadline=1.0, renew=0.2)
"""Like ``fast``, and renews more often: for machines that are busy with other tests."""


class Member(NamedTuple):
    pod: str
    age: float
    facts: bytes


class Beat(NamedTuple):
    members: tuple[Member, ...]


class FenceInMemory:
    """What the store knows, shared by the replicas of a test."""

    def __init__(self) -> None:
        self.fence = (0, "")
        self.members: dict[str, bytes] = {}
        self.claims: list[tuple[int, str]] = []
        """Claims that succeeded and were new."""
        self.effects: list[tuple[int, str]] = []
        """Leader's writes that the fence let through, repeats left out."""


class ClaimsInMemory:
    """One replica's way to it; implements ``Claims``."""

    def __init__(self, shared: FenceInMemory) -> None:
        self.shared = shared
        self.known_fence: tuple[int, str] = (0, "")
        self.away = False
        self.is_outbox_readable = True
        self.refuse = 0
        """So many of the next claims find that a rival was faster."""

    async def beat(self, pod: str, facts: bytes) -> Beat:
        self._reach()
        self.shared.members[pod] = facts
        self.known_fence = self.shared.fence
        return Beat(tuple(Member(pod, 0.0, facts) for pod, facts in self.shared.members.items()))

    async def claim(self, term: Term, holder: str) -> object:
        self._reach()
        if self.refuse:
            self.refuse -= 1
            self.shared.fence = (term + 1, "a rival")
        held, who = self.shared.fence
        if term < held or (term == held and holder != who):
            self.known_fence = self.shared.fence
            raise Deposed(f"the fence is at {self.shared.fence}")
        if self.shared.fence != (term, holder):
            self.shared.claims.append((term, holder))
        self.shared.fence = self.known_fence = (term, holder)
        return []

    async def confirm(self, term: Term, holder: str) -> None:
        self._reach()
        if self.shared.fence != (term, holder):
            self.known_fence = max(self.known_fence, self.shared.fence)
            raise Deposed(f"the fence is at {self.shared.fence}")

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("the fake store was told to be away")


class Replica:
    """One replica: election and leader's work."""

    def __init__(
        self,
        pod: str,
        lock: Callable[[], Lock],
        shared: FenceInMemory,
        *,
        profile: Profile = BRISK,
        me: str | None = None,
    ) -> None:
        self.pod = pod
        self.me = me or f"{pod} boot"
        self.claims = ClaimsInMemory(shared)
        self.head_age = 0.0
        self.signs = True
        self.operators = True
        self.window = True
        self.log: list[str] = []
        """``begin T`` and ``end T``, in order."""
        self.shared = shared
        candidate = Candidate(me=self.me, pod=pod, profile=profile)
        health = Health(
            head_age=lambda: self.head_age,
            signs=lambda: self.signs,
            operators=lambda: self.operators,
            window=lambda: self.window,
        )
        self.leadership = ElectedLeadership(candidate, lock, self.claims, health)

    @property
    def leads(self) -> bool:
        return bool(self.log) and self.log[-1].startswith("begin")

    @property
    def term(self) -> int:
        return int(self.log[-1].split()[1])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        async with asyncio.TaskGroup() as tasks:
            election = tasks.create_task(self.leadership.run())
            leading = tasks.create_task(while_leading(self.leadership, self._work))
            try:
                yield self
            finally:
                leading.cancel()
                election.cancel()

    async def _work(self, term: Term, holder: str) -> NoReturn:
        self.log.append(f"begin {term}")
        try:
            while True:
                self.leadership.require(term)
                if self.shared.fence == (term, holder):
                    effects = self.shared.effects
                    if not effects or effects[-1] != (term, holder):
                        effects.append((term, holder))
                await asyncio.sleep(0.005)
        finally:
            self.log.append(f"end {term}")
