"""Pairing checks in plain Python by py_ecc; runs in worker processes only, see ``reference``.

Every function takes and returns bytes and lists of them, so that questions can be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from py_ecc.fields import (
    optimized_bn128_FQ as FQ,
    optimized_bn128_FQ2 as FQ2,
    optimized_bn128_FQ12 as FQ12,
)
from py_ecc.optimized_bn128.optimized_curve import (
    Z2,
    add,
    curve_order,
    is_inf,
    multiply,
    normalize,
)
from py_ecc.optimized_bn128.optimized_pairing import final_exponentiate, pairing

from aligned.bls import curve, search
from aligned.bls.challenge import challenge
from aligned.bls.hash_to_g1 import hash_to_g1
from aligned.model import G2Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.model import G1Point, Signature

_Point = Any
"""py_ecc's projective triple (x, y, z), over FQ in G1 and over FQ2 in G2."""


def is_key(g2: G2Point) -> bool:
    """Tell whether 128 bytes are a point of G2, not infinity. Takes 30 ms."""
    return curve.is_on_twist(g2) and is_inf(multiply(_g2(g2), curve_order))


def bad_signatures(
    groups: Sequence[tuple[G1Point, Sequence[Signature], Sequence[G2Point]]],
) -> list[list[int]]:
    """See ``Backend.bad_signatures``; keys were checked before."""
    return search.bad_signatures(groups, _holds)


def sum_keys(keys: Sequence[G2Point]) -> G2Point:
    """See ``Backend.sum_keys``."""
    total = Z2
    for key in keys:
        total = add(total, _g2(key))
    if is_inf(total):
        return curve.INFINITY_G2
    x, y = normalize(total)
    parts = (*x.coeffs, *y.coeffs)
    return G2Point(b"".join(int(part).to_bytes(32, "big") for part in parts))


def certifies(message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> bool:
    """See ``Backend.certifies``."""
    if not (curve.is_on_g1(apk_g1) and curve.is_on_g1(sigma) and is_key(apk_g2)):
        return False
    gamma = challenge(message, apk_g1, apk_g2, sigma)
    left = curve.sum_g1([sigma, curve.multiply_g1(apk_g1, gamma)])
    right = curve.sum_g1([hash_to_g1(message), curve.multiply_g1(curve.G1, gamma)])
    return _is_one([(curve.negate_g1(left), _g2(curve.G2)), (right, _g2(apk_g2))])


def _holds(parts: Sequence[search.Part]) -> bool:
    claims = [claim for part in parts for claim in part.claims]
    signatures, factors = [c.signature for c in claims], [c.factor for c in claims]
    total = curve.combine_g1(signatures, factors)
    pairs = [(curve.negate_g1(total), _g2(curve.G2))]
    for message, claimed in parts:
        keys = Z2
        for claim in claimed:
            keys = add(keys, multiply(_g2(cast("G2Point", claim.key)), claim.factor))
        pairs.append((message, keys))
    return _is_one(pairs)


def _is_one(pairs: Sequence[tuple[G1Point, _Point]]) -> bool:
    product = FQ12.one()
    for point, key in pairs:
        product *= pairing(key, _g1(point), final_exponentiate=False)
    return bool(final_exponentiate(product) == FQ12.one())


def _g1(point: G1Point) -> _Point:
    if point == curve.INFINITY_G1:
        return FQ(1), FQ(1), FQ(0)
    x, y = curve.coordinates(point)
    return FQ(x), FQ(y), FQ(1)


def _g2(point: G2Point) -> _Point:
    x, y = (FQ2(curve.coordinates(half)) for half in (point[:64], point[64:]))
    return x, y, FQ2.one()
