"""Aligned's messages: ``SignedTaskResponse`` on the wire to and from ``aligned.model.Response``.

Bytes arrays travel as one gob integer per byte, coordinates of a signature as four 64-bit limbs,
least significant first, in Montgomery form (times 2**256 modulo p). Pure, Python integers only.

Source: aligned_layer v0.10.1, ``core/types``; gnark-crypto, ``ecc/bn254/fp``, ``element.go``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from aligned.errors import MalformedMessage, Refused
from aligned.model import Address, BatchId, OperatorId, Response, Signature, batch_id
from aligned.wire.gob import Array, Basic, Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aligned.wire.gob import Value

RESPOND = "Aggregator.ProcessOperatorSignedTaskResponseV2"
"""Takes a ``SignedTaskResponse``, returns a reply code."""
SERVER_RUNNING = "Aggregator.ServerRunning"
"""Takes nothing, returns 1."""

_BYTES_32 = Array("[32]uint8", Basic.UINT, 32)
_ELEMENT = Array("Element", Basic.UINT, 4)
_AFFINE = Struct("G1Affine", (("X", _ELEMENT), ("Y", _ELEMENT)))
_SIGNATURE = Struct("Signature", (("G1Point", Struct("G1Point", (("G1Affine", _AFFINE),))),))
SIGNED_TASK_RESPONSE = Struct(
    "SignedTaskResponse",
    (
        ("BatchMerkleRoot", _BYTES_32),
        ("SenderAddress", Array("[20]uint8", Basic.UINT, 20)),
        ("BatchIdentifierHash", _BYTES_32),
        ("BlsSignature", _SIGNATURE),
        ("OperatorId", Array("Bytes32", Basic.UINT, 32)),
    ),
)

FIELD_MODULUS = 0x30644E72E131A029B85045B68181585D97816A916871CA8D3C208C16D87CFD47
"""p of BN254's base field; the curve is y² = x³ + 3, its group of prime order."""
_R = (1 << 256) % FIELD_MODULUS
_R_INVERSE = pow(_R, -1, FIELD_MODULUS)


class Reason(StrEnum):
    """Why a response will never be right as sent."""

    NIL_SIGNATURE = "nil signature"
    WRONG_HASH = "batch id is not the hash of root and sender"
    OUT_OF_RANGE = "coordinate not below the field modulus"
    INFINITY = "signature is the point at infinity"
    OFF_CURVE = "signature is not on the curve"


class BadResponse(Refused):
    """A well-formed response that will never be right as sent."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def from_value(
    value: Value, batch_id_of: Callable[[bytes, Address], BatchId] = batch_id
) -> Response:
    """Return the response in a decoded ``SignedTaskResponse``.

    Args:
        value: As ``Types.decode`` returned it for a type that ``Types.require`` passed.
        batch_id_of: ``aligned.model.batch_id``, or a memory of it.

    Raises:
        BadResponse: It will never be right as sent.
        MalformedMessage: A byte is above 255.
    """
    fields = _struct(value)
    root = _bytes(fields, "BatchMerkleRoot", 32)
    sender = Address(_bytes(fields, "SenderAddress", 20))
    digest = BatchId(_bytes(fields, "BatchIdentifierHash", 32))
    operator_id = OperatorId(_bytes(fields, "OperatorId", 32))
    point = _struct(_struct(fields.get("BlsSignature", {})).get("G1Point", {})).get("G1Affine")
    if point is None:
        raise BadResponse(Reason.NIL_SIGNATURE)
    if digest != batch_id_of(root, sender):
        raise BadResponse(Reason.WRONG_HASH)
    affine = _struct(point)
    signature = signature_from_montgomery(_limbs(affine, "X"), _limbs(affine, "Y"))
    return Response(root, sender, digest, operator_id, signature)


def signature_from_montgomery(x: int, y: int) -> Signature:
    """Return the canonical signature with these coordinates, given times 2**256 modulo p.

    Raises:
        BadResponse: They are not a point of the curve, in canonical form and other than infinity.
    """
    if x >= FIELD_MODULUS or y >= FIELD_MODULUS:
        raise BadResponse(Reason.OUT_OF_RANGE)
    if not x and not y:
        raise BadResponse(Reason.INFINITY)
    x = x * _R_INVERSE % FIELD_MODULUS
    y = y * _R_INVERSE % FIELD_MODULUS
    if (y * y - x * x * x - 3) % FIELD_MODULUS:
        raise BadResponse(Reason.OFF_CURVE)
    return Signature((x << 256 | y).to_bytes(64))


def to_value(response: Response) -> dict[str, Value]:
    """Return ``response`` as a value of ``SIGNED_TASK_RESPONSE`` to encode; nothing is checked."""
    x = int.from_bytes(response.signature[:32])
    y = int.from_bytes(response.signature[32:])
    point: Value = {"X": _montgomery_limbs(x), "Y": _montgomery_limbs(y)}
    return {
        "BatchMerkleRoot": list(response.merkle_root),
        "SenderAddress": list(response.sender),
        "BatchIdentifierHash": list(response.batch_id),
        "BlsSignature": {"G1Point": {"G1Affine": point}},
        "OperatorId": list(response.operator_id),
    }


def _montgomery_limbs(coordinate: int) -> list[Value]:
    scaled = coordinate * _R % FIELD_MODULUS
    return [scaled >> shift & (1 << 64) - 1 for shift in (0, 64, 128, 192)]


def _struct(value: Value) -> Mapping[str, Value]:
    if not isinstance(value, dict):
        raise MalformedMessage("a value is of another type than its definition")
    return value


def _numbers(fields: Mapping[str, Value], name: str, length: int) -> list[int]:
    value = fields.get(name, [0] * length)
    if not isinstance(value, list):
        raise MalformedMessage("a value is of another type than its definition")
    return [number for number in value if isinstance(number, int)]


def _bytes(fields: Mapping[str, Value], name: str, length: int) -> bytes:
    try:
        return bytes(_numbers(fields, name, length))
    except ValueError as error:
        raise MalformedMessage("a byte is above 255") from error


def _limbs(fields: Mapping[str, Value], name: str) -> int:
    return sum(limb << 64 * place for place, limb in enumerate(_numbers(fields, name, 4)))
