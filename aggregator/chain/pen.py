"""Edge: signs, records, broadcasts. In this order, always.

Who signs holds ``lock`` from the choice of a nonce until the row is recorded, so that no two rows
get the same nonce and attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.chain import fees, signer
from aggregator.chain.nonces import Ledger
from aggregator.chain.signer import Transaction
from aggregator.outbox import Kind, OutboxRow
from aligned.chain.reverts import SendRefusal, send_refusal
from aligned.model import Wei

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.chain.fees import Offer
    from aggregator.chain.nonces import Slot, Target
    from aggregator.chain.signer import Signer
    from aggregator.ports import Clock, Store
    from aligned.chain.rpc import Broadcast, Rpc
    from aligned.model import Address, Batch, Term

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """Since the start of the process."""

    sent: int = 0
    """Transactions a node took."""
    mined: int = 0
    reverted: int = 0
    bumped: int = 0
    cancelled: int = 0
    gas_used: int = 0
    fees_paid: int = 0
    """Wei."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who signs, where."""

    signer: Signer
    address: Address
    chain_id: int
    contract: Address
    """The service manager."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What every write of a term carries."""

    term: Term
    holder: str


class Pen:
    """Writes one term's transactions.

    Cancelling at any point leaves recorded rows, of which a successor knows, and nothing else.

    Args:
        account: Who signs.
        fence: The term.
        rows: The account's outbox.
        store: Records rows.
        rpc: Broadcasts.
        require: Raises ``Deposed`` unless the term may have effects right now.
        clock: Seconds.
        counters: To count in.
    """

    def __init__(  # noqa: PLR0913  # one caller; each is a separate port or the term's own
        self,
        *,
        account: Account,
        fence: Fence,
        rows: Sequence[OutboxRow],
        store: Store,
        rpc: Rpc,
        require: Callable[[Term], None],
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.account = account
        self.lock = asyncio.Lock()
        self.ledger = Ledger(rows, now=clock())
        self._fence = fence
        self._store = store
        self._rpc = rpc
        self._require = require
        self._clock = clock
        self._counters = counters
        self._unconfirmed: OutboxRow | None = None

    # With the lock held.

    async def confirm(self) -> None:
        """Record the row of which it is not known whether it is recorded, if there is one.

        Until it is, its nonce and attempt must not get other bytes.

        Raises:
            StoreUnavailable: Still not known.
            Deposed: The term is over.
        """
        if (row := self._unconfirmed) is None:
            return
        await self._store.record(self._fence.term, self._fence.holder, row)
        self._unconfirmed = None
        self.ledger.add(row, now=self._clock())

    async def answer(
        self, batch: Batch, data: bytes, target: Target, gas: int, offer: Offer
    ) -> OutboxRow:
        """Sign and record an answer.

        Raises:
            SignerUnavailable: It was not signed.
            StoreUnavailable: It was signed and may be recorded; ``confirm`` finds out.
            Deposed: The term is over.
        """
        transaction = self._transaction(target, self.account.contract, data, gas, offer)
        return await self._write(transaction, target.attempt, batch)

    async def raise_fees(self, slot: Slot, offer: Offer) -> OutboxRow:
        """Sign and record the last transaction of ``slot`` with other fees; see ``answer``."""
        old = slot.last
        transaction = dataclasses.replace(
            signer.decode(old.raw), max_fee=offer.max_fee, tip=offer.tip
        )
        row = await self._write(
            transaction, old.attempt + 1, old if old.kind is Kind.ANSWER else None
        )
        self._counters.bumped += 1
        return row

    async def cancel(self, target: Target, offer: Offer) -> OutboxRow:
        """Sign and record a transfer of nothing to ourselves; see ``answer``."""
        to, gas = self.account.address, fees.TRANSFER_GAS
        transaction = self._transaction(target, to, b"", gas, offer)
        row = await self._write(transaction, target.attempt, None)
        self._counters.cancelled += 1
        return row

    def _transaction(
        self, target: Target, to: Address, data: bytes, gas: int, offer: Offer
    ) -> Transaction:
        return Transaction(
            chain_id=self.account.chain_id,
            nonce=target.nonce,
            to=to,
            value=Wei(0),
            data=data,
            gas=gas,
            max_fee=offer.max_fee,
            tip=offer.tip,
        )

    async def _write(
        self, transaction: Transaction, attempt: int, answers: Batch | OutboxRow | None
    ) -> OutboxRow:
        await self.confirm()
        raw = await self.account.signer.sign(transaction, self.account.address)
        row = OutboxRow(
            sender=self.account.address,
            nonce=transaction.nonce,
            attempt=attempt,
            kind=Kind.CANCEL if answers is None else Kind.ANSWER,
            batch_id=None if answers is None else answers.batch_id,
            created=None if answers is None else answers.created,
            raw=raw,
            hash=signer.transaction_hash(raw),
            gas=transaction.gas,
            max_fee=transaction.max_fee,
            max_priority_fee=transaction.tip,
            term=self._fence.term,
        )
        self._unconfirmed = row
        await self.confirm()
        return row

    # Without it.

    async def broadcast(self, row: OutboxRow) -> None:
        """Send a recorded row to all endpoints; nothing, if a later attempt replaced it.

        What they say changes nothing but what is done next: the row is seen through.

        Raises:
            Deposed: The term is over, or was not confirmed lately: whoever leads sends the row.
        """
        slot = self.ledger.get(row.nonce)
        if slot is None or row is not slot.last:
            return
        # The record said that the term is ours, but this process may have been paused since.
        self._require(self._fence.term)
        slot.idle = 0
        answers = await self._rpc.broadcast(row.raw)
        if row is slot.last:
            self._note(slot, row, answers)

    def _note(self, slot: Slot, row: OutboxRow, answers: Broadcast) -> None:
        facts = {"batch": row.batch_id, "nonce": row.nonce, "transaction": row.hash}
        if answers.is_accepted:
            slot.refused = False
            if not slot.is_sent:
                slot.is_sent = True
                self._counters.sent += 1
                logger.info("transaction sent", extra=facts | {"max_fee": row.max_fee})
            return
        kinds = {send_refusal(refusal) for refusal in answers.refusals}
        slot.refused = SendRefusal.REPLACEMENT_UNDERPRICED in kinds
        if kinds & {SendRefusal.KNOWN, SendRefusal.NONCE_TOO_LOW}:
            return  # the next look at the chain tells what became of it
        logger.warning(
            "no endpoint takes the transaction: it is kept and sent again; check the endpoints, "
            "and the account's funds",
            extra=facts | {"refusals": [refusal.message for refusal in answers.refusals]},
        )

    async def forget(self, slots: Sequence[Slot]) -> None:
        """Drop nonces that nothing can change any more.

        Raises:
            StoreUnavailable: They are kept.
            Deposed: The term is over.
        """
        if rows := [row for slot in slots for row in slot.rows]:
            await self._store.drop_rows(self._fence.term, self._fence.holder, rows)
        for slot in slots:
            self.ledger.drop(slot.nonce)
