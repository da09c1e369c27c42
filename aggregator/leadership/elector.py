"""Edge: competes for the lock by the rule of ``election``. Runs in a thread and loop of its own.

A burst of work in the main loop must not delay a renewal; so the elector shares nothing with it
but a few values that are replaced whole: ``vitals`` comes in, ``standing`` goes out.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, NoReturn

from aggregator.leadership import election
from aggregator.leadership.election import (
    Campaign,
    Drain,
    Look,
    Lose,
    Record,
    Release,
    Renew,
    Resume,
    Suspend,
    View,
    Wait,
)
from aggregator.leadership.lock import Held, LockAway, LockTaken
from aggregator.ports import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.leadership.election import Candidate, Step, Vitals
    from aggregator.leadership.lock import Lock

logger = logging.getLogger(__name__)

_STAGGER_SECONDS = 0.03
_LEAST_SECONDS = 0.05


def boottime() -> float:
    """Return seconds that also pass while the machine sleeps, where the system tells them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a replica is in the election."""

    term: int | None = None
    """The one held; None: standby."""
    active: bool = False
    """Its work may go on."""
    ending: bool = False
    """Its work is asked to stop, and the lock is given up then."""
    why: str = ""
    """What ended or suspended it last."""
    end: End | None = None
    """How that was."""
    leader: str = ""
    """Holder in the lock as last seen; empty: nobody."""


@dataclass(frozen=True, slots=True)
class Won:
    """How the lock was won; times by the elector's clock."""

    term: int
    over: str
    """Who held it before; empty: it had been given up."""
    heard: float
    """When the one before was last heard of."""
    began: float
    won: float


class Elector:
    """One candidate.

    Resource handling: owns the lock, and closes it when ``run`` ends.
    """

    def __init__(
        self,
        lock: Lock,
        candidate: Candidate,
        *,
        vitals: Callable[[], Vitals],
        publish: Callable[[Standing], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        """Prepare a candidate.

        Args:
            lock: What is competed for.
            candidate: For whom.
            vitals: What the main loop last said.
            publish: Takes every new standing; called in this thread.
            clock: Seconds.
        """
        self._lock = lock
        self._me = candidate.me
        self._profile = candidate.profile
        self._vitals = vitals
        self._publish = publish
        self._clock = clock
        self._held = Held(Record(), "")
        self._doubtful = False
        self._stopping = False
        self._wake = asyncio.Event()
        stagger = random.uniform(0, _STAGGER_SECONDS)  # noqa: S311 - spreads load, hides nothing
        self._view = View(candidate=candidate, vitals=vitals(), stagger=stagger)
        self.standing = Standing()
        self.won: Won | None = None
        """How the last term was won."""
        self.good_until = -inf
        """Until when effects of the term held are right, by the elector's clock."""
        self.beat = clock()
        """When this loop last decided."""

    # What the main loop asks for. To be called in the elector's loop.

    def drained(self, term: int) -> None:
        """Give ``term`` up: its work has stopped."""
        if self._view.term == term and self._view.suspended is None:
            self._view = replace(self._view, drained=True)
            self._wake.set()

    def stop(self) -> None:
        """Give up what is held, and end ``run``."""
        self._stopping = True
        self._wake.set()

    # The loop.

    async def run(self) -> None:
        """Compete until ``stop``."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(), name="watch")
                while not self._stopping:
                    await self._act(self._decide())
                watching.cancel()
            if self._view.term is not None:
                await self._release("it shuts down")
        finally:
            await self._lock.aclose()

    def _decide(self) -> Step:
        now = self.beat = self._clock()
        self._view = replace(self._view, vitals=self._vitals())
        if self._doubtful and (self._view.term is None or now >= self._view.next_renewal):
            return Look()
        step = election.decide(self._view, now)
        self.good_until = election.good_until(self._view)
        return step

    async def _act(self, step: Step) -> None:
        match step:
            case Wait(until):
                await self._wait(until)
            case Look():
                await self._look()
            case Campaign(term):
                await self._campaign(term)
            case Renew(settle):
                await self._renew(settle=settle)
            case Release(why, rest):
                await self._release(why, rest=rest)
            case _:
                self._turn(step)

    def _turn(self, step: Suspend | Resume | Drain | Lose) -> None:
        told = {"term": self._view.term, "reason": getattr(step, "why", "")}
        match step:
            case Suspend(why):
                self._view = replace(self._view, suspended=self._clock())
                logger.info("leader's work is suspended", extra=told)
                self._show(why, End.SUSPENDED)
            case Resume():
                self._view = replace(self._view, suspended=None)
                logger.info("leader's work goes on", extra=told)
                self._show("")
            case Drain(why):
                self._view = replace(self._view, ending=self._clock())
                logger.info("leader's work is asked to end", extra=told)
                self._show(why, End.ASKED)
            case Lose(why):
                self._end(why, End.LOST)

    async def _wait(self, until: float) -> None:
        seconds = max(until - self._clock(), 0.0)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _patience(self) -> float:
        """Return how long a call may take: no longer than what it is needed for."""
        view = self._view
        longest = self._profile.deadline / 2
        if view.term is None or view.suspended is not None:
            return longest
        left = election.trusted_until(view) - self._clock()
        return min(longest, max(left, _LEAST_SECONDS))

    # Calls to the lock.

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._patience()):
                held = await self._lock.read()
        except (LockAway, TimeoutError) as away:
            await self._failed("the lock cannot be read", away)
            return
        self._doubtful = False
        self._see(held)

    async def _campaign(self, term: int) -> None:
        now = self._clock()
        record = replace(
            self._held.record,
            holder=self._me,
            term=term,
            lease=self._profile.lease,
            handover_to="",
        )
        over, heard = self._held.record.holder, self._view.changed
        if not await self._write(record):
            return
        self.won = Won(term, over, heard, now, self._clock())
        self._doubtful = False
        self._view = replace(
            self._view,
            term=term,
            renewed=now,
            next_renewal=now + self._profile.renew,
            suspended=None,
            ending=None,
            drained=False,
        )
        logger.info("won the lock", extra={"term": term, "holder": self._me})
        self._show("")

    async def _renew(self, *, settle: bool) -> None:
        now = self._clock()
        record = replace(self._held.record, lease=self._profile.lease)
        if settle:
            if record.handover_to != self._view.candidate.pod:
                logger.warning(
                    "a handover is declined: that pod is not alive and fit, or fenced off. Look at "
                    "its /status, then ask again",
                    extra={"handover_to": record.handover_to},
                )
            record = replace(record, handover_to="")
        if await self._write(record):
            self._doubtful = False
            next_renewal = now + self._profile.renew
            self._view = replace(self._view, renewed=now, next_renewal=next_renewal)

    async def _release(self, why: str, *, rest: bool = False) -> None:
        term = self._view.term
        self._end(why, End.UNFIT if rest else End.ASKED)
        if rest:
            self._view = replace(self._view, rest_until=self._clock() + self._profile.lease)
        for _ in range(2):  # again if a person edited it meanwhile
            mine = self._held.record
            if (mine.holder, mine.term) != (self._me, term):
                return
            if await self._write(replace(mine, holder="")):
                return
            await self._look()

    async def _write(self, record: Record) -> bool:
        """Return whether the lock has ``record`` now."""
        try:
            async with asyncio.timeout(self._patience()):
                held = await self._lock.write(self._held, record)
        except LockTaken:
            self._doubt()
            return False
        except (LockAway, TimeoutError) as away:
            self._doubtful = True  # it may be written all the same
            await self._failed("the lock cannot be written", away)
            return False
        self._see(held)
        return True

    async def _failed(self, what: str, error: Exception) -> None:
        logger.debug(what, extra={"reason": str(error) or "no answer in time"})
        pause = self._profile.renew / 2
        self._view = replace(self._view, next_renewal=self._clock() + pause)
        if self._view.term is None and not self._stopping:
            await asyncio.sleep(pause)

    # What is seen.

    async def _watch(self) -> NoReturn:
        while True:
            try:
                await self._follow()
            except (LockAway, TimeoutError) as away:
                logger.debug("the watch of the lock broke", extra={"reason": str(away)})
            await asyncio.sleep(self._profile.renew / 2)

    async def _follow(self) -> None:
        changes = self._lock.watch()
        try:
            while True:
                # A leader renews more often than that: such a silence may be a dead watch.
                async with asyncio.timeout(self._profile.lease):
                    held = await anext(changes, None)
                if held is None:
                    return
                self._hear(held)
        finally:
            await changes.aclose()

    def _hear(self, held: Held) -> None:
        """Take a change that was watched; it may be older than what was read or written."""
        view = self._view
        if view.term is None:
            self._see(held)
        elif held.version != self._held.version and _differ(held.record, self._held.record):
            self._doubt()
        self._wake.set()

    def _doubt(self) -> None:
        """Have the lock read next: it is not what we think."""
        self._doubtful = True
        self._view = replace(self._view, next_renewal=-inf)

    def _see(self, held: Held) -> None:
        self._view = election.observed(self._view, self._clock())
        if held.version != self._held.version or self._view.record is None:
            self._held = held
            self._view = replace(self._view, record=held.record, changed=self._clock())
            if held.record.holder != self.standing.leader:
                self._show(self.standing.why, self.standing.end)

    def _end(self, why: str, end: End) -> None:
        logger.info("the term is over", extra={"term": self._view.term, "reason": why})
        self._view = replace(self._view, term=None, suspended=None, ending=None, drained=False)
        self._show(why, end)

    def _show(self, why: str, end: End | None = None) -> None:
        view = self._view
        self.good_until = election.good_until(view)
        active = view.term is not None and view.suspended is None and view.ending is None
        leader = view.record.holder if view.record is not None else ""
        standing = Standing(view.term, active, view.ending is not None, why, end, leader)
        if standing != self.standing:
            self.standing = standing
            self._publish(standing)


def _differ(heard: Record, held: Record) -> bool:
    """Tell whether a change is more than a renewal."""
    return replace(heard, lease=0.0) != replace(held, lease=0.0)
