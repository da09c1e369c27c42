"""What the peer of a gob stream has defined, and the values it sends by that.

Above ``aligned.wire.gob``; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aligned.errors import MalformedMessage
from aligned.wire import gob
from aligned.wire.gob import (
    Array,
    Basic,
    Slice,
    Struct,
    TypeMismatch,
    WireArray,
    WireOpaque,
    WireSlice,
    WireStruct,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aligned.wire.gob import Local, Value, WireType


class Types:
    """What one side of a connection has defined so far."""

    def __init__(self, types: Mapping[int, WireType] | None = None) -> None:
        self._types: dict[int, WireType] = dict(types or {})
        self._bytes = 0

    def define(self, type_id: int, data: bytes, at: int) -> None:
        """Take the definition of ``type_id`` that fills ``data`` from ``at`` on.

        Raises:
            MalformedMessage: It is not one, repeats an id, or exceeds a limit.
        """
        if type_id < gob.FIRST_USER_ID:
            raise MalformedMessage("a built-in type id is re-defined")
        if type_id in self._types:
            raise MalformedMessage("a type id is defined twice")
        if len(self._types) >= gob.MAX_DEFINITIONS:
            raise MalformedMessage("too many type definitions")
        self._bytes += len(data)
        if self._bytes > gob.MAX_DEFINITIONS_BYTES:
            raise MalformedMessage("type definitions are too long")
        self._types[type_id] = _wire_type(_BOOTSTRAP.decode(_WIRE_TYPE, data, at))

    def decode(self, type_id: int, data: bytes, at: int) -> Value:
        """Return the value of type ``type_id`` that fills ``data`` from ``at`` on.

        Raises:
            MalformedMessage: The bytes are not such a value, or exceed a limit.
            TypeMismatch: A map, an interface or a type with its own encoding would have to be read.
        """
        if type_id not in self._types or not isinstance(self._types[type_id], WireStruct):
            zero, at = gob.read_uint(data, at)
            if zero:
                raise MalformedMessage("a value that is no struct does not begin with zero")
        value, at = self._value(type_id, data, at, 1)
        if at != len(data):
            raise MalformedMessage("bytes follow the value")
        return value

    def _value(self, type_id: int, data: bytes, at: int, depth: int) -> tuple[Value, int]:
        if type_id < gob.FIRST_USER_ID and type_id in _BASIC:
            return _basic(Basic(type_id), data, at)
        if depth > gob.MAX_DEPTH:
            raise MalformedMessage("a value nests too deep")
        wire = self._types.get(type_id)
        if isinstance(wire, WireStruct):
            return self._struct(wire, data, at, depth)
        if isinstance(wire, WireOpaque) or type_id in _BUILT_IN_OPAQUE:
            raise TypeMismatch("gob: bad data: ignore can't handle type")
        if wire is None:
            raise MalformedMessage("a type is not defined")
        count, at = gob.read_uint(data, at)
        if isinstance(wire, WireArray) and count != wire.length:
            raise MalformedMessage("an array has another length than its type")
        return self._elements(wire.elem, count, data, at, depth)

    def _elements(
        self, elem: int, count: int, data: bytes, at: int, depth: int
    ) -> tuple[Value, int]:
        if count > len(data) - at:
            raise MalformedMessage("the message ends inside a value")
        elements: list[Value] = []
        for _ in range(count):
            value, at = self._value(elem, data, at, depth + 1)
            elements.append(value)
        return elements, at

    def _struct(self, wire: WireStruct, data: bytes, at: int, depth: int) -> tuple[Value, int]:
        fields: dict[str, Value] = {}
        number = -1
        while True:
            delta, at = gob.read_uint(data, at)
            if delta == 0:
                return fields, at
            number += delta
            if number >= len(wire.fields):
                raise MalformedMessage("a field number is out of bounds")
            name, type_id = wire.fields[number]
            fields[name], at = self._value(type_id, data, at, depth + 1)

    def require(self, type_id: int, local: Struct) -> None:
        """Return if type ``type_id`` has every field of ``local`` with its type; more are fine.

        Raises:
            TypeMismatch: It has not.
        """
        wire = self._types.get(type_id)
        if wire is None and type_id >= gob.FIRST_USER_ID:
            raise TypeMismatch("gob: unknown type id or corrupted data")
        if not isinstance(wire, WireStruct):
            raise TypeMismatch(
                f"gob: type mismatch in decoder: want struct type {local.name}; got non-struct"
            )
        ids = dict(wire.fields)
        if local.fields and not ids.keys() & dict(local.fields).keys():
            raise TypeMismatch(
                f"gob: type mismatch: no fields matched compiling decoder for {local.name}"
            )
        for name, wanted in local.fields:
            if name not in ids:
                raise TypeMismatch(f"gob: type mismatch: {wire.name} lacks field {name}")
            if isinstance(wanted, Struct):
                self.require(ids[name], wanted)
            elif not self._agrees(ids[name], wanted):
                raise TypeMismatch(
                    f"gob: wrong type ({_go_name(wanted)}) for received field {wire.name}.{name}"
                )

    def _agrees(self, type_id: int, local: Local) -> bool:
        if isinstance(local, Basic):
            return type_id == local
        wire = self._types.get(type_id)
        return (
            isinstance(local, Array)
            and isinstance(wire, WireArray)
            and wire.length == local.length
            and self._agrees(wire.elem, local.elem)
        )

    def is_exactly(self, type_id: int, local: Local) -> bool:
        """Tell whether type ``type_id`` is ``local`` field by field, in the same order, no more."""
        if not isinstance(local, Struct):
            return self._agrees(type_id, local)
        wire = self._types.get(type_id)
        return (
            isinstance(wire, WireStruct)
            and len(wire.fields) == len(local.fields)
            and all(
                name == wanted_name and self.is_exactly(field_id, wanted)
                for (name, field_id), (wanted_name, wanted) in zip(
                    wire.fields, local.fields, strict=True
                )
            )
        )


def _basic(kind: Basic, data: bytes, at: int) -> tuple[Value, int]:
    match kind:
        case Basic.UINT:
            return gob.read_uint(data, at)
        case Basic.INT:
            return gob.read_int(data, at)
        case Basic.STRING:
            return gob.read_string(data, at)
        case Basic.BYTES:
            return gob.read_bytes(data, at)
        case Basic.BOOL:
            value, at = gob.read_uint(data, at)
            return value != 0, at


def _go_name(local: Basic | Array | Slice) -> str:
    match local:
        case Basic():
            return {Basic.INT: "int64", Basic.UINT: "uint64"}.get(local, local.name.lower())
        case Array():
            return local.name
        case Slice():
            return f"[]{local.elem}"


_WIRE_TYPE = 16
_COMMON_TYPE = 18
_MARSHALER_TYPE = 24
_FIELD_TYPES = 22
_BUILT_IN_OPAQUE = frozenset({4, 7, 8})
"""Floats, complex numbers and interfaces."""
_BASIC = frozenset(Basic)

_BOOTSTRAP = Types(
    {
        _WIRE_TYPE: WireStruct(
            "wireType",
            (
                ("ArrayT", 17),
                ("SliceT", 19),
                ("StructT", 20),
                ("MapT", 23),
                ("GobEncoderT", _MARSHALER_TYPE),
                ("BinaryMarshalerT", _MARSHALER_TYPE),
                ("TextMarshalerT", _MARSHALER_TYPE),
            ),
        ),
        17: WireStruct(
            "arrayType",
            (("CommonType", _COMMON_TYPE), ("Elem", Basic.INT), ("Len", Basic.INT)),
        ),
        _COMMON_TYPE: WireStruct("CommonType", (("Name", Basic.STRING), ("Id", Basic.INT))),
        19: WireStruct("sliceType", (("CommonType", _COMMON_TYPE), ("Elem", Basic.INT))),
        20: WireStruct("structType", (("CommonType", _COMMON_TYPE), ("Field", _FIELD_TYPES))),
        21: WireStruct("fieldType", (("Name", Basic.STRING), ("Id", Basic.INT))),
        _FIELD_TYPES: WireSlice(21),
        23: WireStruct(
            "mapType",
            (("CommonType", _COMMON_TYPE), ("Key", Basic.INT), ("Elem", Basic.INT)),
        ),
        _MARSHALER_TYPE: WireStruct("gobEncoderType", (("CommonType", _COMMON_TYPE),)),
    }
)
"""The types that definitions themselves are made of; only 24 is not an id of Go's."""


def _wire_type(definition: Value) -> WireType:
    if not isinstance(definition, dict) or len(definition) != 1:
        raise MalformedMessage("a type definition does not have exactly one kind")
    ((kind, content),) = definition.items()
    fields = _as_struct(content)
    match kind:
        case "ArrayT":
            length = _as_int(fields.get("Len", 0))
            if not 0 <= length <= gob.MAX_ARRAY_LENGTH:
                raise MalformedMessage("an array type is too long")
            return WireArray(_as_int(fields.get("Elem", 0)), length)
        case "SliceT":
            return WireSlice(_as_int(fields.get("Elem", 0)))
        case "StructT":
            return _wire_struct(fields)
        case _:
            return WireOpaque(kind)


def _wire_struct(definition: Mapping[str, Value]) -> WireStruct:
    raw = definition.get("Field", [])
    if not isinstance(raw, list) or len(raw) > gob.MAX_FIELDS:
        raise MalformedMessage("a struct type has too many fields")
    fields: dict[str, int] = {}
    for field in map(_as_struct, raw):
        name = _as_str(field.get("Name", ""))
        if not name or name in fields:
            raise MalformedMessage("a struct type has an unnamed field, or one name twice")
        fields[name] = _as_int(field.get("Id", 0))
    common = _as_struct(definition.get("CommonType", {}))
    return WireStruct(_as_str(common.get("Name", "")), tuple(fields.items()))


def _as_struct(value: Value) -> Mapping[str, Value]:
    if not isinstance(value, dict):
        raise MalformedMessage("a type definition is damaged")
    return value


def _as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise MalformedMessage("a type definition is damaged")
    return value


def _as_str(value: Value) -> str:
    if not isinstance(value, str):
        raise MalformedMessage("a type definition is damaged")
    return value
