"""Stage: batches with a quorum are answered on chain. Leader's work: it lives within one term.

Level-triggered: any change of a batch, a new head, or the nearest time makes it look at what is
there, never at what happened. What was missed or half done is found again by the next look.

::

    quorum ──▶ window ──▶ ready ──room──▶ certificate ∥ survey ──▶ simulate, sign, record, send
                 ▲                            │
                 └──── retry time ◀── parked ◀┘ cannot be sent now
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, NoReturn, Protocol

from aggregator import certificate, parking, quorum
from aggregator.outbox import Standing
from aggregator.parking import ADVICE, ALARMING, QUIET, CannotSend, Parked, Reason
from aggregator.prove import BadAggregate
from aggregator.together import together
from aligned.chain import calldata
from aligned.errors import StoreUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aggregator.batches import Batches, BatchState
    from aggregator.outbox import OutboxRow, Receipt, Survey
    from aggregator.ports import Clock, Store
    from aggregator.quorum import Tally
    from aligned.chain.calldata import Certificate
    from aligned.model import (
        Batch,
        BatchId,
        BlockRef,
        Entry,
        OperatorId,
        OperatorSet,
        Signature,
        Term,
        TransactionHash,
    )

logger = logging.getLogger(__name__)

_CLAIM_RETRY_SECONDS = 0.5


class Transactor(Protocol):
    """Sends answers and sees them through; the contracts are on the implementation."""

    @property
    def is_observing(self) -> bool: ...
    @property
    def blocked(self) -> CannotSend | None: ...
    def begin(
        self, term: Term, holder: str, rows: Sequence[OutboxRow], desk: Submitter
    ) -> None: ...
    def end(self) -> None: ...
    def room(self) -> int: ...
    def standing(self, batch: Batch) -> Standing: ...
    async def survey(self, batch: Batch, non_signers: Sequence[OperatorId]) -> Survey: ...
    async def answer(self, batch: Batch, data: bytes, survey: Survey) -> TransactionHash | None: ...
    async def run(self) -> NoReturn: ...


class Prover(Protocol):
    """Makes certificates; the contracts are on the implementation."""

    async def certify(
        self, batch: Batch, operators: OperatorSet, signatures: Mapping[OperatorId, Signature]
    ) -> Certificate: ...
    async def find_bad(
        self, batch: Batch, operators: OperatorSet, signatures: Mapping[OperatorId, Signature]
    ) -> Sequence[Entry]: ...


class Milestones(Protocol):
    """Who wants to hear how batches get on. All methods return at once."""

    def quorum_reached(self, batch: Batch, counted: Tally) -> None:
        """The threshold was met for the first time in this term."""

    def answer_mined(self, batch: Batch, receipt: Receipt) -> None:
        """An answer of ours was mined."""

    def answer_sent(self, batch: Batch, transaction: TransactionHash, counted: Tally) -> None:
        """An answer was broadcast; ``counted`` is what it carries."""


class Submitter:
    """Answers every batch that can be answered, once.

    Args:
        batches: The memory.
        prover: Makes certificates.
        store: What replicas share.
        transactor: Sends.
        window: Seconds to wait for late signatures after the threshold.
        clock: Seconds.
        milestones: Telemetry.
        luck: Draws from [0, 1): spreads retries.
    """

    def __init__(  # noqa: PLR0913  # the composition root's call; each is a separate port or rule
        self,
        *,
        batches: Batches,
        prover: Prover,
        store: Store,
        transactor: Transactor,
        window: float,
        clock: Clock,
        milestones: Milestones,
        luck: Callable[[], float] | None = None,
    ) -> None:
        self._batches = batches
        self._prover = prover
        self._store = store
        self._transactor = transactor
        self._window = window
        self._clock = clock
        self._milestones = milestones
        self._luck = luck or random.SystemRandom().random
        self._wake = asyncio.Event()
        self._clear()
        batches.on_change(self._changed)

    def _clear(self) -> None:
        self._serving = False
        self._dirty: dict[BatchId, None] = {}
        self._reached: dict[BatchId, tuple[BlockRef, float]] = {}
        self._ready: dict[BatchId, None] = {}
        self._due: dict[BatchId, float] = {}
        self._busy: set[BatchId] = set()
        self._under_way: set[BatchId] = set()
        self._observed: dict[BatchId, BlockRef] = {}
        self._parked: dict[BatchId, Parked] = {}
        # Why each was last parked, also if it was sent since: what reverts each time waits longer.
        self._last: dict[BatchId, Parked] = {}

    @property
    def observed(self) -> Mapping[BatchId, BlockRef]:
        """Batches that would have been answered, with their blocks; only while observing."""
        return self._observed

    @property
    def parked(self) -> list[Parked]:
        """Batches with a quorum that cannot be answered now, and why; for ``/status``."""
        parked = dict(self._parked)
        if (blocked := self._transactor.blocked) is not None:
            now = self._clock()
            for batch_id in self._ready:
                state = self._batches.get(batch_id)
                if state is not None and state.batch is not None:
                    parked[batch_id] = parking.park(
                        None, batch_id, state.batch.created, blocked, now=now, luck=0
                    )
        return list(parked.values())

    # What the transactor tells.

    def waiting(self) -> int:
        """See ``aggregator.chain.term.Desk``."""
        return len(self._ready) + len(self._busy)

    def park(self, batch_id: BatchId, problem: CannotSend) -> None:
        """See ``aggregator.chain.term.Desk``."""
        state = self._batches.get(batch_id)
        if state is not None and state.batch is not None:
            self._park(state.batch, problem)

    def _park(self, batch: Batch, problem: CannotSend) -> None:
        """Keep ``batch`` from being tried again at once; in another block it is another case."""
        state = self._batches.get(batch.batch_id)
        if state is None or not state.is_open:
            return
        before = self._parked.get(batch.batch_id)
        last, now, luck = self._last.get(batch.batch_id), self._clock(), self._luck()
        parked = parking.park(last, batch.batch_id, batch.created, problem, now=now, luck=luck)
        self._parked[batch.batch_id] = self._last[batch.batch_id] = parked
        self._ready.pop(batch.batch_id, None)
        self._changed(batch.batch_id)
        if before is None or before.reason is not problem.reason:
            _tell_parked(parked)

    def mined(self, batch_id: BatchId, receipt: Receipt) -> None:
        """See ``aggregator.chain.term.Desk``."""
        state = self._batches.get(batch_id)
        if state is not None and state.batch is not None:
            self._milestones.answer_mined(state.batch, receipt)

    def look_again(self) -> None:
        """See ``aggregator.chain.term.Desk``."""
        self._dirty.update(dict.fromkeys(self._under_way))
        for parked in list(self._parked.values()):
            if parked.reason is Reason.TOO_EARLY:
                del self._parked[parked.batch_id]
                self._dirty[parked.batch_id] = None
        self._wake.set()

    def _changed(self, batch_id: BatchId) -> None:
        if self._serving:  # a term begins with a look at everything there is
            self._dirty[batch_id] = None
            self._wake.set()

    # One term.

    async def run(
        self, term: Term, holder: str, begun: Callable[[Term, str], None] = lambda *_: None
    ) -> NoReturn:
        """Answer batches until cancelled.

        Cancelling at any point leaves nothing that a successor does not find in the outbox.

        Args:
            term: The term.
            holder: Who has it.
            begun: Called once, when the term is claimed and answers may be sent.

        Raises:
            ExceptionGroup: With ``Deposed``, when the term is over.
        """
        rows = await self._claim(term, holder)
        self._clear()
        self._serving = True
        self._dirty = dict.fromkeys(state.batch_id for state in self._batches)
        self._transactor.begin(term, holder, rows, self)
        begun(term, holder)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._transactor.run(), name="transactor")
                await self._serve(group, term, holder)
        finally:  # what kept us from answering is the next leader's to find out, and to tell
            self._clear()
            self._transactor.end()

    async def _claim(self, term: Term, holder: str) -> Sequence[OutboxRow]:
        level = logging.WARNING
        while True:
            try:
                return await self._store.claim(term, holder)
            except StoreUnavailable as away:
                logger.log(
                    level,
                    "the term cannot begin: the store does not confirm the claim; check the store",
                    extra={"term": term, "reason": str(away)},
                )
                level = logging.DEBUG
                await asyncio.sleep(_CLAIM_RETRY_SECONDS)

    async def _serve(self, group: asyncio.TaskGroup, term: Term, holder: str) -> NoReturn:
        while True:
            self._wake.clear()
            now = self._clock()
            dirty, self._dirty = self._dirty, {}
            for batch_id in [*dirty, *(due for due, at in self._due.items() if at <= now)]:
                self._consider(batch_id, now)
            for state in self._startable():
                self._start(group, state, (term, holder))
            delay = min(self._due.values()) - self._clock() if self._due else None
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _start(self, group: asyncio.TaskGroup, state: BatchState, fence: tuple[Term, str]) -> None:
        if state.batch is None or state.operators is None:
            return
        self._busy.add(state.batch_id)
        self._ready.pop(state.batch_id, None)
        group.create_task(self._answer(state, state.batch, state.operators, fence), name="answer")

    def _consider(self, batch_id: BatchId, now: float) -> None:
        """Find out where a batch stands and put it where it belongs."""
        self._due.pop(batch_id, None)
        self._under_way.discard(batch_id)
        state = self._batches.get(batch_id)
        if state is None or state.batch is None or not state.is_open:
            self._forget(batch_id)
            return
        at = None if batch_id in self._busy else self._fire_at(state, state.batch, now)
        if at is None or self._observed.get(batch_id) == state.batch.created:
            self._ready.pop(batch_id, None)
            return
        if self._transactor.standing(state.batch) is Standing.UNDER_WAY:
            self._under_way.add(batch_id)
            self._ready.pop(batch_id, None)
            return
        parked = self._parked.get(batch_id)
        if parked is not None and parked.created != state.batch.created:
            del self._parked[batch_id]
        elif parked is not None:
            at = max(at, parked.retry_at)
        if at <= now:
            self._ready.setdefault(batch_id)
        else:
            self._ready.pop(batch_id, None)
            self._due[batch_id] = at

    def _forget(self, batch_id: BatchId) -> None:
        for known in (self._reached, self._ready, self._observed, self._parked, self._last):
            known.pop(batch_id, None)

    def _fire_at(self, state: BatchState, batch: Batch, now: float) -> float | None:
        if state.operators is None:
            return None
        counted = quorum.tally(state.operators, state.signatures)
        if not counted.is_quorum:
            self._reached.pop(state.batch_id, None)
            return None
        created, reached = self._reached.get(state.batch_id, (batch.created, None))
        if created != batch.created:
            reached = None
        if reached is None:
            self._reached[state.batch_id] = (batch.created, now)
            self._milestones.quorum_reached(batch, counted)
        return quorum.fire_at(counted, reached, now, self._window)

    def _startable(self) -> list[BatchState]:
        """Return what may be prepared at once: what replaces, and the oldest there is room for."""
        if self._transactor.blocked is not None:
            return []
        room = self._transactor.room() - len(self._busy)
        startable = []
        known = [state for ready in self._ready if (state := self._batches.get(ready))]
        for state in sorted(known, key=lambda one: one.batch.created.number if one.batch else 0):
            if state.batch is None:
                continue
            standing = self._transactor.standing(state.batch)
            if standing is Standing.UNDER_WAY:  # seen only now: the account was not known before
                self._ready.pop(state.batch_id)
                self._under_way.add(state.batch_id)
            elif standing is Standing.STALE:
                startable.append(state)
            elif room > 0:
                room -= 1
                startable.append(state)
        return startable

    # One answer.

    async def _answer(
        self, state: BatchState, batch: Batch, operators: OperatorSet, fence: tuple[Term, str]
    ) -> None:
        try:
            await self._prepare_and_send(state, batch, operators, fence)
        except CannotSend as problem:
            self._park(batch, problem)
        except Unavailable as away:
            self._park(batch, parking.outage(away))
        finally:
            self._busy.discard(batch.batch_id)
            self._changed(batch.batch_id)

    async def _prepare_and_send(
        self, state: BatchState, batch: Batch, operators: OperatorSet, fence: tuple[Term, str]
    ) -> None:
        signatures = dict(state.signatures)
        asked = tuple(certificate.absent(operators, signatures))
        try:
            proof, survey = await together(
                self._prover.certify(batch, operators, signatures),
                self._transactor.survey(batch, asked),
            )
            if len(certificate.absent(operators, state.signatures)) < len(asked):
                signatures |= state.signatures  # more signed meanwhile: each saves 18,000 gas
                proof = await self._prover.certify(batch, operators, signatures)
        except BadAggregate:
            bad = await self._prover.find_bad(batch, operators, signatures)
            # The store first: if it does not confirm, the next attempt finds them again.
            await self._store.evict(*fence, bad)
            self._batches.evict(bad)
            return
        if state.batch != batch:
            return  # a reorg moved it: it is looked at again at once
        indices = certificate.without(survey.indices, asked, proof.non_signers)
        data = calldata.respond_to_task(proof, indices)
        transaction = await self._transactor.answer(batch, data, survey)
        self._parked.pop(batch.batch_id, None)
        if transaction is None:
            self._observed[batch.batch_id] = batch.created
        else:
            counted = quorum.tally(operators, signatures)
            self._milestones.answer_sent(batch, transaction, counted)


def _tell_parked(parked: Parked) -> None:
    facts = {"batch": parked.batch_id, "reason": parked.reason, "detail": parked.detail}
    if parked.reason in QUIET:
        logger.info("batch waits", extra=facts)
    else:
        level = logging.ERROR if parked.reason in ALARMING else logging.WARNING
        logger.log(level, "batch parked, it is tried again: %s", ADVICE[parked.reason], extra=facts)
