"""BN254 (alt_bn128): constants, and arithmetic in G1 in plain Python.

For what does not pay a native call: checks of single points and sums of decoded ones. Nothing
here is constant-time; no secret passes through outside tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aligned.model import G1Point, G2Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FIELD_MODULUS = 0x30644E72E131A029B85045B68181585D97816A916871CA8D3C208C16D87CFD47
"""p: coordinates are below it. Source: EIP-196."""

GROUP_ORDER = 0x30644E72E131A029B85045B68181585D2833E84879B9709143E1F593F0000001
"""r: the order of G1 and G2. Source: EIP-196."""

INFINITY_G1 = G1Point(bytes(64))

INFINITY_G2 = G2Point(bytes(128))

G1 = G1Point((1).to_bytes(32, "big") + (2).to_bytes(32, "big"))
"""The generator of G1. Source: EIP-196."""

G2 = G2Point(
    b"".join(
        coordinate.to_bytes(32, "big")
        for coordinate in (
            10857046999023057135944570762232829481370756359578518086990519993285655852781,
            11559732032986387107991004021392285783925812861821192530917403151452391805634,
            8495653923123431417604973247489272438418190587263600148770280649306958101930,
            4082367875863433681332203403145435568316851327593401208105741076214120093531,
        )
    )
)
"""The generator of G2. Source: EIP-197."""

_TWIST_B = (
    19485874751759354771024239261021720505790618469301721065564631296452457478373,
    266929791119991161246907387137283842545076965332900288569378510910307636690,
)
"""3 / (9 + i). Source: EIP-197."""

_WINDOW = 4
_DIGIT = (1 << _WINDOW) - 1

_Jacobian = tuple[int, int, int]
"""(X, Y, Z) for the affine point (X / Z², Y / Z³); Z = 0 is infinity."""

_NOTHING: _Jacobian = (1, 1, 0)


def coordinates(point: bytes) -> tuple[int, int]:
    """Return x and y of a G1 point (64 bytes), unchecked."""
    return int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")


def g1_point(x: int, y: int) -> G1Point:
    """Return the encoding of a G1 point from its coordinates, each below the field modulus."""
    return G1Point((x << 256 | y).to_bytes(64, "big"))


def is_on_g1(point: bytes) -> bool:
    """Tell whether ``point`` is 64 bytes with canonical coordinates on the curve, not infinity.

    The cofactor of G1 is 1: every such point is in the group.
    """
    if len(point) != 64:  # noqa: PLR2004 - two coordinates of 32 bytes
        return False
    x, y = coordinates(point)
    if x >= FIELD_MODULUS or y >= FIELD_MODULUS:
        return False
    return (y * y - x * x * x - 3) % FIELD_MODULUS == 0  # (0, 0) fails this too


def is_on_twist(point: bytes) -> bool:
    """Tell whether ``point`` is 128 bytes with canonical coordinates on G2's curve, not infinity.

    That is not yet membership of G2, which is a small part of its curve.
    """
    if len(point) != 128:  # noqa: PLR2004 - four coordinates of 32 bytes
        return False
    parts = [int.from_bytes(point[at : at + 32], "big") for at in range(0, 128, 32)]
    if max(parts) >= FIELD_MODULUS:
        return False
    a, b, c, d = parts  # x = a + b·i, y = c + d·i
    aa, bb = a * a, b * b
    real = c * c - d * d - a * (aa - 3 * bb) - _TWIST_B[0]
    imaginary = 2 * c * d - b * (3 * aa - bb) - _TWIST_B[1]
    return real % FIELD_MODULUS == 0 and imaginary % FIELD_MODULUS == 0


def negate_g1(point: bytes) -> G1Point:
    """Return -``point``."""
    x, y = coordinates(point)
    return g1_point(x, -y % FIELD_MODULUS)


def sum_g1(points: Iterable[bytes]) -> G1Point:
    """Return the sum of points on the curve; infinity, also for none, as 64 zero bytes."""
    total = _NOTHING
    for point in points:
        if point != INFINITY_G1:
            total = _add_affine(total, coordinates(point))
    return _encode(total)


def multiply_g1(point: bytes, factor: int) -> G1Point:
    """Return ``factor`` · ``point``, which is not infinity; takes about 1 ms."""
    affine, total = coordinates(point), _NOTHING
    for bit in f"{factor % GROUP_ORDER:b}":
        total = _double(total)
        if bit == "1":
            total = _add_affine(total, affine)
    return _encode(total)


def combine_g1(points: Sequence[bytes], factors: Sequence[int]) -> G1Point:
    """Return the sum of factor · point over points on the curve, none of them infinity.

    Args:
        points: As many as ``factors``.
        factors: Not negative.
    """
    affine = [coordinates(point) for point in points]
    bits = max((factor.bit_length() for factor in factors), default=0)
    total = _NOTHING
    for shift in reversed(range(0, bits, _WINDOW)):
        for _ in range(_WINDOW):
            total = _double(total)
        buckets = [_NOTHING] * (_DIGIT + 1)
        for point, factor in zip(affine, factors, strict=True):
            if digit := factor >> shift & _DIGIT:
                buckets[digit] = _add_affine(buckets[digit], point)
        running = window = _NOTHING  # window = sum of digit · bucket
        for bucket in reversed(buckets[1:]):
            running = _add(running, bucket)
            window = _add(window, running)
        total = _add(total, window)
    return _encode(total)


def _encode(point: _Jacobian) -> G1Point:
    x, y, z = point
    if z == 0:
        return INFINITY_G1
    inverse = pow(z, -1, FIELD_MODULUS)
    square = inverse * inverse % FIELD_MODULUS
    return g1_point(x * square % FIELD_MODULUS, y * square * inverse % FIELD_MODULUS)


def _double(point: _Jacobian) -> _Jacobian:
    x, y, z = point
    p = FIELD_MODULUS
    yy = y * y % p
    s = 4 * x * yy % p
    m = 3 * x * x % p
    doubled = (m * m - 2 * s) % p
    return doubled, (m * (s - doubled) - 8 * yy * yy) % p, 2 * y * z % p


def _add_affine(point: _Jacobian, other: tuple[int, int]) -> _Jacobian:
    x1, y1, z1 = point
    x2, y2 = other
    if z1 == 0:
        return x2, y2, 1
    p = FIELD_MODULUS
    zz = z1 * z1 % p
    h = (x2 * zz - x1) % p
    r = (y2 * zz * z1 - y1) % p
    if h == 0:
        return _double(point) if r == 0 else _NOTHING
    hh = h * h % p
    hhh = h * hh % p
    v = x1 * hh % p
    x3 = (r * r - hhh - 2 * v) % p
    return x3, (r * (v - x3) - y1 * hhh) % p, z1 * h % p


def _add(point: _Jacobian, other: _Jacobian) -> _Jacobian:
    x1, y1, z1 = point
    x2, y2, z2 = other
    if z1 == 0:
        return other
    if z2 == 0:
        return point
    if z2 == 1:
        return _add_affine(point, (x2, y2))
    p = FIELD_MODULUS
    zz1, zz2 = z1 * z1 % p, z2 * z2 % p
    u1 = x1 * zz2 % p
    s1 = y1 * zz2 * z2 % p
    h = (x2 * zz1 - u1) % p
    r = (y2 * zz1 * z1 - s1) % p
    if h == 0:
        return _double(point) if r == 0 else _NOTHING
    hh = h * h % p
    hhh = h * hh % p
    v = u1 * hh % p
    x3 = (r * r - hhh - 2 * v) % p
    return x3, (r * (v - x3) - s1 * hhh) % p, z1 * z2 * h % p
