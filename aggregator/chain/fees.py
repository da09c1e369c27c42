"""What to offer for a transaction. Pure.

The contract takes the answer's cost, (gas used inside + 70,000) × gas price, from the batcher and
reverts when that is over the batch's limit. Since nobody is charged more than the offered maximum
per gas, an offer of at most ``limit // (gas + 15,000)`` cannot be reverted for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligned.model import Wei

if TYPE_CHECKING:
    from collections.abc import Iterable

OVERHEAD_GAS = 15_000
"""The most by which the contract's bill exceeds the gas used: measured 13,800 without
non-signers, less with each of them."""

TRANSFER_GAS = 21_000
"""A transfer of nothing to ourselves."""

_RISE = (9, 8)
"""What a full block adds to the base fee (EIP-1559): an eighth."""

_MARGIN_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Market:
    """What blocks cost now, per gas."""

    base_fee: Wei
    """Of the head."""
    tip: Wei
    """What the node suggests as priority fee."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The two fees of a transaction, per gas."""

    max_fee: Wei
    tip: Wei
    """``maxPriorityFeePerGas``, at most ``max_fee``."""


@dataclass(frozen=True, slots=True)
class Unaffordable:
    """Not at this price."""

    needed: Wei
    """The maximum fee per gas that the market, or the rule for replacements, demands now."""
    allowed: Wei
    """The most that may be offered."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the person who runs us allows."""

    max_fee: Wei | None = None
    """Per gas; None: no bound but the batch's."""
    tip: Wei | None = None
    """Per gas; None: what the node suggests."""
    bump_percent: int = 13
    """By which a replacement raises both fees."""


def ceiling(fee_limit: Wei, gas: int) -> Wei:
    """Return the highest maximum fee per gas that a batch's limit (wei) pays for ``gas``."""
    return Wei(fee_limit // (gas + OVERHEAD_GAS))


def lowest(*bounds: Wei | None) -> Wei | None:
    """Return the tightest of ``bounds``; None where nothing binds."""
    given = [bound for bound in bounds if bound is not None]
    return min(given) if given else None


def least(base_fee: Wei, tip: Wei) -> Wei:
    """Return the lowest maximum fee per gas worth sending: it stands two full blocks."""
    rise, by = _RISE[0] ** _MARGIN_BLOCKS, _RISE[1] ** _MARGIN_BLOCKS
    return Wei(-(-base_fee * rise // by) + tip)


def offer(
    market: Market, policy: Policy, *, bound: Wei | None, replaces: Iterable[Offer] = ()
) -> Offer | Unaffordable:
    """Return what to offer.

    Args:
        market: Now.
        policy: Of the person who runs us.
        bound: The batch's ``ceiling``; None where nothing but ``policy`` bounds the fee.
        replaces: What was offered for the same nonce before. Nodes take a replacement only if
            both fees rise, so the tip may pass ``policy.tip`` here.
    """
    tip: int = market.tip if policy.tip is None else policy.tip
    wanted = 2 * market.base_fee + tip
    needed = 0
    for old in replaces:
        tip = max(tip, _raised(old.tip, policy.bump_percent))
        needed = max(needed, _raised(old.max_fee, policy.bump_percent))
    needed = max(needed, least(market.base_fee, Wei(tip)))
    allowed = lowest(bound, policy.max_fee)
    if allowed is not None and needed > allowed:
        return Unaffordable(Wei(needed), allowed)
    max_fee = max(wanted, needed)
    return Offer(Wei(max_fee if allowed is None else min(max_fee, allowed)), Wei(tip))


def _raised(fee: int, percent: int) -> int:
    """Round up, and rise by one wei at least: zero plus any percentage is no rise."""
    return max(-(-fee * (100 + percent) // 100), fee + 1)
