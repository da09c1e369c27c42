"""Responses that are wrong in one way each; to be sent with ``Operator.deliver``."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from aligned.bls.curve import FIELD_MODULUS, G1, GROUP_ORDER, multiply_g1, negate_g1, sum_g1
from aligned.model import BatchId, G1Point, OperatorId, Response, Signature
from aligned.wire import messages

if TYPE_CHECKING:
    from aligned.wire.gob import Value
    from devnet.keys import OperatorKey
    from devnet.operator import Seen

_COORDINATES = {"infinity": (0, 0), "off curve": (1, 1), "out of range": (FIELD_MODULUS, 0)}


def honest(key: OperatorKey, seen: Seen) -> Response:
    """Return what is right."""
    return _signed(key.operator_id, seen, key.sign(seen.batch_id))


def forged(operator_id: OperatorId, seen: Seen) -> Response:
    """Return junk in somebody's name: a point of the curve that nobody signed."""
    return _signed(operator_id, seen, Signature(_random_point()))


def by_another_key(operator_id: OperatorId, key: OperatorKey, seen: Seen) -> Response:
    """Return a true signature of ``key`` in the name of ``operator_id``."""
    return _signed(operator_id, seen, key.sign(seen.batch_id))


def of_another_batch(key: OperatorKey, seen: Seen, other: Seen) -> Response:
    """Return the signature on ``other`` as if it were that on ``seen``."""
    return _signed(key.operator_id, seen, key.sign(other.batch_id))


def wrong_hash(key: OperatorKey, seen: Seen) -> Response:
    """Return a signature on a batch id that does not belong to the root and sender beside it."""
    digest = BatchId(secrets.token_bytes(32))
    return Response(seen.merkle_root, seen.sender, digest, key.operator_id, key.sign(digest))


def colluding(first: OperatorKey, second: OperatorKey, seen: Seen) -> tuple[Response, Response]:
    """Return two halves: each is invalid, their sum is that of the true signatures."""
    shift = _random_point()
    return (
        _signed(first.operator_id, seen, _plus(first.sign(seen.batch_id), shift)),
        _signed(second.operator_id, seen, _plus(second.sign(seen.batch_id), negate_g1(shift))),
    )


def nil_signature(key: OperatorKey, seen: Seen, *, inner: bool = False) -> Value:
    """Return a message whose signature is a nil pointer, or (``inner``) points to one.

    Either ends a Go aggregator.
    """
    value = messages.to_value(honest(key, seen))
    return {**value, "BlsSignature": {"G1Point": {}} if inner else {}}


def bad_coordinates(key: OperatorKey, seen: Seen, which: str) -> Value:
    """Return a message with ``infinity``, an ``off curve`` or an ``out of range`` signature."""
    x, y = _COORDINATES[which]
    point: Value = {"X": _limbs(x), "Y": _limbs(y)}
    value = messages.to_value(honest(key, seen))
    return {**value, "BlsSignature": {"G1Point": {"G1Affine": point}}}


def _signed(operator_id: OperatorId, seen: Seen, signature: Signature) -> Response:
    return Response(seen.merkle_root, seen.sender, seen.batch_id, operator_id, signature)


def _random_point() -> G1Point:
    return multiply_g1(G1, 1 + secrets.randbelow(GROUP_ORDER - 1))


def _plus(signature: Signature, point: G1Point) -> Signature:
    return Signature(sum_g1((G1Point(signature), point)))


def _limbs(number: int) -> list[Value]:
    """As on the wire, without Montgomery's factor: 0 and p stay what they are."""
    return [number >> shift & (1 << 64) - 1 for shift in (0, 64, 128, 192)]
