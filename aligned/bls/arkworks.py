"""The backend over ``native/``, our binding of arkworks: the GIL is released during its work."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from aligned.bls.backend import BadKey, Runs
from aligned.bls.challenge import challenge
from aligned.model import G1Point, G2Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.bls.backend import Group, Key as _Key
    from aligned.model import Signature


class _Module(Protocol):
    """What ``native/src/lib.rs`` offers; malformed input raises ValueError."""

    def Key(self, data: bytes, /) -> _Key: ...  # noqa: N802 - a class

    def bad_signatures(
        self, groups: Sequence[tuple[bytes, Sequence[bytes], Sequence[_Key]]], /
    ) -> list[list[int]]: ...

    def sum_keys(self, keys: Sequence[_Key], /) -> bytes: ...

    def certifies(
        self, message: bytes, apk: bytes, key: bytes, sigma: bytes, gamma: bytes, /
    ) -> bool: ...

    def hash_to_g1(self, digest: bytes, /) -> bytes: ...


class Arkworks:
    """See ``Backend``."""

    name = "arkworks"
    runs = Runs.THREAD

    def __init__(self) -> None:
        """Load the extension.

        Raises:
            ImportError: It is not installed.
        """
        self._native = cast("_Module", importlib.import_module("bn254bls"))

    def key(self, g2: G2Point) -> _Key:
        try:
            return self._native.Key(g2)
        except ValueError as error:
            raise BadKey(g2.hex()) from error

    def hash_to_g1(self, digest: bytes) -> G1Point:
        return G1Point(self._native.hash_to_g1(digest))

    def bad_signatures(self, groups: Sequence[Group]) -> list[list[int]]:
        return self._native.bad_signatures(
            [(group.message, group.signatures, group.keys) for group in groups]
        )

    def sum_keys(self, keys: Sequence[_Key]) -> G2Point:
        return G2Point(self._native.sum_keys(keys))

    def certifies(self, message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> bool:
        if (len(apk_g1), len(apk_g2), len(sigma)) != (64, 128, 64):
            return False
        gamma = challenge(message, apk_g1, apk_g2, sigma).to_bytes(32, "big")
        point = self._native.hash_to_g1(message)
        return self._native.certifies(point, apk_g1, apk_g2, sigma, gamma)

    def close(self) -> None:
        """Nothing to release."""
