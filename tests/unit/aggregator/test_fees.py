from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aggregator.chain import fees
from aggregator.chain.fees import Market, Offer, Policy, Unaffordable
from aligned.model import Wei

GWEI = 10**9
FEE = st.integers(0, 10**13).map(Wei)
MARKET = st.builds(Market, FEE, FEE)
OFFER = st.tuples(FEE, FEE).map(lambda two: Offer(max(two), min(two)))


def market(base_fee: int = 100, tip: int = 10) -> Market:
    return Market(Wei(base_fee), Wei(tip))


def policy(max_fee: int | None = None, tip: int | None = None) -> Policy:
    return Policy(
        max_fee=None if max_fee is None else Wei(max_fee), tip=None if tip is None else Wei(tip)
    )


@pytest.mark.parametrize(
    ("policy", "bound", "expected"),
    [
        pytest.param(policy(), None, Offer(Wei(210), Wei(10)), id="twice-the-base-fee-and-a-tip"),
        pytest.param(policy(), 150, Offer(Wei(150), Wei(10)), id="the-batch-bounds-it"),
        pytest.param(policy(max_fee=140), 150, Offer(Wei(140), Wei(10)), id="our-cap-bounds-it"),
        pytest.param(policy(tip=3), None, Offer(Wei(203), Wei(3)), id="our-own-tip"),
        pytest.param(policy(), 137, Offer(Wei(137), Wei(10)), id="two-full-blocks-still-fit"),
        pytest.param(policy(), 136, Unaffordable(Wei(137), Wei(136)), id="two-full-blocks-do-not"),
        pytest.param(
            policy(max_fee=50), None, Unaffordable(Wei(137), Wei(50)), id="never-under-the-base-fee"
        ),
    ],
)
def test_a_first_offer(policy: Policy, bound: int | None, expected: Offer | Unaffordable) -> None:
    wei = None if bound is None else Wei(bound)
    assert fees.offer(market(), policy, bound=wei) == expected


@pytest.mark.parametrize(
    ("replaces", "bound", "expected"),
    [
        pytest.param(
            [Offer(Wei(200), Wei(10))],
            None,
            Offer(Wei(226), Wei(12)),
            id="both-rise-by-13-percent-rounded-up",
        ),
        pytest.param(
            [Offer(Wei(20), Wei(1))], None, Offer(Wei(210), Wei(10)), id="the-market-if-higher"
        ),
        pytest.param(
            [Offer(Wei(200), Wei(0))], None, Offer(Wei(226), Wei(10)), id="a-tip-of-nothing-rises"
        ),
        pytest.param(
            [Offer(Wei(200), Wei(10))],
            225,
            Unaffordable(Wei(226), Wei(225)),
            id="a-rise-above-the-limit-is-none",
        ),
        pytest.param(
            [Offer(Wei(200), Wei(50)), Offer(Wei(300), Wei(10))],
            None,
            Offer(Wei(339), Wei(57)),
            id="more-than-each-attempt-before",
        ),
    ],
)
def test_a_replacement(
    replaces: list[Offer], bound: int | None, expected: Offer | Unaffordable
) -> None:
    wei = None if bound is None else Wei(bound)
    assert fees.offer(market(), Policy(), bound=wei, replaces=replaces) == expected


@given(MARKET, OFFER, st.integers(13, 100))
def test_nodes_take_every_replacement(now: Market, old: Offer, percent: int) -> None:
    new = fees.offer(now, Policy(bump_percent=percent), bound=None, replaces=[old])
    assert isinstance(new, Offer)
    assert new.max_fee * 100 >= old.max_fee * (100 + percent)
    assert new.tip * 100 >= old.tip * (100 + percent)
    assert new.max_fee > old.max_fee
    assert new.tip > old.tip


@given(MARKET, FEE, st.lists(OFFER, max_size=3))
def test_an_offer_keeps_to_its_bound_and_stands_two_blocks(
    now: Market, bound: Wei, replaces: list[Offer]
) -> None:
    found = fees.offer(now, Policy(), bound=bound, replaces=replaces)
    if isinstance(found, Unaffordable):
        assert found.needed > found.allowed == bound
    else:
        assert found.tip <= found.max_fee <= bound
        assert found.max_fee * 64 >= now.base_fee * 81


@given(FEE, st.integers(21_000, 2_000_000), st.integers(0, fees.OVERHEAD_GAS))
def test_the_contract_never_bills_more_than_the_limit(limit: Wei, gas: int, overhead: int) -> None:
    assert (gas + overhead) * fees.ceiling(limit, gas) <= limit
