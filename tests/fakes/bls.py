"""A backend without arithmetic, to see what is asked of it and when.

It keeps the interface of ``Backend`` but not its contract: any 128 bytes are a key, and there is
one valid signature for a key and a message, a hash of both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import cast

from aligned.bls.backend import Group, Key, Runs
from aligned.model import G1Point, G2Point, Signature


def fake_point(digest: bytes) -> G1Point:
    """Return the message point of a digest."""
    return G1Point(digest * 2)


def fake_signature(g2: bytes, digest: bytes) -> Signature:
    """Return the one valid signature."""
    return Signature(hashlib.sha512(g2 + fake_point(digest)).digest())


class FakeBackend:
    """Remembers each call as its groups; ``before_answer`` runs in the thread of the call."""

    name = "fake"

    def __init__(self, runs: Runs = Runs.LOOP) -> None:
        self.runs = runs
        self.calls: list[list[Group]] = []
        self.hashed: list[bytes] = []
        self.before_answer: Callable[[Sequence[Group]], None] = lambda _: None

    def key(self, g2: G2Point) -> Key:
        return g2

    def hash_to_g1(self, digest: bytes) -> G1Point:
        self.hashed.append(digest)
        return fake_point(digest)

    def bad_signatures(self, groups: Sequence[Group]) -> list[list[int]]:
        self.calls.append(list(groups))
        self.before_answer(groups)
        return [
            [
                position
                for position, (signature, key) in enumerate(
                    zip(group.signatures, group.keys, strict=True)
                )
                if signature != fake_signature(cast("bytes", key), group.message[:32])
            ]
            for group in groups
        ]

    def sum_keys(self, keys: Sequence[Key]) -> G2Point:
        return G2Point(hashlib.sha512(b"".join(cast("Sequence[bytes]", keys))).digest() * 2)

    def certifies(self, message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> bool:
        del apk_g1
        return sigma == fake_signature(apk_g2, message)

    def close(self) -> None:
        pass
