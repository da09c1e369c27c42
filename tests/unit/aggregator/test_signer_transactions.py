from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, strategies as st

from aggregator.chain import signer
from aggregator.chain.signer import SignerUnavailable, Transaction
from aligned.model import Address, Wei
from tests.fakes.rows import unsigned
from tests.fakes.signer import KEY, address_of, sign

TRANSACTION = Transaction(
    chain_id=31337,
    nonce=7,
    to=Address(b"\x16" * 20),
    value=Wei(0),
    data=b"\xab\x21\x73\x9a" + bytes(64),
    gas=300_000,
    max_fee=Wei(30 * 10**9),
    tip=Wei(10**9),
)
NUMBER = st.integers(0, 2**64 - 1)


def test_what_was_signed_is_what_was_asked_for() -> None:
    raw = sign(KEY, TRANSACTION)
    assert signer.decode(raw) == TRANSACTION
    signer.check(raw, TRANSACTION)
    assert signer.sender(raw) == address_of(KEY)


@given(NUMBER, NUMBER, NUMBER, st.binary(max_size=100))
def test_decoding_is_the_inverse_of_encoding(nonce: int, fee: int, gas: int, data: bytes) -> None:
    transaction = dataclasses.replace(
        TRANSACTION, nonce=nonce, max_fee=Wei(fee), gas=gas, data=data
    )
    assert signer.decode(unsigned(transaction)) == transaction


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chain_id", 1),
        ("nonce", 8),
        ("to", Address(b"\x17" * 20)),
        ("value", Wei(1)),
        ("data", b""),
        ("gas", 300_001),
        ("max_fee", Wei(31 * 10**9)),
        ("tip", Wei(0)),
    ],
)
def test_a_signer_that_changes_a_field_is_caught(name: str, value: object) -> None:
    changed = dataclasses.replace(TRANSACTION, **{name: value})  # type: ignore[arg-type]  # by table
    with pytest.raises(SignerUnavailable, match=name):
        signer.check(sign(KEY, changed), TRANSACTION)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02", id="only-the-type"),
        pytest.param(b"\x01\xc0", id="another-type"),
        pytest.param(b"\x02\xc0", id="no-fields"),
        pytest.param(b"\x02\x80", id="no-list"),
        pytest.param(b"\x02\xff\xff", id="not-rlp"),
        pytest.param(unsigned(TRANSACTION)[:-1], id="truncated"),
        pytest.param(unsigned(TRANSACTION) + b"\x00", id="trailing-byte"),
    ],
)
def test_what_is_no_transaction_is_not_sent(raw: bytes) -> None:
    with pytest.raises(SignerUnavailable, match="something else"):
        signer.check(raw, TRANSACTION)


def test_an_unsigned_transaction_is_nobodys() -> None:
    with pytest.raises(ValueError, match="no account"):
        signer.sender(unsigned(TRANSACTION)[:-2] + b"\x80\x80")
