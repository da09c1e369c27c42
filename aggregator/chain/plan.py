"""What to do about nonces that are not mined. Pure.

Rules::

    only the lowest nonce is worth more money: nothing above it can be mined before it
    a transaction priced out for good gives its nonce to the next ready batch, or uses it up with
    a transfer to ourselves; unless nobody waits: then it waits for its price
    what nodes may have forgotten is broadcast again, the same bytes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.chain import fees
from aggregator.chain.fees import Offer, Unaffordable
from aggregator.chain.nonces import PATIENCE, REPEAT, Fate
from aggregator.outbox import Kind
from aligned.model import Wei

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.chain.fees import Policy
    from aggregator.chain.nonces import Facts, Ledger, Slot
    from aggregator.outbox import OutboxRow
    from aligned.model import BatchId


@dataclass(frozen=True, slots=True)
class Repeat:
    """Broadcast the same bytes again."""

    row: OutboxRow


@dataclass(frozen=True, slots=True)
class Raise:
    """Replace by the same transaction with higher fees."""

    nonce: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Let another batch have the nonce."""

    nonce: int
    batch_id: BatchId | None
    priced_out: Unaffordable | None
    """None: there is nothing to answer any more, or another nonce does it."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Use the nonce up with a transfer of nothing to ourselves."""

    nonce: int
    offer: Offer


_CANCEL_AT_MOST = 10
"""Times the market's price that raises of a cancellation go up to."""

Action = Repeat | Raise | GiveUp | Cancel


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What ``plan`` goes by."""

    policy: Policy
    resubmit_after: float
    """Seconds un-mined, as the lowest, before a raise."""


def plan(ledger: Ledger, facts: Facts, rules: Rules, *, waiting: int, now: float) -> list[Action]:
    """Return what to do about nonces that are not mined, lowest first.

    Args:
        ledger: After it observed ``facts``.
        facts: Of the present head.
        rules: Of the person who runs us.
        waiting: Batches that are ready and have no nonce.
        now: Seconds of the clock.
    """
    actions: list[Action] = []
    slots = ledger.open_slots
    for nonce in range(facts.latest, ledger.next_nonce):
        slot = ledger.get(nonce)
        behind = any(other.nonce > nonce for other in slots)
        if slot is None or not slot.rows:
            if behind and not waiting:
                actions += _cancel(nonce, (), facts, rules)
        elif slot.fate is Fate.OPEN:
            lowest = slot is slots[0]
            # While no block comes, no price is too low: raising would only run the fee up.
            late = lowest and slot.heads > 0 and now - slot.since >= rules.resubmit_after
            twin = slot.last.batch_id is not None and ledger.live(slot.last.batch_id) is not slot
            actions += _tend(
                slot, facts, rules, _View(late=late, behind=behind, waiting=waiting, twin=twin)
            )
    return actions


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    late: bool
    behind: bool
    """Something is signed for a higher nonce."""
    waiting: int
    twin: bool
    """A reorg brought this nonce back after its batch had got another."""


def _tend(slot: Slot, facts: Facts, rules: Rules, view: _View) -> Sequence[Action]:
    raised = fees.offer(
        facts.market,
        rules.policy,
        bound=_bound(slot.last, facts, rules.policy),
        replaces=slot.offers,
    )
    hopeless = slot.useless >= PATIENCE or view.twin
    if hopeless or (slot.cheap >= PATIENCE and isinstance(raised, Unaffordable)):
        if slot.given_up or view.behind or view.waiting:
            return _give_up(slot, None if hopeless else raised, facts, rules, view)
    elif isinstance(raised, Offer) and _is_worth_raising(slot, raised, facts, view):
        return [Raise(slot.nonce, raised)]
    return [Repeat(slot.last)] if slot.idle >= REPEAT else []


def _is_worth_raising(slot: Slot, raised: Offer, facts: Facts, view: _View) -> bool:
    wanted = view.late or slot.refused or slot.cheap >= PATIENCE
    return wanted and slot.last.gas * raised.max_fee <= facts.balance


def _give_up(
    slot: Slot,
    raised: Offer | Unaffordable | None,
    facts: Facts,
    rules: Rules,
    view: _View,
) -> list[Action]:
    """Offer the nonce to those who wait first; use it up if there are none, or none took it."""
    actions: list[Action] = []
    if not slot.given_up:
        priced_out = raised if isinstance(raised, Unaffordable) else None
        actions.append(GiveUp(slot.nonce, slot.last.batch_id, priced_out))
    taken_long = max(slot.cheap, slot.useless) >= 2 * PATIENCE
    if not view.waiting or (slot.given_up and taken_long):
        actions += _cancel(slot.nonce, slot.offers, facts, rules)
    return actions


def _cancel(
    nonce: int, replaces: tuple[Offer, ...], facts: Facts, rules: Rules
) -> Sequence[Action]:
    offered = fees.offer(facts.market, rules.policy, bound=None, replaces=replaces)
    if isinstance(offered, Unaffordable) or fees.TRANSFER_GAS * offered.max_fee > facts.balance:
        return []
    return [Cancel(nonce, offered)]


def _bound(row: OutboxRow, facts: Facts, policy: Policy) -> Wei | None:
    """Return the most that may be offered for this transaction; None: only ``policy`` bounds it.

    A cancellation that is not mined at many times the market's price has another problem than
    its price, and no batch's limit bounds it.
    """
    if row.kind is Kind.CANCEL or row.batch_id is None:
        return Wei(_CANCEL_AT_MOST * (2 * facts.market.base_fee + facts.market.tip))
    record = facts.records.get(row.batch_id)
    if record is None:
        return row.max_fee
    limit = fees.ceiling(record.fee_limit, row.gas)
    # Some contracts bill the batcher no more than the limit; then our own cap, without which no
    # such offer is made, bounds the rest. This one is known for such a contract only if the
    # simulation passed at a price at which the others revert even for the gas used alone.
    bills_the_limit = row.max_fee * row.gas * 10 > record.fee_limit * 11
    return policy.max_fee if bills_the_limit else limit
