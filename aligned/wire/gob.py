"""The part of gob that this wire uses, Go's self-describing binary encoding: limits and atoms.

A stream is a sequence of messages: byte count, type id, content. A negative id announces the
definition of a type, others a value of it. Ids are the sender's choice and hold for one direction
of one connection; struct fields are matched by name. ``docs/protocol.md`` shows one byte by byte.
On top of this stand ``gob_types`` (definitions and values) and ``gob_stream`` (messages).

Source: Go, package ``encoding/gob``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from aligned.errors import MalformedMessage, Refused

MAX_MESSAGE_BYTES = 8192
"""Legitimate messages stay below 400."""
MAX_DEFINITIONS = 64
"""Per direction of a connection; legitimate streams have nine."""
MAX_DEFINITIONS_BYTES = 2048
"""All of them together, since they are kept for as long as the connection; legitimate ones take
450."""
MAX_DEPTH = 8
"""Of a value; legitimate ones have five levels."""
MAX_ARRAY_LENGTH = 64
MAX_FIELDS = 16
FIRST_USER_ID = 64
ONE_BYTE = 128
"""Integers below are their own encoding."""
WIDEST = 8
"""Bytes of the longest integer."""

Value: TypeAlias = "int | str | bytes | list[Value] | dict[str, Value]"
"""A decoded value. A struct lacks the fields that were not sent: zero values and nil pointers."""


class TypeMismatch(Refused):
    """A value of another type than is asked for; the message is the text Go answers with."""


class Basic(IntEnum):
    """Built-in types by id."""

    BOOL = 1
    INT = 2
    UINT = 3
    BYTES = 5
    STRING = 6


@dataclass(frozen=True, slots=True)
class Array:
    """A Go array type."""

    name: str
    elem: Local
    length: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A Go slice type."""

    elem: Local


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct type; pointers to structs are the same on the wire."""

    name: str
    fields: tuple[tuple[str, Local], ...]


Local: TypeAlias = "Basic | Array | Slice | Struct"
"""A type as this side declares it."""


@dataclass(frozen=True, slots=True)
class WireArray:
    """An array as the peer defined it, by the id of its elements."""

    elem: int
    length: int


@dataclass(frozen=True, slots=True)
class WireSlice:
    """A slice as the peer defined it, by the id of its elements."""

    elem: int


@dataclass(frozen=True, slots=True)
class WireStruct:
    """A struct as the peer defined it: names and type ids of its fields."""

    name: str
    fields: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class WireOpaque:
    """A map or a type with its own encoding: may be defined, is never decoded."""

    kind: str


WireType: TypeAlias = WireArray | WireSlice | WireStruct | WireOpaque


_SHORT = tuple(bytes((n,)) if n < ONE_BYTE else bytes((0xFF, n)) for n in range(256))


def encode_uint(value: int) -> bytes:
    """Return ``value``, below 2**64: one byte below 128, else 256 minus their count, then bytes."""
    if value < len(_SHORT):
        return _SHORT[value]
    size = (value.bit_length() + 7) // 8
    return bytes((256 - size,)) + value.to_bytes(size)


def encode_int(value: int) -> bytes:
    """Return ``value`` with its sign in the lowest bit."""
    return encode_uint(value << 1 if value >= 0 else (~value << 1) | 1)


def read_uint(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned integer at ``at`` and the offset behind it.

    Encodings longer than needed are accepted, as Go does.

    Raises:
        MalformedMessage: The data ends before it does, or it is longer than 8 bytes.
    """
    if at >= len(data):
        raise MalformedMessage("the message ends inside a value")
    first = data[at]
    at += 1
    if first < ONE_BYTE:
        return first, at
    end = at + 256 - first
    if end - at > WIDEST:
        raise MalformedMessage("an integer has more than 8 bytes")
    if end > len(data):
        raise MalformedMessage("the message ends inside a value")
    return int.from_bytes(data[at:end]), end


def read_int(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed integer at ``at`` and the offset behind it. Errors: see ``read_uint``."""
    value, at = read_uint(data, at)
    return (~(value >> 1) if value & 1 else value >> 1), at


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the counted bytes at ``at`` and the offset behind them.

    Raises:
        MalformedMessage: The data ends before they do.
    """
    size, at = read_uint(data, at)
    end = at + size
    if end > len(data):
        raise MalformedMessage("the message ends inside a value")
    return data[at:end], end


def read_string(data: bytes, at: int) -> tuple[str, int]:
    """Return the counted UTF-8 at ``at`` and the offset behind it.

    Raises:
        MalformedMessage: The data ends before it does, or it is not UTF-8.
    """
    raw, at = read_bytes(data, at)
    try:
        return raw.decode(), at
    except UnicodeDecodeError as error:
        raise MalformedMessage("a string is not UTF-8") from error
