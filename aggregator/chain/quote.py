"""Edge: what an answer costs, found by simulating it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.chain import fees, refusals
from aggregator.chain.fees import Market, Offer, Unaffordable
from aggregator.parking import Reason
from aligned.chain.rpc import RpcError

if TYPE_CHECKING:
    from aggregator.chain.facts import Node
    from aggregator.chain.fees import Policy
    from aggregator.outbox import Survey
    from aligned.model import Address, Wei

LEAST_GAS = 200_000
"""Less than any answer takes: bounds the fee of a simulation, before the gas is known."""


async def quote(
    node: Node, policy: Policy, account: Address, data: bytes, survey: Survey
) -> tuple[int, Wei | None]:
    """Return the gas limit of an answer, and what bounds its fee per gas beside ``policy``.

    One round trip, as a rule.

    Raises:
        CannotSend: It reverts, or cannot be paid.
        ChainUnavailable: No endpoint answers.
    """
    market = Market(survey.base_fee, survey.tip)
    limit = survey.record.fee_limit
    offered = fees.offer(market, policy, bound=fees.ceiling(limit, LEAST_GAS))
    if isinstance(offered, Offer):
        gas = await _gas(node, account, data, offered, base_fee=survey.base_fee)
        bound = fees.ceiling(limit, gas)
        offered = fees.offer(market, policy, bound=bound)
        if isinstance(offered, Offer):
            return gas, bound
    most = fees.offer(market, policy, bound=None)
    if policy.max_fee is None or isinstance(most, Unaffordable):
        problem = refusals.too_dear(offered)
        raise problem
    # Some versions of the contract bill the batcher no more than the limit and leave the rest to
    # us. Simulated at the highest price we might pay, the other versions refuse here.
    dearest = Offer(most.max_fee, most.max_fee)
    return await _gas(node, account, data, dearest, base_fee=survey.base_fee), None


async def _gas(node: Node, account: Address, data: bytes, offered: Offer, *, base_fee: Wei) -> int:
    try:
        gas = await node.estimate(account, data, offered, base_fee=base_fee)
    except RpcError as refusal:
        problem = refusals.refused(refusal)
        if problem.reason is Reason.REVERT:
            revert = await node.simulate(account, data, offered.max_fee, offered.tip)
            problem = refusals.reverted(revert)
        raise problem from refusal
    return -(-gas * 11 // 10)  # what is left for calls inside varies by some thousand
