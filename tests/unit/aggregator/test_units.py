from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aggregator.units import (
    format_address,
    format_duration,
    format_fee,
    parse_address,
    parse_duration,
    parse_fee,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("15s", 15.0, id="seconds"),
        pytest.param("1m30s", 90.0, id="sum"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param("7d", 604800.0, id="days"),
        pytest.param(3, 3, id="a number is seconds"),
    ],
)
def test_a_duration_is_read_as_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["15", "s", "-1s", "1 s", "1s ", "", "1week", True])
def test_what_is_no_duration_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match="15s"):
        parse_duration(value)


@given(st.integers(0, 10**12))
def test_a_duration_survives_being_shown(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        pytest.param("30gwei", 30 * 10**9, id="gwei"),
        pytest.param("1.5 gwei", 1_500_000_000, id="fraction"),
        pytest.param("0.1ether", 10**17, id="a fraction that floats miss"),
        pytest.param("7wei", 7, id="wei"),
        pytest.param(7, 7, id="a number is wei"),
    ],
)
def test_a_fee_is_read_exactly(text: object, wei: int) -> None:
    assert parse_fee(text) == wei


@pytest.mark.parametrize("value", ["30", "-1gwei", "gwei", "1.5wei", "0.0000000001gwei", False])
def test_what_is_no_fee_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"fee|finer"):
        parse_fee(value)


@given(st.integers(0, 10**30))
def test_a_fee_survives_being_shown(wei: int) -> None:
    assert parse_fee(format_fee(wei)) == wei


# Source: the examples of ERC-55.
CHECKSUMMED = [
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    "0x52908400098527886E0F7030069857D2E4169EE7",
]


@pytest.mark.parametrize("address", CHECKSUMMED)
def test_an_address_is_read_with_its_checksum_or_without(address: str) -> None:
    expected = bytes.fromhex(address[2:])
    for spelling in (address, address.lower(), "0x" + address[2:].upper()):
        assert parse_address(spelling) == expected
    assert format_address(expected) == address


def test_a_wrong_checksum_is_refused() -> None:
    with pytest.raises(ValueError, match="checksum"):
        parse_address("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed")


def test_an_address_without_quotes_is_told_to_get_them() -> None:
    with pytest.raises(ValueError, match="quotes"):
        parse_address(0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED)


@pytest.mark.parametrize("value", ["0x12", "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", None, b"12"])
def test_what_is_no_address_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        parse_address(value)
