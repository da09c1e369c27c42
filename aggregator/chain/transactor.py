"""Edge: one account's transactions, from answer to final."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from aggregator.chain import fates, fees, refusals
from aggregator.chain.fees import Market, Unaffordable
from aggregator.chain.nonces import Fate
from aggregator.chain.pen import Account, Counters, Fence, Pen
from aggregator.chain.plan import Cancel, GiveUp, Raise, Repeat, plan
from aggregator.chain.quote import LEAST_GAS, quote
from aggregator.chain.term import TermState
from aggregator.outbox import Standing
from aggregator.parking import ADVICE, CannotSend, Reason
from aligned.chain.rpc import RpcError
from aligned.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.chain.facts import HeadSource, Node
    from aggregator.chain.nonces import Facts, Slot
    from aggregator.chain.plan import Action, Rules
    from aggregator.chain.signer import Signer
    from aggregator.chain.term import Desk
    from aggregator.outbox import OutboxRow, Survey
    from aggregator.ports import Clock, Store
    from aligned.chain.rpc import Rpc
    from aligned.model import (
        Address,
        Batch,
        BlockRef,
        OperatorId,
        Term,
        TransactionHash,
        Wei,
    )

logger = logging.getLogger(__name__)

LOOK_SECONDS = 4.0
"""Between looks at the chain when no new head is announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What stays the same for the life of the process."""

    chain_id: int
    contract: Address
    """The service manager."""
    rules: Rules
    max_in_flight: int
    """Un-mined transactions at once."""


class Transactor:
    """Sends answers and sees them through.

    One term at a time: ``begin``, then ``run`` beside the calls of ``answer``. Cancelling at any
    point leaves recorded rows, of which a successor knows, and nothing else.

    Args:
        node: Reads.
        rpc: Broadcasts.
        store: Records rows.
        signer: Signs; None only observes: answers are simulated and not sent.
        heads: Tells when to look.
        require: See ``Leadership.require``; asked before each broadcast.
        terms: Chain, contract and rules.
        clock: Seconds.
    """

    def __init__(  # noqa: PLR0913  # the composition root's call; each is a separate port
        self,
        *,
        node: Node,
        rpc: Rpc,
        store: Store,
        signer: Signer | None,
        heads: HeadSource,
        require: Callable[[Term], None],
        terms: Terms,
        clock: Clock,
    ) -> None:
        self._node = node
        self._rpc = rpc
        self._store = store
        self._signer = signer
        self._heads = heads
        self._require = require
        self._terms = terms
        self._clock = clock
        self._term: TermState | None = None
        self.counters = Counters()
        self.blocked: CannotSend | None = None
        """Why no answer is sent at all; None if answers are sent."""
        self.balance: Wei | None = None
        """Of our account, at the last look."""
        self.looked_at: BlockRef | None = None
        """The head up to which everything due was done."""

    def begin(self, term: Term, holder: str, rows: Sequence[OutboxRow], desk: Desk) -> None:
        """Start over with the outbox that claiming ``term`` returned."""
        self._term = TermState(Fence(term, holder), rows, desk)
        self.blocked = None
        if self._signer is not None:
            self.blocked = CannotSend(Reason.CHAIN_AWAY, "the account was not looked at yet")

    def end(self) -> None:
        """Say no more that nothing is sent: another replica sends."""
        self.blocked = None

    # What the stage asks.

    @property
    def is_observing(self) -> bool:
        """Tell whether nothing is ever sent."""
        return self._signer is None

    @property
    def account(self) -> Address | None:
        """Our account, once the signer has told it."""
        return None if self._pen is None else self._pen.account.address

    @property
    def slots(self) -> Sequence[Slot]:
        """The nonces that are not final, ascending; for ``/status``."""
        return [] if self._pen is None else list(self._pen.ledger)

    @property
    def _pen(self) -> Pen | None:
        return None if self._term is None else self._term.pen

    def room(self) -> int:
        """Return how many more answers may be handed in now."""
        if self.is_observing:
            return self._terms.max_in_flight
        if self.blocked or self._pen is None:
            return 0
        return self._pen.ledger.room(self._terms.max_in_flight)

    def standing(self, batch: Batch) -> Standing:
        """Tell what the outbox does about ``batch``."""
        slot = None if self._pen is None else self._pen.ledger.live(batch.batch_id)
        if slot is None:
            return Standing.FREE
        is_other = slot.last.batch_id == batch.batch_id and slot.last.created != batch.created
        return Standing.STALE if slot.fate is Fate.OPEN and is_other else Standing.UNDER_WAY

    async def survey(self, batch: Batch, non_signers: Sequence[OperatorId]) -> Survey:
        """Return what the chain says right before ``batch`` is answered: one round trip.

        Raises:
            CannotSend: The registry refuses these non-signers.
            ChainUnavailable: No endpoint answers.
        """
        try:
            return await self._node.survey(batch, non_signers, self.account)
        except RpcError as refusal:
            raise CannotSend(Reason.NO_QUORUM_DATA, f"indices: {refusal.message}") from refusal

    async def answer(self, batch: Batch, data: bytes, survey: Survey) -> TransactionHash | None:
        """Simulate an answer, sign it, record it, broadcast it: two round trips.

        It is seen through by ``run``, whatever the nodes say to the broadcast. Returns its hash;
        None while observing.

        Args:
            batch: What is answered.
            data: The call data.
            survey: Fresh.

        Raises:
            CannotSend: It would be refused, or must not be sent now. Nothing was signed.
            Unavailable: Chain, signer or store do not answer.
            Deposed: The term is over.
        """
        account = self.account or survey.aggregator
        in_flight = [] if self._pen is None else [s.last for s in self._pen.ledger.open_slots]
        problem = refusals.stands_in_the_way(survey, batch, account)
        problem = problem or refusals.batcher_lacks(survey, batch, in_flight)
        if self._pen is not None:
            at_least = LEAST_GAS * survey.base_fee
            problem = problem or refusals.we_lack(survey, account, at_least, in_flight)
        if problem is not None:
            raise problem
        gas, bound = await quote(self._node, self._terms.rules.policy, account, data, survey)
        if (pen := self._pen) is None:
            facts = {"batch": batch.batch_id, "gas": gas, "base_fee": survey.base_fee}
            logger.info("observing: this answer would be sent", extra=facts)
            return None
        async with pen.lock:
            row = await self._sign(pen, batch, data, survey, (gas, bound))
        await pen.broadcast(row)
        return row.hash

    async def _sign(
        self, pen: Pen, batch: Batch, data: bytes, survey: Survey, cost: tuple[int, Wei | None]
    ) -> OutboxRow:
        await pen.confirm()
        if self.blocked is not None:
            raise CannotSend(self.blocked.reason, self.blocked.detail)
        gas, bound = cost
        target = pen.ledger.choose(batch.batch_id, self._terms.max_in_flight)
        if target is None:
            raise CannotSend(Reason.BUSY, "no nonce is free any more")
        market = Market(survey.base_fee, survey.tip)
        policy = self._terms.rules.policy
        offered = fees.offer(market, policy, bound=bound, replaces=target.replaces)
        problem: CannotSend | None
        if isinstance(offered, Unaffordable):
            problem = refusals.too_dear(offered)
            if target.replaces:
                problem = CannotSend(Reason.BUSY, f"nonce {target.nonce}: {problem.detail}")
            raise problem
        others = [slot.last for slot in pen.ledger.open_slots if slot.nonce != target.nonce]
        problem = refusals.batcher_lacks(survey, batch, others)
        problem = problem or refusals.we_lack(
            survey, pen.account.address, gas * offered.max_fee, others
        )
        if problem is not None:
            raise problem
        return await pen.answer(batch, data, target, gas, offered)

    # Seeing it through.

    async def run(self) -> NoReturn:
        """Follow the chain until cancelled.

        Raises:
            Deposed: The term is over.
        """
        term = self._begun
        if self._heads.head is None:
            await self._heads.next_head()
        while True:
            head = self._heads.head
            if not self.is_observing:
                await self._try_look(term)
            term.desk.look_again()
            if self._heads.head != head:
                continue
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._heads.next_head()
            except TimeoutError:
                continue

    @property
    def _begun(self) -> TermState:
        if self._term is None:
            msg = "begin comes first"
            raise RuntimeError(msg)
        return self._term

    async def _try_look(self, term: TermState) -> None:
        try:
            await self.look()
        except Unavailable as away:
            if not term.away:
                logger.warning(
                    "transactions cannot be followed: check endpoints, signer and store. They "
                    "are taken up again when this is over",
                    extra={"reason": str(away)},
                )
            term.away = True
        else:
            if term.away:
                logger.info("transactions are followed again")
            term.away = False

    async def look(self) -> None:
        """Take in what the chain says now and do what is due.

        Raises:
            Unavailable: Chain, signer or store do not answer; what is due stays due.
            Deposed: The term is over.
        """
        term = self._begun
        pen = term.pen or await self._adopt(term)
        facts = await self._node.facts(pen.account.address, pen.ledger)
        self.balance = facts.balance
        for slot in pen.ledger.observe(facts, now=self._clock()):
            await self._tell(slot, term)
        if term.admitted or await self._admit(term, pen):
            await self._act(term, pen, facts)
        await pen.forget(pen.ledger.finished(facts))
        self.looked_at = facts.head

    async def _adopt(self, term: TermState) -> Pen:
        if self._signer is None:
            msg = "there is no account while observing"
            raise RuntimeError(msg)
        address = await self._signer.account()
        rows = [row for row in term.rows if row.sender == address]
        if others := len(term.rows) - len(rows):
            logger.warning(
                "the outbox has transactions of another account, which are left alone: nothing is "
                "to do if the key was changed on purpose",
                extra={"account": address, "transactions": others},
            )
        term.pen = Pen(
            account=Account(
                signer=self._signer,
                address=address,
                chain_id=self._terms.chain_id,
                contract=self._terms.contract,
            ),
            fence=term.fence,
            rows=rows,
            store=self._store,
            rpc=self._rpc,
            require=self._require,
            clock=self._clock,
            counters=self.counters,
        )
        return term.pen

    async def _admit(self, term: TermState, pen: Pen) -> bool:
        """Tell whether the outbox may be acted on; let answers be sent if nothing is against it."""
        account = pen.account.address
        aggregator, pending = await self._node.standing(account)
        if aggregator != account:
            self._block(refusals.wrong_aggregator(aggregator, account))
            return False
        foreign = pending - pen.ledger.next_nonce
        if foreign > 0:
            detail = f"{foreign} pending transactions of 0x{account.hex()} are not ours"
            self._block(refusals.somebody_else(detail))
        elif not term.stolen:
            term.admitted = True
            self._block(None)
        return True

    def _block(self, problem: CannotSend | None) -> None:
        before, self.blocked = self.blocked, problem
        if problem is None:
            logger.info("answers are sent", extra={"account": self.account})
        elif before is None or (before.reason, before.detail) != (problem.reason, problem.detail):
            logger.error(
                "no answers are sent: %s",
                ADVICE[problem.reason],
                extra={"reason": problem.reason, "detail": problem.detail},
            )

    async def _tell(self, slot: Slot, term: TermState) -> None:
        is_news = slot.receipt is not None and slot.receipt.hash not in slot.told
        fates.tell(slot, self.counters)
        if slot.fate is Fate.FOREIGN and not slot.inherited:
            term.stolen.add(slot.nonce)
            self._block(refusals.somebody_else(f"nonce {slot.nonce} was used by somebody else"))
        elif slot.nonce in term.stolen:
            term.stolen.remove(slot.nonce)
            if term.admitted and not term.stolen:
                self._block(None)
        row, receipt = slot.mined_row, slot.receipt
        if row is None or receipt is None or row.batch_id is None:
            return
        if receipt.succeeded:
            if is_news and not slot.inherited:
                term.desk.mined(row.batch_id, receipt)
            return
        term.desk.park(row.batch_id, await fates.why(row, receipt, self._node))

    async def _act(self, term: TermState, pen: Pen, facts: Facts) -> None:
        async with pen.lock:
            await pen.confirm()
            waiting = term.desk.waiting()
            rules = self._terms.rules
            actions = plan(pen.ledger, facts, rules, waiting=waiting, now=self._clock())
            rows = [row for action in actions if (row := await self._do(action, term, pen))]
        for row in rows:
            await pen.broadcast(row)

    async def _do(self, action: Action, term: TermState, pen: Pen) -> OutboxRow | None:
        """Carry out all but the broadcast; return what is to be broadcast."""
        slot = pen.ledger.get(action.row.nonce if isinstance(action, Repeat) else action.nonce)
        match action:
            case Repeat():
                return action.row
            case GiveUp() if slot is not None:
                slot.given_up = True
                if action.batch_id is not None and action.priced_out is not None:
                    term.desk.park(action.batch_id, refusals.too_dear(action.priced_out))
            case Raise() if slot is not None and not term.stolen:
                return await pen.raise_fees(slot, action.offer)
            case Cancel() if not term.stolen:
                return await pen.cancel(pen.ledger.target(action.nonce), action.offer)
            case _:
                pass
        return None
