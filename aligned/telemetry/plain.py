"""Values as JSON and people see them: bytes as 0x hex, enums by value, errors by kind and text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set as AbstractSet
from enum import Enum

EXACT = 2**53
"""Integers beyond it become text: JSON readers would round them."""


def plain(value: object) -> object:
    """Return ``value`` as JSON can hold it; what is not known is shown as its ``str``.

    Nothing is left out: secrets must not come here.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (bytes, bytearray)):
        return "0x" + value.hex()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}" if str(value) else type(value).__name__
    if value is None or isinstance(value, (bool, int, float, str)):
        return _scalar(value)
    return _composed(value)


def _scalar(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > EXACT:
        return str(value)
    return value


def _composed(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((plain(each) for each in value), key=str)
    if isinstance(value, Sequence):
        return [plain(each) for each in value]
    return str(value)
