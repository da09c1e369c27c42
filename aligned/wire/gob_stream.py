"""One direction of a gob stream: ``Incoming`` cuts and defines, ``Outgoing`` defines and writes.

Above ``aligned.wire.gob``, below ``aligned.wire.netrpc``; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aligned.errors import MalformedMessage
from aligned.wire import gob
from aligned.wire.gob import Array, Basic, Slice, Struct
from aligned.wire.gob_types import Types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aligned.wire.gob import Local, Value

_COMMON = Struct("CommonType", (("Name", Basic.STRING), ("Id", Basic.INT)))
_FIELD = Struct("fieldType", (("Name", Basic.STRING), ("Id", Basic.INT)))
_ARRAY = Struct("arrayType", (("CommonType", _COMMON), ("Elem", Basic.INT), ("Len", Basic.INT)))
_SLICE = Struct("sliceType", (("CommonType", _COMMON), ("Elem", Basic.INT)))
_STRUCT = Struct("structType", (("CommonType", _COMMON), ("Field", Slice(_FIELD))))
_WIRE_TYPE = Struct("wireType", (("ArrayT", _ARRAY), ("SliceT", _SLICE), ("StructT", _STRUCT)))


class Item(NamedTuple):
    """A message that holds a value."""

    type_id: int
    data: bytes
    """The whole message without its length."""
    at: int
    """Where the value begins, behind the type id."""


class Incoming:
    """Cuts a stream into values and collects the definitions between them."""

    def __init__(self) -> None:
        self.types = Types()
        self._buffer = b""
        self._at = 0
        self._defining = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, as many as came."""
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._buffer = data
        self._at = 0

    @property
    def pending(self) -> bool:
        """Whether bytes wait, or definitions came and their value did not."""
        return self._defining or self._at < len(self._buffer)

    def next_item(self) -> Item | None:
        """Return the next value, or None until more bytes come.

        Raises:
            MalformedMessage: The stream is broken for good.
        """
        while (data := self.next_message()) is not None:
            type_id, at = gob.read_int(data, 0)
            self._defining = type_id < 0
            if not self._defining:
                return Item(type_id, data, at)
            self.types.define(-type_id, data, at)
        return None

    def next_message(self) -> bytes | None:
        """Return the next message without its length, or None until more bytes come.

        Raises:
            MalformedMessage: The message is empty or longer than the limit.
        """
        buffer, at = self._buffer, self._at
        if at >= len(buffer):
            return None
        size = buffer[at]
        at += 1
        if size >= gob.ONE_BYTE:
            width = 256 - size
            if width > gob.WIDEST:
                raise MalformedMessage("an integer has more than 8 bytes")
            if at + width > len(buffer):
                return None
            size = int.from_bytes(buffer[at : at + width])
            at += width
        if not 0 < size <= gob.MAX_MESSAGE_BYTES:
            raise MalformedMessage("a message is empty or too long")
        if at + size > len(buffer):
            return None
        self._at = at + size
        return buffer[at : at + size]


class Outgoing:
    """Writes values, each type's definition before its first value, as Go does.

    Types are numbered from ``first_id``, at least 64, on; the peer takes any.
    """

    def __init__(self, first_id: int) -> None:
        self._next_id = first_id
        self._ids: dict[Local, int] = {}

    def encode(self, local: Local, value: Value) -> bytes:
        """Return the messages that carry ``value``: missing definitions, then the value."""
        known = len(self._ids)
        type_id = self._assign(local)
        fresh = list(self._ids.items())[known:]
        definitions = b"".join(self._definition(new, new_id) for new, new_id in fresh)
        content = gob.encode_int(type_id)
        if not isinstance(local, Struct):
            content += b"\0"
        return definitions + message(content + encode_value(local, value))

    def _assign(self, local: Local) -> int:
        # Go numbers a struct before its fields and sends definitions in that order.
        if isinstance(local, Basic):
            return local
        if local not in self._ids:
            self._ids[local] = self._next_id
            self._next_id += 1
            for part in _parts(local):
                self._assign(part)
        return self._ids[local]

    def _definition(self, local: Local, type_id: int) -> bytes:
        common: Value = {"Name": getattr(local, "name", ""), "Id": type_id}
        definition: Value
        match local:
            case Array():
                elem = self._assign(local.elem)
                definition = {"ArrayT": {"CommonType": common, "Elem": elem, "Len": local.length}}
            case Slice():
                definition = {"SliceT": {"CommonType": common, "Elem": self._assign(local.elem)}}
            case Struct():
                fields: list[Value] = [
                    {"Name": name, "Id": self._assign(part)} for name, part in local.fields
                ]
                definition = {"StructT": {"CommonType": common, "Field": fields}}
            case Basic():
                msg = "built-in types have no definition"
                raise TypeError(msg)
        return message(gob.encode_int(-type_id) + encode_value(_WIRE_TYPE, definition))


def _parts(local: Local) -> Iterator[Local]:
    match local:
        case Array() | Slice():
            yield local.elem
        case Struct():
            yield from (part for _, part in local.fields)
        case Basic():
            return


def message(content: bytes) -> bytes:
    """Return ``content`` with its length before it."""
    return gob.encode_uint(len(content)) + content


def encode_value(local: Local, value: Value) -> bytes:
    """Return the bytes of ``value``, which must be of the shape that ``local`` describes.

    Absent fields of a struct are nil pointers. As in Go, zero numbers and empty strings and
    slices are left out; arrays and structs never are.

    Raises:
        TypeError: The value has another shape.
    """
    match local, value:
        case Basic(), _:
            return _encode_basic(local, value)
        case ((Array() | Slice()), list()):
            elements = b"".join(encode_value(local.elem, element) for element in value)
            return gob.encode_uint(len(value)) + elements
        case Struct(), dict():
            return _encode_struct(local, value)
        case _:
            msg = f"{value!r} is not a value of {local}"
            raise TypeError(msg)


def _encode_basic(kind: Local, value: Value) -> bytes:
    match value:
        case int() if kind is Basic.UINT:
            return gob.encode_uint(value)
        case int() if kind in {Basic.INT, Basic.BOOL}:
            return gob.encode_int(value) if kind is Basic.INT else gob.encode_uint(value)
        case str() if kind is Basic.STRING:
            return gob.encode_uint(len(value.encode())) + value.encode()
        case bytes() if kind is Basic.BYTES:
            return gob.encode_uint(len(value)) + value
        case _:
            msg = f"{value!r} is not a value of {kind}"
            raise TypeError(msg)


def _encode_struct(local: Struct, value: dict[str, Value]) -> bytes:
    parts: list[bytes] = []
    last = -1
    for number, (name, part) in enumerate(local.fields):
        field = value.get(name)
        if field is None or (isinstance(part, Basic | Slice) and not field):
            continue
        parts += gob.encode_uint(number - last), encode_value(part, field)
        last = number
    return b"".join(parts) + b"\0"
