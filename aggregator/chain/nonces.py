"""The nonces of our account: what was signed for each, and what became of it. Pure.

Rules::

    a batch has one live nonce; it gets another once that one was consumed by something else
    nonces are used without gaps, a gap or a nonce given up first, lowest first
    below the account's count with no receipt of ours, head after head: somebody else has our key
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from aggregator.chain.fees import Offer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aggregator.chain.fees import Market
    from aggregator.outbox import OutboxRow, Receipt
    from aligned.chain.calldata import BatchRecord
    from aligned.model import BatchId, BlockRef, TransactionHash, Wei

PATIENCE = 3
"""Heads in a row before a nonce is called stolen, or a transaction hopeless: endpoints lag, and
the base fee swings."""

REPEAT = 3
"""Heads between two broadcasts of the same bytes: nodes forget transactions."""


class Fate(StrEnum):
    """What became of a nonce."""

    OPEN = "open"
    """Not consumed: any of its transactions may still be mined."""
    MINED = "mined"
    """Consumed by one of ours, which did what it should."""
    REVERTED = "reverted"
    """Consumed by one of ours, which was undone."""
    UNSEEN = "unseen"
    """Consumed, by whom is not seen yet."""
    FOREIGN = "foreign"
    """Consumed by a transaction that is not ours."""


@dataclass(slots=True)
class Slot:
    """One nonce."""

    nonce: int
    since: float
    """When its last row was added, or it became the lowest, in seconds of the clock."""
    rows: list[OutboxRow] = field(default_factory=list)
    """By attempt; none for a gap."""
    fate: Fate = Fate.OPEN
    receipt: Receipt | None = None
    inherited: bool = False
    """It was consumed before our term began."""
    given_up: bool = False
    """Its last transaction will not be raised any more: another batch may have the nonce."""
    refused: bool = False
    """A node wants a higher replacement."""
    is_sent: bool = False
    """A node took its last row, in this term."""
    told: set[TransactionHash] = field(default_factory=set)
    """Receipts that were reported."""
    heads: int = 0
    """Heads since ``since``."""
    idle: int = REPEAT
    """Heads since the last broadcast; a new slot is due."""
    unseen: int = 0
    cheap: int = 0
    useless: int = 0
    """Heads in a row without a receipt; with an offer under the base fee; with nothing to do."""

    @property
    def last(self) -> OutboxRow:
        """The attempt that nodes should hold."""
        return self.rows[-1]

    @property
    def offers(self) -> tuple[Offer, ...]:
        """What was offered for this nonce so far."""
        return tuple(Offer(row.max_fee, row.max_priority_fee) for row in self.rows)

    def concerns(self, batch_id: BatchId) -> bool:
        """Tell whether any attempt answers this batch."""
        return any(row.batch_id == batch_id for row in self.rows)

    @property
    def mined_row(self) -> OutboxRow | None:
        """The attempt that consumed the nonce."""
        if self.receipt is None:
            return None
        return next(row for row in self.rows if row.hash == self.receipt.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the chain says at one head."""

    head: BlockRef
    latest: int
    """Transactions of our account: the next nonce."""
    final: int
    """The same at the finalized block."""
    market: Market
    balance: Wei
    """Of our account."""
    receipts: Mapping[TransactionHash, Receipt]
    records: Mapping[BatchId, BatchRecord]
    """Of batches with an open nonce."""
    answered_finally: frozenset[BatchId] = frozenset()
    """Of batches asked about: those answered as of the finalized block."""


@dataclass(frozen=True, slots=True)
class Target:
    """A nonce to sign for."""

    nonce: int
    attempt: int
    replaces: tuple[Offer, ...]


class Ledger:
    """All nonces that are not final yet."""

    def __init__(self, rows: Iterable[OutboxRow] = (), *, now: float = 0.0) -> None:
        self._slots: dict[int, Slot] = {}
        self._head: BlockRef | None = None
        self._floor: int | None = None
        self._lowest: int | None = None
        self.latest = 0
        self.final = 0
        for row in sorted(rows, key=lambda row: (row.nonce, row.attempt)):
            self._slots.setdefault(row.nonce, Slot(row.nonce, now)).rows.append(row)

    def __iter__(self) -> Iterator[Slot]:
        """Yield slots by ascending nonce."""
        return iter([self._slots[nonce] for nonce in sorted(self._slots)])

    def get(self, nonce: int) -> Slot | None:
        """Return what is known of a nonce."""
        return self._slots.get(nonce)

    @property
    def next_nonce(self) -> int:
        """The first nonce above everything."""
        return max([self.latest, *(nonce + 1 for nonce in self._slots)])

    @property
    def open_slots(self) -> list[Slot]:
        """Nonces with something signed that is not mined, ascending."""
        return [slot for slot in self if slot.fate is Fate.OPEN and slot.rows]

    def live(self, batch_id: BatchId) -> Slot | None:
        """Return the nonce that answers, or may still answer, this batch.

        The highest, if a reorg brought back one that was consumed otherwise.
        """
        for slot in reversed(list(self)):
            if slot.fate in {Fate.OPEN, Fate.UNSEEN} and slot.concerns(batch_id):
                return slot
            row = slot.mined_row
            if slot.fate is Fate.MINED and row is not None and row.batch_id == batch_id:
                return slot
        return None

    def add(self, row: OutboxRow, *, now: float) -> Slot:
        """Take in a row that was recorded."""
        slot = self._slots.setdefault(row.nonce, Slot(row.nonce, now))
        slot.rows.append(row)
        slot.since, slot.heads = now, 0
        slot.idle, slot.cheap, slot.useless = REPEAT, 0, 0
        slot.given_up = slot.refused = slot.is_sent = False
        return slot

    def drop(self, nonce: int) -> None:
        """Forget a nonce whose rows are forgotten."""
        self._slots.pop(nonce, None)

    def room(self, max_in_flight: int) -> int:
        """Return how many more batches may be signed for now.

        A gap always has room, since nothing above it can be mined before it is filled.
        """
        taken = [slot for slot in self.open_slots if not slot.given_up]
        return max(len(self._gaps), max_in_flight - len(taken))

    @property
    def _gaps(self) -> list[int]:
        """Nonces under the next that nothing is signed for, ascending."""
        slots = ((nonce, self._slots.get(nonce)) for nonce in range(self.latest, self.next_nonce))
        return [nonce for nonce, slot in slots if slot is None or not slot.rows]

    def choose(self, batch_id: BatchId, max_in_flight: int) -> Target | None:
        """Return the nonce to sign an answer for, or None if there is none now.

        The batch's own if it has one, else the lowest that nobody needs, else the next.
        """
        own = self.live(batch_id)
        if own is not None:
            return self.target(own.nonce) if own.fate is Fate.OPEN else None
        for nonce in range(self.latest, self.next_nonce):
            slot = self._slots.get(nonce)
            if slot is None or (slot.fate is Fate.OPEN and (slot.given_up or not slot.rows)):
                return self.target(nonce)
        if len(self.open_slots) >= max_in_flight:
            return None
        return self.target(self.next_nonce)

    def target(self, nonce: int) -> Target:
        """Return what the next attempt for a nonce has to surpass."""
        slot = self._slots.get(nonce)
        if slot is None or not slot.rows:
            return Target(nonce, 0, ())
        return Target(nonce, slot.last.attempt + 1, slot.offers)

    def observe(self, facts: Facts, *, now: float) -> list[Slot]:
        """Take in what the chain says; return the slots whose fate changed, by nonce.

        Counters advance once a head, however often it is looked at.
        """
        ticked = facts.head != self._head
        self._head = facts.head
        self.latest, self.final = facts.latest, max(self.final, facts.final)
        if self._floor is None:
            self._floor = facts.latest
            for slot in self:
                slot.inherited = slot.nonce < facts.latest
        for nonce in range(self._floor, facts.latest):
            self._slots.setdefault(nonce, Slot(nonce, now))
        self._floor = max(self._floor, min(self.final, facts.latest))
        changed = [slot for slot in self if _judge(slot, facts, ticked=ticked)]
        self._count(facts, ticked=ticked)
        lowest = next((slot for slot in self.open_slots), None)
        if lowest is not None and lowest.nonce != self._lowest:
            self._lowest = lowest.nonce
            lowest.since, lowest.heads = now, 0
        return changed

    def _count(self, facts: Facts, *, ticked: bool) -> None:
        if not ticked:
            return
        for slot in self.open_slots:
            slot.heads += 1
            slot.idle += 1
            cheap = slot.last.max_fee < facts.market.base_fee
            slot.cheap = slot.cheap + 1 if cheap else 0
            slot.useless = slot.useless + 1 if _is_useless(slot.last, facts) else 0
            slot.given_up = slot.given_up and bool(slot.cheap or slot.useless)

    def finished(self, facts: Facts) -> list[Slot]:
        """Return the slots that nothing can change any more, with what became of them known."""
        return [
            slot
            for slot in self
            if slot.nonce < facts.final
            and (
                slot.fate in {Fate.REVERTED, Fate.FOREIGN}
                or (slot.fate is Fate.MINED and _is_final(slot, facts))
            )
        ]


def _judge(slot: Slot, facts: Facts, *, ticked: bool) -> bool:
    """Update the fate of one slot; tell whether it changed."""
    before = (slot.fate, slot.receipt)
    found = (facts.receipts.get(row.hash) for row in slot.rows)
    slot.receipt = next((receipt for receipt in found if receipt is not None), None)
    if slot.receipt is not None:
        slot.unseen = 0
        slot.fate = Fate.MINED if slot.receipt.succeeded else Fate.REVERTED
    elif slot.nonce >= facts.latest:
        if slot.fate is not Fate.OPEN:  # a reorg undid it: the same bytes are valid again
            slot.idle = REPEAT
        slot.unseen = 0
        slot.fate = Fate.OPEN
    else:
        slot.unseen += ticked
        slot.fate = Fate.FOREIGN if slot.unseen >= PATIENCE else Fate.UNSEEN
    return before != (slot.fate, slot.receipt)


def _is_useless(row: OutboxRow, facts: Facts) -> bool:
    """Tell whether an answer would revert: answered already, gone, or in another block now."""
    if row.batch_id is None or row.created is None or row.batch_id not in facts.records:
        return False
    record = facts.records[row.batch_id]
    return record.responded or record.created_block != row.created.number


def _is_final(slot: Slot, facts: Facts) -> bool:
    row = slot.mined_row
    return row is not None and (row.batch_id is None or row.batch_id in facts.answered_finally)
