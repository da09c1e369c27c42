from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, strategies as st

from aligned.telemetry.plain import plain


class Colour(StrEnum):
    RED = "red"


class Code(IntEnum):
    ONE = 1


class Pair(NamedTuple):
    left: bytes
    right: int


@dataclass(frozen=True, slots=True)
class Thing:
    key: bytes
    pair: Pair


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(b"\x01\xff", "0x01ff", id="bytes"),
        pytest.param(bytearray(b"\x00"), "0x00", id="bytearray"),
        pytest.param(Colour.RED, "red", id="text enum"),
        pytest.param(Code.ONE, 1, id="number enum"),
        pytest.param(True, True, id="truth"),
        pytest.param(2**53, 2**53, id="an integer that fits"),
        pytest.param(2**53 + 1, "9007199254740993", id="an integer that does not"),
        pytest.param(float("nan"), None, id="not a number"),
        pytest.param(OSError("gone"), "OSError: gone", id="error"),
        pytest.param(TimeoutError(), "TimeoutError", id="error without text"),
        pytest.param(Path("a/b"), "a/b", id="path"),
        pytest.param({b"\x01": {3, 2}}, {"0x01": [2, 3]}, id="mapping and set"),
        pytest.param((b"\x01", None), ["0x01", None], id="tuple"),
        pytest.param(
            Thing(b"\x02", Pair(b"\x03", 4)),
            {"key": "0x02", "pair": {"left": "0x03", "right": 4}},
            id="dataclass and named tuple",
        ),
    ],
)
def test_a_value_is_shown_as_json_can_hold_it(value: object, shown: object) -> None:
    assert plain(value) == shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
    )
)
def test_what_is_shown_is_always_json(value: object) -> None:
    json.dumps(plain(value), allow_nan=False)
