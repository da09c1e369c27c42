"""The backend over zksnake, a wheel of arkworks for most platforms. It keeps the GIL.

Its constructors panic on points off the curve and take coordinates beyond the modulus as they
come, so every point is checked here before it gets there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from aligned.bls.backend import BadKey, Runs
from aligned.bls.challenge import challenge
from aligned.bls.curve import (
    G1,
    INFINITY_G1,
    INFINITY_G2,
    combine_g1,
    coordinates,
    is_on_g1,
    is_on_twist,
)
from aligned.bls.hash_to_g1 import hash_to_g1
from aligned.bls.search import bad_signatures
from aligned.model import G2Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.bls.backend import Group, Key
    from aligned.bls.search import Claim, Part
    from aligned.model import G1Point, Signature

_NATIVE_SUM_LIMIT = 64
"""Above this many, a sum in Python beats decoding each point, which costs 60 µs."""


class _Point(Protocol):
    """A point of either group."""

    def __add__(self, other: Self, /) -> Self: ...
    def __mul__(self, factor: int, /) -> Self: ...
    def __neg__(self) -> Self: ...


class _PointG2(_Point, Protocol):
    @property
    def x(self) -> list[int]: ...
    @property
    def y(self) -> list[int]: ...
    def is_zero(self) -> bool: ...


class Zksnake:
    """See ``Backend``."""

    name = "zksnake"
    runs = Runs.LOOP

    def __init__(self) -> None:
        """Load the library.

        Raises:
            ImportError: It is not installed.
        """
        self._native: Any = importlib.import_module("zksnake._algebra").ec_bn254
        self._g2: _PointG2 = self._native.g2()
        g1: _Point = self._native.g1()
        self._one = self._native.multi_pairing([g1, -g1], [self._g2, self._g2])

    def key(self, g2: G2Point) -> Key:
        if not is_on_twist(g2):
            msg = f"{g2.hex()} is not on G2's curve"
            raise BadKey(msg)
        try:
            return cast("Key", self._native.PointG2(*coordinates(g2[:64]), *coordinates(g2[64:])))
        except BaseException as error:  # Rust's panic over another subgroup is no Exception
            if type(error).__name__ != "PanicException":
                raise
            msg = f"{g2.hex()} is not in G2"
            raise BadKey(msg) from error

    def hash_to_g1(self, digest: bytes) -> G1Point:
        return hash_to_g1(digest)

    def bad_signatures(self, groups: Sequence[Group]) -> list[list[int]]:
        return bad_signatures([(g.message, g.signatures, g.keys) for g in groups], self._holds)

    def sum_keys(self, keys: Sequence[Key]) -> G2Point:
        first, *others = cast("Sequence[_PointG2]", keys)
        total = first
        for key in others:
            total += key
        if total.is_zero():
            return INFINITY_G2
        return G2Point(b"".join(c.to_bytes(32, "big") for c in (*total.x, *total.y)))

    def certifies(self, message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> bool:
        if not (is_on_g1(apk_g1) and is_on_g1(sigma)):
            return False
        try:
            key = self.key(apk_g2)
        except BadKey:
            return False
        gamma = challenge(message, apk_g1, apk_g2, sigma)
        left = self._g1(sigma) + self._g1(apk_g1) * gamma
        right = self._g1(hash_to_g1(message)) + self._g1(G1) * gamma
        return bool(self._native.multi_pairing([-left, right], [self._g2, key]) == self._one)

    def close(self) -> None:
        """Nothing to release."""

    def _g1(self, point: bytes) -> _Point:
        if point == INFINITY_G1:
            return cast("_Point", self._native.PointG1.identity())
        return cast("_Point", self._native.PointG1(*coordinates(point)))

    def _holds(self, parts: Sequence[Part]) -> bool:
        claims = [claim for part in parts for claim in part.claims]
        left, right = [-self._weighted_signatures(claims)], [self._g2]
        for message, claimed in parts:
            point = self._g1(message)
            if len(claimed) == 1:
                left.append(point * claimed[0].factor)
                right.append(cast("_PointG2", claimed[0].key))
            else:
                keys, factors = [c.key for c in claimed], [c.factor for c in claimed]
                left.append(point)
                right.append(self._native.multiscalar_mul_g2(keys, factors))
        return bool(self._native.multi_pairing(left, right) == self._one)

    def _weighted_signatures(self, claims: Sequence[Claim]) -> _Point:
        signatures = [claim.signature for claim in claims]
        factors = [claim.factor for claim in claims]
        if len(claims) > _NATIVE_SUM_LIMIT:
            return self._g1(combine_g1(signatures, factors))
        points = [self._g1(signature) for signature in signatures]
        return cast("_Point", self._native.multiscalar_mul_g1(points, factors))
