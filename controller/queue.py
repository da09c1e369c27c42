"""A queue of keys with work to do, as client-go's: level-triggered and without duplicates.

A key is in at most one worker. What is added while it is there waits until that worker is done,
and then comes once. Nothing of an event is kept but its key, so the queue is as long as there are
keys, however many events come.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

BASE_SECONDS = 0.2
CAP_SECONDS = 300.0
JITTER = 0.2
"""Part of a pause that is random, so that what failed together does not come back together."""

_LEFTOVERS = 64

K = TypeVar("K", bound="Hashable")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses after failures in a row, in seconds."""

    base: float = BASE_SECONDS
    cap: float = CAP_SECONDS
    random: Callable[[], float] = random.random  # noqa: S311 - spreads load, hides nothing
    """Something from 0 to 1."""

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures, at least 1."""
        longest = min(self.base * 2.0 ** min(failures - 1, 64), self.cap)
        return longest * (1 - JITTER * self.random())


class WorkQueue(Generic[K]):
    """See the module. For one event loop."""

    def __init__(self, clock: Callable[[], float], backoff: Backoff | None = None) -> None:
        """Prepare an empty queue.

        Args:
            clock: Seconds; the event loop's own time.
            backoff: After failures.
        """
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        """To be worked on: those in ``_ready``, and those that wait for their worker."""
        self._processing: set[K] = set()
        self._due: dict[K, float] = {}
        self._timetable: list[tuple[float, int, K]] = []
        """What ``_due`` says in order, with leftovers of what it said before."""
        self._entries = 0
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    # What workers do.

    async def get(self) -> K:
        """Return the next key and keep it from other workers until ``done``.

        Cancelling loses nothing.
        """
        while True:
            self._fall_due()
            if self._ready:
                key = self._ready.popleft()
                self._dirty.discard(key)
                self._processing.add(key)
                return key
            await self._change()

    def done(self, key: K) -> None:
        """Let go of a key; if it was added meanwhile it comes again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wake()

    # What triggers do.

    def add(self, key: K) -> None:
        """Have ``key`` worked on; repeats count once."""
        if self._due.pop(key, None) is not None:
            self._tidy()
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Have ``key`` worked on in ``seconds``; the earliest time that was asked for counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock() + seconds
        if key in self._dirty or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._entries += 1
        heappush(self._timetable, (due, self._entries, key))
        self._tidy()
        self._wake()

    def add_rate_limited(self, key: K, at_least: float = 0.0) -> None:
        """Have ``key`` worked on again after it failed, later each time.

        Args:
            key: That failed.
            at_least: Seconds that somebody asked us to wait.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.add_after(key, max(self._backoff.pause(failures), at_least))

    def forget(self, key: K) -> None:
        """Count its failures from the beginning."""
        self._failures.pop(key, None)

    # What it shows.

    @property
    def depth(self) -> int:
        """Keys that wait for a worker, and are due."""
        return len(self._dirty)

    @property
    def waiting(self) -> int:
        """Keys that are not due yet."""
        return len(self._due)

    @property
    def failing(self) -> int:
        """Keys whose last pass failed."""
        return len(self._failures)

    def is_pending(self, key: K) -> bool:
        """Tell whether ``key`` waits for a worker already, due soon or not."""
        return key in self._dirty or key in self._due

    # How.

    def _fall_due(self) -> None:
        now = self._clock()
        while self._timetable and self._timetable[0][0] <= now:
            due, _, key = heappop(self._timetable)
            if self._due.get(key) == due:
                self.add(key)

    async def _change(self) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout_at(self._timetable[0][0] if self._timetable else None):
                await changed.wait()
        except TimeoutError:
            return

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tidy(self) -> None:
        """Keep the timetable as long as there are keys in it."""
        if len(self._timetable) > 2 * len(self._due) + _LEFTOVERS:
            self._timetable = [
                entry for entry in self._timetable if self._due.get(entry[2]) == entry[0]
            ]
            heapify(self._timetable)
