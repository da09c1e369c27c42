"""How durations, fees and addresses are written in files, read and shown."""

from __future__ import annotations

import re
from typing import Annotated

from eth_hash.auto import keccak
from pydantic import BeforeValidator, Field, PlainSerializer

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FEE = re.compile(r"(\d+(?:\.\d+)?)\s*(wei|gwei|ether)")
_PLACES = {"wei": 0, "gwei": 9, "ether": 18}
_ADDRESS_BYTES = 20
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")


def parse_duration(value: object) -> object:
    """Return ``"1m30s"`` as 90.0 seconds; numbers pass for the type to judge.

    Raises:
        ValueError: Text that is not a duration, or a truth value.
    """
    if isinstance(value, bool):
        msg = "must be a duration such as '15s', not true or false"
        raise ValueError(msg)  # noqa: TRY004 - pydantic collects ValueErrors
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        msg = f"{value!r} is not a duration; write for example '15s', '250ms', '1m30s' or '168h'"
        raise ValueError(msg)
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))


def format_duration(seconds: float) -> str:
    """Return 90.0 as ``"1m30s"``; exact to the millisecond."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_fee(value: object) -> object:
    """Return ``"30gwei"`` as 30000000000 wei, exactly; integers are wei already.

    Raises:
        ValueError: Text that is not a fee or finer than one wei, or a truth value.
    """
    if isinstance(value, bool):
        msg = "must be a fee such as '30gwei', not true or false"
        raise ValueError(msg)  # noqa: TRY004 - pydantic collects ValueErrors
    if not isinstance(value, str):
        return value
    match = _FEE.fullmatch(value.strip())
    if match is None:
        msg = f"{value!r} is not a fee; write for example '30gwei', '1.5gwei' or '1000000000wei'"
        raise ValueError(msg)
    whole, _, fraction = match[1].partition(".")
    places = _PLACES[match[2]]
    if len(fraction) > places:
        msg = f"{value!r} is finer than one wei"
        raise ValueError(msg)
    return int(whole + fraction.ljust(places, "0"))


def format_fee(wei: int) -> str:
    """Return 1500000000 as ``"1.5gwei"``; exact."""
    whole, fraction = divmod(wei, 10**9)
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".") + "gwei"


def parse_address(value: object) -> object:
    """Return ``"0x…"`` as 20 bytes.

    All lower or all upper case carries no checksum; mixed case must be the checksum.

    Raises:
        ValueError: Not an address, a wrong checksum, or a number because quotes are missing.

    Source: ERC-55.
    """
    if isinstance(value, bytes) and len(value) == _ADDRESS_BYTES:
        return value
    if isinstance(value, int):
        msg = "is a number to YAML; put the address in quotes, with all its 40 digits"
        raise ValueError(msg)  # noqa: TRY004 - pydantic collects ValueErrors
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        msg = f"{value!r} is not an address; write 0x and 40 hexadecimal digits"
        raise ValueError(msg)
    digits = value[2:]
    address = bytes.fromhex(digits)
    if digits not in {digits.lower(), digits.upper()} and format_address(address)[2:] != digits:
        msg = f"{value} has a wrong checksum: a digit or the case of a letter is not as it was"
        raise ValueError(msg)
    return address


def format_address(address: bytes) -> str:
    """Return 20 bytes as ``"0x…"`` with checksum.

    Source: ERC-55.
    """
    digits = address.hex()
    judges = keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if judge in "89abcdef" else digit
        for digit, judge in zip(digits, judges, strict=False)
    )


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, allow_inf_nan=False, json_schema_extra={"unit": "duration"}),
    PlainSerializer(format_duration, when_used="json"),
]
Fee = Annotated[
    int,
    BeforeValidator(parse_fee),
    Field(ge=0, json_schema_extra={"unit": "fee"}),
    PlainSerializer(format_fee, when_used="json"),
]
AddressBytes = Annotated[
    bytes,
    BeforeValidator(parse_address),
    Field(json_schema_extra={"unit": "address"}),
    PlainSerializer(format_address, when_used="json"),
]
