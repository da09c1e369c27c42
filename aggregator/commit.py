"""Stage: verified signatures become durable, then their calls are answered.

The order is the promise: memory, journal with fsync, store, answer. Whatever waits is committed
in one group while the next one gathers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NoReturn, Protocol

from aggregator.ports import Commit
from aligned.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.batches import Batches
    from aggregator.ports import Clock
    from aggregator.receive import Incoming
    from aligned.model import Entry

logger = logging.getLogger(__name__)

GROUP = 256
"""Signatures in one commit."""

OVERLAP = 2
"""Groups under way at once: one in the journal while another waits for the store."""

HOLD_SECONDS = 25.0
"""How long a journalled call waits for the store before its connection is closed."""

RETRY_SECONDS = 0.05
"""Between two tries: what a failover of the store costs beyond its own time."""


class Appends(Protocol):
    """The part of the journal that commits need."""

    async def append(self, entries: Sequence[Entry], *, height: int) -> None:
        """Make ``entries`` durable on this machine.

        Raises:
            DiskRefused: The disk refused. The process must end; nothing was promised.
        """


class Shares(Protocol):
    """The part of the store that commits need."""

    async def put(self, entries: Sequence[Entry]) -> None:
        """See ``Store.put``."""


class Outcomes(Protocol):
    """Who answers the calls that wait for a signature."""

    def done(self, incoming: Incoming) -> None:
        """It is durable everywhere it must be."""

    def given_up(self, incoming: Incoming) -> None:
        """It is in the journal, but the store does not confirm it."""

    def committed(self, commit: Commit) -> None:
        """One commit is through, whatever came of it."""


class Committer:
    """Commits what ``add`` is given, in groups.

    Args:
        batches: The memory.
        journal: This machine's disk.
        store: What replicas share.
        height: The chain's height, for signatures whose batch is not on chain yet.
        clock: Seconds.
        outcomes: Who answers the calls.
    """

    def __init__(
        self,
        batches: Batches,
        journal: Appends,
        store: Shares,
        *,
        height: Callable[[], int],
        clock: Clock,
        outcomes: Outcomes,
    ) -> None:
        self._batches = batches
        self._journal = journal
        self._store = store
        self._height = height
        self._clock = clock
        self._outcomes = outcomes
        self._queue: deque[Incoming] = deque()  # bounded by back-pressure on ingress
        self._filled = asyncio.Event()
        self._held: deque[Incoming] = deque()  # journalled, and not confirmed by the store
        self._holding = asyncio.Event()
        self._reason = ""
        self._journal_seconds = 0.0
        self.commits = 0
        self.committed = 0

    def add(self, incoming: Incoming) -> None:
        """Queue a verified signature."""
        self._queue.append(incoming)
        self._filled.set()

    async def run(self) -> NoReturn:
        """Commit until cancelled. What was not answered by then is repeated by its operator.

        Raises:
            DiskRefused: The journal cannot be written.
        """
        async with asyncio.TaskGroup() as committers:
            committers.create_task(self._see_through(), name="commit-held")
            for number in range(1, OVERLAP):
                committers.create_task(self._work(), name=f"commit-{number}")
            await self._work()

    async def _work(self) -> NoReturn:
        while True:
            await self._filled.wait()
            group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
            if not self._queue:
                self._filled.clear()
            if group:
                await self._commit(group)

    async def _commit(self, group: list[Incoming]) -> None:
        entries = [incoming.entry for incoming in group]
        height = self._height()
        self._batches.keep(entries, height=height)
        began = self._clock()
        await self._journal.append(entries, height=height)
        self._journal_seconds = self._clock() - began
        self.commits += 1
        self.committed += len(group)
        if self._held or not await self._share(group):
            # What comes meanwhile goes into the journal at once, without waiting for these.
            self._held.extend(group)
            self._holding.set()

    async def _share(self, group: Sequence[Incoming]) -> bool:
        """Put a group; answer its calls and return True if that is confirmed."""
        try:
            await self._store.put([incoming.entry for incoming in group])
        except StoreUnavailable as away:
            self._reason = str(away)
            return False
        for incoming in group:
            self._outcomes.done(incoming)
        self._tell(group)
        return True

    def _tell(self, group: Sequence[Incoming]) -> None:
        oldest = self._clock() - group[0].since
        self._outcomes.committed(Commit(len(group), self._journal_seconds, oldest))

    async def _see_through(self) -> NoReturn:
        """Try again what the store did not confirm, until it does or the time is over."""
        while True:
            await self._holding.wait()
            group = [self._held[index] for index in range(min(GROUP, len(self._held)))]
            if await self._share(group):
                for _ in group:
                    self._held.popleft()
            else:
                self._give_up()
                await asyncio.sleep(RETRY_SECONDS)
            if not self._held:
                self._holding.clear()

    def _give_up(self) -> None:
        late = []
        while self._held and self._clock() >= self._held[0].since + HOLD_SECONDS:
            late.append(self._held.popleft())
        if late:
            logger.warning(
                "the store confirms nothing: signatures are in the journal and are merged when it "
                "is back; their operators try another replica. Check the store",
                extra={"signatures": len(late), "reason": self._reason},
            )
            for incoming in late:
                self._outcomes.given_up(incoming)
            self._tell(late)
