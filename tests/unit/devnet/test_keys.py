from __future__ import annotations

import pytest
from py_ecc.optimized_bn128 import optimized_curve as reference

from aligned.bls.curve import G1, multiply_g1
from aligned.model import operator_id
from devnet.keys import keys, sign, sign_all

# Source: aggregation vector of eigensdk-go, secrets 11 and 22
_MESSAGE = bytes.fromhex("c55a037b30f612ecb33053b23187310aaff81b14cc88a4a628bd3dea5434c7e2")
_SUM = bytes.fromhex(
    "23c4850d3b38f8927ea37e2cb6969e548571b25a2f660cb44c06d9acf4b870f5"
    "293c58c31821538c5d0ed6deaa6d3053fbc90eba76b2b99546c5ca85a3316ccb"
)


def test_signatures_add_up_to_those_of_the_sum() -> None:
    assert sign(33, _MESSAGE) == _SUM


def test_keys_belong_to_their_secrets() -> None:
    key = keys(3)[2]
    x, y = reference.normalize(reference.multiply(reference.G2, key.secret))
    expected = b"".join(int(part).to_bytes(32, "big") for part in (*x.coeffs, *y.coeffs))
    assert key.g2 == expected
    assert key.g1 == multiply_g1(G1, key.secret)
    assert key.operator_id == operator_id(key.g1)


def test_more_keys_begin_with_the_fewer() -> None:
    assert keys(5)[:3] == keys(3)
    assert len({key.operator_id for key in keys(5)}) == 5


def test_another_seed_gives_other_keys() -> None:
    assert keys(1)[0] != keys(1, b"another")[0]


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param((0, 1, 2, 3), id="consecutive"),
        pytest.param((3, 1, 0), id="in any order"),
        pytest.param((), id="nobody"),
    ],
)
def test_signing_for_many_equals_signing_for_each(chosen: tuple[int, ...]) -> None:
    signers = tuple(keys(4)[index] for index in chosen)
    assert sign_all(signers, _MESSAGE) == [key.sign(_MESSAGE) for key in signers]


def test_a_secret_does_not_show() -> None:
    key = keys(1)[0]
    assert str(key.secret) not in repr(key)
