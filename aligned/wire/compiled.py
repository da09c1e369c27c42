"""Responses read at speed: what ``Types.decode`` and ``messages.from_value`` do, in microseconds.

Once a connection's first request has defined the types, later ones have one shape. Between two
fixed byte strings lie three parts: the head (root, sender, hash), equal for every operator of a
batch; the point; the tail (operator id), equal for every batch of an operator. Head and tail are
remembered by their bytes, so that only the point is new. Whatever does not fit goes to the generic
decoder, whose verdict this one never differs from: each part is accepted only if it is parsed to
its last byte, and gob values are prefix-free, so there is no second way to read their sequence.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from aligned.errors import MalformedMessage
from aligned.model import Address, BatchId, OperatorId, Response, batch_id
from aligned.wire import gob, messages

if TYPE_CHECKING:
    from aligned.wire.gob_stream import Item
    from aligned.wire.gob_types import Types

_TO_POINT = b"\1\1\1\1\4"
"""Deltas of BlsSignature, G1Point, G1Affine and X, and the count of X's limbs."""
_TO_Y = b"\1\4"
_TO_TAIL = b"\0\0\0"
"""Ends of G1Affine, G1Point and Signature."""
_TAIL_START = _TO_TAIL + b"\1\x20"
_ESCAPE = 0xFF
"""Begins the two bytes of an integer from 128 to 255."""
_EIGHT_BYTES = 0xF8
"""Begins the nine bytes of an integer of 57 to 64 bits."""
_FULL_POINT = Struct(">BQBQBQBQ2sBQBQBQBQ")
"""Eight limbs of that width."""


class Head(NamedTuple):
    """What all responses to a batch have in common."""

    merkle_root: bytes
    sender: Address
    batch_id: BatchId
    honest: bool
    """Whether the batch id is the hash of the others."""


class Memory:
    """Parts of responses seen lately, shared by all connections; bounded."""

    def __init__(self, size: int = 1024) -> None:
        self.batch_id = lru_cache(size)(batch_id)
        self.head = lru_cache(size)(self._head)
        self.operator_id = lru_cache(size)(_operator_id)

    def _head(self, data: bytes) -> Head | None:
        parts: list[bytes] = []
        at = 0
        for length in (32, 20, 32):
            if data[at : at + 2] != bytes((1, length)):
                return None
            part, at = _bytes(data, at + 2, length)
            parts.append(part)
        if at != len(data):
            return None
        root, sender, digest = parts[0], Address(parts[1]), BatchId(parts[2])
        return Head(root, sender, digest, digest == self.batch_id(root, sender))


def _operator_id(data: bytes) -> OperatorId | None:
    operator_id, at = _bytes(data, 2, 32)
    return OperatorId(operator_id) if data[at:] == b"\0" else None


def _bytes(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    """Return ``length`` gob integers below 256 as bytes, and the offset behind them.

    Anything unusual gives an offset beyond the end, which fits nothing.
    """
    found = bytearray()
    end = len(data)
    while len(found) < length and at < end:
        byte = data[at]
        if byte >= gob.ONE_BYTE:
            if byte != _ESCAPE or at + 1 >= end:
                break
            at += 1
            byte = data[at]
        found.append(byte)
        at += 1
    return bytes(found), at if len(found) == length else end + 1


class ResponseReader:
    """Reads the arguments of one connection's calls."""

    def __init__(self, types: Types, memory: Memory) -> None:
        self._types = types
        self._memory = memory
        self._usual: dict[int, bool] = {}

    def read(self, item: Item) -> Response:
        """Return the response in ``item``.

        Raises:
            TypeMismatch: The client declared another type.
            BadResponse: It will never be right as sent.
            MalformedMessage: The bytes are not what the client's own definitions say.
        """
        usual = self._usual.get(item.type_id)
        if usual is None:
            self._types.require(item.type_id, messages.SIGNED_TASK_RESPONSE)
            usual = self._types.is_exactly(item.type_id, messages.SIGNED_TASK_RESPONSE)
            self._usual[item.type_id] = usual
        if usual:
            response = self._read_usual(item.data, item.at)
            if response is not None:
                return response
        return messages.from_value(self._types.decode(*item), self._memory.batch_id)

    def _read_usual(self, data: bytes, at: int) -> Response | None:
        to_tail = data.rfind(_TAIL_START)
        to_point = data.rfind(_TO_POINT, at, max(to_tail, 0))
        if to_point < 0:
            return None
        head = self._memory.head(data[at:to_point])
        operator_id = self._memory.operator_id(data[to_tail + len(_TO_TAIL) :])
        point = _point(data[to_point + len(_TO_POINT) : to_tail])
        if head is None or operator_id is None or point is None:
            return None
        if not head.honest:
            raise messages.BadResponse(messages.Reason.WRONG_HASH)
        signature = messages.signature_from_montgomery(*point)
        return Response(head.merkle_root, head.sender, head.batch_id, operator_id, signature)


def _point(data: bytes) -> tuple[int, int] | None:
    """Return the coordinates as they are on the wire, None if ``data`` is anything but a point."""
    if len(data) == _FULL_POINT.size:
        a, x0, b, x1, c, x2, d, x3, to_y, e, y0, f, y1, g, y2, h, y3 = _FULL_POINT.unpack(data)
        if to_y == _TO_Y and a == b == c == d == e == f == g == h == _EIGHT_BYTES:
            return x0 | x1 << 64 | x2 << 128 | x3 << 192, y0 | y1 << 64 | y2 << 128 | y3 << 192
    return _uneven_point(data)


def _uneven_point(data: bytes) -> tuple[int, int] | None:
    """Do the same for limbs of any width: one point in fourteen has a limb with a leading zero."""
    try:
        x, at = _coordinate(data, 0)
        y, end = _coordinate(data, at + len(_TO_Y))
    except MalformedMessage:
        return None
    return (x, y) if data[at : at + len(_TO_Y)] == _TO_Y and end == len(data) else None


def _coordinate(data: bytes, at: int) -> tuple[int, int]:
    coordinate = 0
    for shift in (0, 64, 128, 192):
        limb, at = gob.read_uint(data, at)
        coordinate |= limb << shift
    return coordinate, at
