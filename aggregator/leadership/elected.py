"""Leadership by election: the main loop's side. Implements ``Leadership``.

Terms are won by the elector in its thread and claimed in the store from here. The claim is what
counts: whoever's claim the store refuses has lost, whatever the lock says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, NoReturn

from aggregator.leadership.election import DRAIN_SECONDS, STORE_SECONDS, Fence, Vitals, unfit
from aggregator.leadership.elector import Elector, Standing, boottime
from aggregator.ports import End, TermOver
from aligned.errors import Deposed, StoreUnavailable
from aligned.model import Term

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.leadership.claims import Claims
    from aggregator.leadership.election import Candidate
    from aggregator.leadership.elector import Won
    from aggregator.leadership.lock import Lock

logger = logging.getLogger(__name__)

PULSE_SECONDS = 0.25
"""Between two signs of life of the main loop."""

PEER_SECONDS = 3.0
"""A peer that said so much later than this that it is fit is not handed over to."""

REFUSALS = 3
"""Claims refused in a row before others get a turn."""

_RETRY_SECONDS = 0.1
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """What makes a replica fit to lead, beside its loop and the store."""

    head_age: Callable[[], float]
    """Seconds since the chain last had a fresh head."""
    signs: Callable[[], bool]
    """Our signer is the account the contract takes answers from, or no answers are sent."""
    operators: Callable[[], bool]
    """Every operator that registered is known."""
    window: Callable[[], bool]
    """The expiry window was read, and our journal compared with it."""


class ElectedLeadership:
    """See ``Leadership``. For one event loop; ``run`` must run beside its users.

    A suspended term ends ``keep`` like any other; ``acquire`` then returns the same term again
    when the store has confirmed it.
    """

    def __init__(
        self,
        candidate: Candidate,
        lock: Callable[[], Lock],
        claims: Claims,
        health: Health,
        *,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """Prepare; nothing competes yet.

        Args:
            candidate: Who we are.
            lock: Makes the lock, in the elector's loop.
            claims: The store.
            health: What else makes us fit.
            clock: Seconds; the same in all threads.
        """
        self._candidate = candidate
        self._make_lock = lock
        self._claims = claims
        self._health = health
        self._clock = clock
        self._vitals = Vitals()
        self._started = inf
        self._elector: Elector | None = None
        self._elector_loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._paused: int | None = None
        self._refusals = 0
        self._stopping = False
        self.standing = Standing()

    @property
    def silence(self) -> float:
        """Seconds since the elector last decided, or since it was started; 0 before that."""
        last = self._elector.beat if self._elector else self._started
        return max(0.0, self._clock() - last)

    @property
    def peers(self) -> frozenset[str]:
        """Other pods that were alive and fit when the store told, a moment ago; else nobody."""
        is_told = self._clock() - self._vitals.store <= STORE_SECONDS
        return self._vitals.peers if is_told else frozenset()

    @property
    def won(self) -> Won | None:
        """How the last term was won; times by ``boottime``."""
        return None if self._elector is None else self._elector.won

    @property
    def unfit(self) -> str | None:
        """Why this replica must not lead now; None: it may."""
        return unfit(self._vitals, self._clock())

    # The port.

    async def acquire(self) -> tuple[Term, str]:
        self._say(replace(self._vitals, wanted=True))
        while True:
            standing = await self._standing(lambda one: one.active)
            term = Term(standing.term or 0)
            if self._is_unsure(term):  # about to be suspended
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if term == self._vitals.claimed or await self._claim(term):
                self._idle.clear()
                self._paused = None
                return term, self._candidate.me

    async def keep(self, term: Term) -> None:
        standing = await self._standing(lambda one: one.term != term or not one.active)
        if standing.term == term and not standing.ending:
            self._paused = term  # suspended: the work stops, but the lock is not given up
        raise TermOver(standing.end or End.LOST, standing.why or f"term {term} is over")

    def require(self, term: Term) -> None:
        standing, elector = self.standing, self._elector
        if standing.term == term and elector is not None and self._clock() < elector.good_until:
            return
        if self._is_unsure(term):
            raise TermOver(End.SUSPENDED, f"term {term} was not confirmed in time")
        raise TermOver(standing.end or End.LOST, standing.why or f"term {term} is over")

    async def release(self, term: Term) -> None:
        self._idle.set()
        paused, self._paused = self._paused, None
        if paused == term or self._is_unsure(term):
            return
        self._say(replace(self._vitals, wanted=False))
        self._tell(lambda elector: elector.drained(term))
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._standing(lambda one: one.term != term or not one.active)
        except TimeoutError:
            logger.warning(
                "the elector does not give the lock up; others wait it out. Look for a blocked "
                "process or machine",
                extra={"term": term},
            )

    def _is_unsure(self, term: Term) -> bool:
        """Tell whether the work ended only because nobody confirmed the term in time."""
        standing, elector = self.standing, self._elector
        if standing.term != term or standing.ending or elector is None:
            return False
        return self._clock() >= elector.good_until

    async def _claim(self, term: Term) -> bool:
        sent = self._clock()
        try:
            await self._claims.claim(term, self._candidate.me)
        except Deposed as refused:
            await self._take_refusal(term, refused)
            return False
        except StoreUnavailable as away:
            logger.debug("the claim is not confirmed yet", extra={"reason": str(away)})
            await asyncio.sleep(_RETRY_SECONDS)
            return False
        self._refusals = 0
        self._say(replace(self._vitals, claimed=term, confirmed=sent, store=sent))
        return self.standing.active and self.standing.term == term

    async def _take_refusal(self, term: Term, refused: Deposed) -> None:
        self._refusals += 1
        vitals = replace(self._vitals, fence=self._refusing(term))
        if self._refusals >= REFUSALS:
            self._refusals = 0
            rest = self._clock() + self._candidate.profile.lease
            vitals = replace(vitals, refused_until=rest)
            logger.error(
                "the store refused several terms in a row; this replica lets others try. Check "
                "that all replicas use the same lock and the same store",
                extra={"term": term, "reason": str(refused)},
            )
        self._say(vitals)  # the elector loses the term by it and goes for one above the fence
        await self._standing(lambda one: one.term != term)

    # The background.

    async def run(self) -> NoReturn:
        """Compete until cancelled; then wait for the work to stop and give the lock up.

        Raises:
            RuntimeError: The elector ended by itself.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(
            target=self._compete, args=(loop, ended), name="elector", daemon=True
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pulse(), name="pulse")
            tasks.create_task(self._consult(), name="consult")
            self._started = self._clock()
            thread.start()
            try:
                await asyncio.shield(ended)
            finally:
                await self._finish(ended)
        raise RuntimeError("the elector ended")

    async def _finish(self, ended: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()
            self._stopping = True
            self._tell(Elector.stop)
            async with asyncio.timeout(_END_SECONDS):
                await asyncio.shield(ended)
        except TimeoutError:
            logger.warning("the lock is not given up: others wait it out. The next start is fine")

    def _compete(self, main: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        """Run the elector in this thread and tell the main loop how that ended."""

        def end(error: BaseException | None) -> None:
            if ended.done():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        async def compete() -> None:
            self._elector_loop = asyncio.get_running_loop()
            self._elector = Elector(
                self._make_lock(),
                self._candidate,
                vitals=lambda: self._vitals,
                publish=lambda standing: _call(main, lambda: self._take(standing)),
                clock=self._clock,
            )
            if self._stopping:
                self._elector.stop()
            await self._elector.run()

        try:
            asyncio.run(compete())
        except BaseException as error:  # noqa: BLE001 - handed to the main loop, which raises it
            failure = error
            _call(main, lambda: end(failure))
        else:
            _call(main, lambda: end(None))

    async def _pulse(self) -> NoReturn:
        while True:
            now, health = self._clock(), self._health
            self._say(
                replace(
                    self._vitals,
                    beat=now,
                    outbox_readable=self._claims.is_outbox_readable,
                    chain=now - health.head_age(),
                    operators=health.operators(),
                    window=health.window(),
                    signs=health.signs(),
                )
            )
            await asyncio.sleep(PULSE_SECONDS)

    async def _consult(self) -> NoReturn:
        """Ask the store once each renewal period: who lives, and whether our claim holds."""
        while True:
            sent = self._clock()
            term = self.standing.term
            try:
                await self._ask_store(term)
            except StoreUnavailable as away:
                logger.debug("the store does not answer", extra={"reason": str(away)})
                self._say(replace(self._vitals, fence=Fence(*self._claims.known_fence)))
            except Deposed as deposed:
                logger.debug("the claim is refused", extra={"reason": str(deposed)})
                self._say(replace(self._vitals, fence=self._refusing(term or 0)))
            else:
                self._say(replace(self._vitals, fence=Fence(*self._claims.known_fence)))
            pause = sent + self._candidate.profile.renew - self._clock()
            await asyncio.sleep(max(pause, 0.0))

    async def _ask_store(self, term: int | None) -> None:
        sent = self._clock()
        facts = {"holder": self._candidate.me, "fit": unfit(self._vitals, sent) is None}
        beat = await self._claims.beat(self._candidate.pod, json.dumps(facts).encode())
        peers = frozenset(
            peer.pod
            for peer in beat.members
            if peer.pod != self._candidate.pod and peer.age < PEER_SECONDS and _says_fit(peer.facts)
        )
        self._say(replace(self._vitals, peers=peers))
        if term is not None and (term == self._vitals.claimed or not self.standing.active):
            await self._confirm(Term(term))
        else:
            self._say(replace(self._vitals, store=sent))

    def _refusing(self, term: int) -> Fence:
        """Return the fence that refused ``term``; one of the same term may be all we know."""
        fence = Fence(*self._claims.known_fence)
        return fence if fence.refuses(term, self._candidate.me) else Fence(term, "somebody else")

    async def _confirm(self, term: Term) -> None:
        sent = self._clock()
        if term == self._vitals.claimed:
            await self._claims.confirm(term, self._candidate.me)
        else:  # suspended before the claim was confirmed
            await self._claims.claim(term, self._candidate.me)
        self._say(replace(self._vitals, claimed=term, confirmed=sent, store=sent))

    # Between the threads.

    def _say(self, vitals: Vitals) -> None:
        self._vitals = vitals  # replaced whole: the elector reads it whenever it decides

    def _tell(self, what: Callable[[Elector], None]) -> None:
        elector, loop = self._elector, self._elector_loop
        if elector is not None and loop is not None:
            _call(loop, lambda: what(elector))

    def _take(self, standing: Standing) -> None:
        self.standing = standing
        self._changed.set()
        self._changed = asyncio.Event()

    async def _standing(self, wanted: Callable[[Standing], bool]) -> Standing:
        """Wait for a standing that is ``wanted``."""
        while not wanted(self.standing):
            await self._changed.wait()
        return self.standing


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """Run ``what`` in another thread's loop; a loop that has ended needs nothing any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what)


def _says_fit(facts: bytes) -> bool:
    try:
        described = json.loads(facts)
    except ValueError:
        return False
    return isinstance(described, dict) and described.get("fit") is True
