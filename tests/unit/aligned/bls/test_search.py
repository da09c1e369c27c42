from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hypothesis import given, strategies as st

from aligned.bls.curve import G1, multiply_g1
from aligned.bls.search import Part, bad_signatures
from aligned.model import G1Point, Signature

SIGNATURES = [Signature(multiply_g1(G1, number)) for number in range(1, 6)]


class Oracle:
    """Knows which keys are wrong, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.factors: list[int] = []

    def __call__(self, parts: Sequence[Part]) -> bool:
        self.asked += 1
        claims = [claim for part in parts for claim in part.claims]
        assert claims
        if self.asked == 1:
            self.factors = [claim.factor for claim in claims]
        return not any(cast("bool", claim.key) for claim in claims)


def search(wrong: Sequence[Sequence[bool]]) -> tuple[list[list[int]], Oracle]:
    oracle = Oracle()
    groups = [
        (G1Point(G1), [SIGNATURES[i % 5] for i in range(len(keys))], list(keys)) for keys in wrong
    ]
    return bad_signatures(groups, oracle), oracle


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=5))
def test_exactly_the_bad_ones_are_found(wrong: list[list[bool]]) -> None:
    found, _ = search(wrong)
    assert found == [[i for i, is_bad in enumerate(keys) if is_bad] for keys in wrong]


def test_good_ones_cost_one_question_together() -> None:
    found, oracle = search([[False] * 8, [False] * 4])
    assert (found, oracle.asked) == ([[], []], 1)


def test_one_bad_one_costs_few_questions() -> None:
    found, oracle = search([[False] * 32, [False] * 31 + [True]])
    assert found == [[], [31]]
    assert oracle.asked <= 1 + 6  # the whole, then the left half of each size


def test_malformed_ones_cost_nothing() -> None:
    oracle = Oracle()
    groups = [(G1Point(G1), [Signature(bytes(64)), Signature(b"")], [False, False])]
    assert bad_signatures(groups, oracle) == [[0, 1]]
    assert oracle.asked == 0


def test_factors_have_64_bits_and_are_drawn_anew_for_each_call() -> None:
    first, second = search([[False] * 20])[1], search([[False] * 20])[1]
    assert all(0 < factor < 2**64 for factor in first.factors + second.factors)
    assert max(first.factors) >= 2**56
    assert len(set(first.factors + second.factors)) == 40
