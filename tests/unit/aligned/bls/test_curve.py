from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from aligned.bls.curve import (
    FIELD_MODULUS,
    G1,
    G2,
    GROUP_ORDER,
    INFINITY_G1,
    combine_g1,
    coordinates,
    g1_point,
    is_on_g1,
    is_on_twist,
    multiply_g1,
    negate_g1,
    sum_g1,
)
from aligned.bls.hash_to_g1 import hash_to_g1

# eigensdk-go: G1 keys of the secrets 11, 22, 33 add up to this.
QUORUM_APK = bytes.fromhex(
    "12e017e752e718f7d1750138f3fd97d930073164499793d9b5405a9ff30e765a"
    "11d73265f2f8035c1eb99695a20bc0e550afbc7d506f9f1a1ffcb9f0ade01454"
)
KEY_33 = bytes.fromhex(
    "1bf3ebe16a0321c0c357f5c82f2c87abd0da6e916f5f6171b649840c052bf892"
    "2cc236a9e084af730472e0def08271b50385b691c3bc64432a382506552049b1"
)
SCALARS = st.integers(0, 2**66)


def test_multiples_and_sums_are_those_of_the_go_library() -> None:
    assert multiply_g1(G1, 33) == KEY_33
    assert sum_g1([multiply_g1(G1, secret) for secret in (11, 22, 33)]) == QUORUM_APK


def test_the_group_has_its_order() -> None:
    assert multiply_g1(G1, GROUP_ORDER) == INFINITY_G1
    assert multiply_g1(G1, GROUP_ORDER - 1) == negate_g1(G1)
    assert multiply_g1(G1, -1) == negate_g1(G1)


def test_special_cases_of_addition() -> None:
    assert sum_g1([]) == INFINITY_G1
    assert sum_g1([INFINITY_G1, G1, INFINITY_G1]) == G1
    assert sum_g1([G1, G1]) == multiply_g1(G1, 2)
    assert sum_g1([G1, negate_g1(G1)]) == INFINITY_G1
    assert sum_g1([G1, negate_g1(G1), KEY_33]) == KEY_33
    assert combine_g1([G1, G1], [0, 0]) == INFINITY_G1


@settings(max_examples=25)
@given(st.lists(SCALARS, max_size=6))
def test_a_sum_of_multiples_is_the_multiple_of_the_sum(factors: list[int]) -> None:
    expected = multiply_g1(G1, sum(factors))
    assert sum_g1([multiply_g1(G1, factor) for factor in factors]) == expected
    assert combine_g1([G1] * len(factors), factors) == expected


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 40), SCALARS), max_size=40))
def test_a_combination_is_the_sum_of_its_terms(terms: list[tuple[int, int]]) -> None:
    points = [multiply_g1(G1, secret) for secret, _ in terms]
    expected = multiply_g1(G1, sum(secret * factor for secret, factor in terms))
    assert combine_g1(points, [factor for _, factor in terms]) == expected


@settings(max_examples=25)
@given(st.binary(min_size=32, max_size=32))
def test_every_message_has_a_point_in_the_group(digest: bytes) -> None:
    point = hash_to_g1(digest)
    assert is_on_g1(point)
    assert is_on_g1(negate_g1(point))
    x, y = coordinates(point)
    assert g1_point(x, y) == point
    assert pow(y, (FIELD_MODULUS - 1) // 2, FIELD_MODULUS) == 1  # the root that is a square


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(INFINITY_G1, id="infinity"),
        pytest.param(G1[:-1], id="too short"),
        pytest.param(G1 + b"\0", id="too long"),
        pytest.param(g1_point(1, 3), id="off the curve"),
        pytest.param(g1_point(1 + FIELD_MODULUS, 2), id="x not canonical"),
        pytest.param(g1_point(1, 2 + FIELD_MODULUS), id="y not canonical"),
    ],
)
def test_what_is_no_point_of_g1_is_told(point: bytes) -> None:
    assert is_on_g1(G1)
    assert not is_on_g1(point)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(bytes(128), id="infinity"),
        pytest.param(G2[:-1], id="too short"),
        pytest.param(G2[:-1] + b"\0", id="off the curve"),
        pytest.param(G2[32:64] + G2[:32] + G2[96:] + G2[64:96], id="imaginary part first"),
        pytest.param(
            G2[:96] + (int.from_bytes(G2[96:], "big") + FIELD_MODULUS).to_bytes(32, "big"),
            id="not canonical",
        ),
    ],
)
def test_what_is_not_on_the_curve_of_g2_is_told(point: bytes) -> None:
    assert is_on_twist(G2)
    assert not is_on_twist(point)
