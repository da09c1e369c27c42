"""Questions with known answers, which a backend must answer before it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aligned.bls.backend import BadKey, Group
from aligned.bls.curve import (
    FIELD_MODULUS,
    G1,
    G2,
    INFINITY_G1,
    INFINITY_G2,
    coordinates,
    g1_point,
    negate_g1,
    sum_g1,
)
from aligned.bls.hash_to_g1 import hash_to_g1
from aligned.model import G1Point, G2Point, Signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aligned.bls.backend import Backend

_MESSAGES = (bytes(31) + b"\x07", b"\xff" * 32)

_MINUS_G2 = G2Point(
    G2[:64]
    + b"".join(
        (FIELD_MODULUS - int.from_bytes(G2[at : at + 32], "big")).to_bytes(32, "big")
        for at in (64, 96)
    )
)
"""The key of the secret -1. Its signatures, and those of 1, need no multiplication."""


def first_wrong_answer(backend: Backend) -> str | None:
    """Return what ``backend`` gets wrong, or None. Takes a few ms, seconds without native code."""
    for question, right in _questions(backend):
        if not right:
            return question
    return None


def _questions(backend: Backend) -> Iterator[tuple[str, bool]]:
    first, second = (hash_to_g1(message) for message in _MESSAGES)
    plus, minus = backend.key(G2), backend.key(_MINUS_G2)
    x, y = coordinates(first)

    def bad(*groups: tuple[G1Point, list[G1Point]]) -> list[list[int]]:
        keys = [plus, minus]
        return backend.bad_signatures(
            [
                Group(message, [Signature(point) for point in points], keys[: len(points)])
                for message, points in groups
            ]
        )

    yield (
        "points of messages",
        [backend.hash_to_g1(message) for message in _MESSAGES] == [first, second],
    )
    yield (
        "valid signatures",
        bad((first, [first, negate_g1(first)]), (second, [second])) == [[], []],
    )
    yield "a signature of another key", bad((first, [negate_g1(first)])) == [[0]]
    yield (
        "malformed signatures",
        bad(
            (first, [g1_point(x, y ^ 1)]),
            (first, [INFINITY_G1]),
            (first, [g1_point(x, y + FIELD_MODULUS)]),
        )
        == [[0], [0], [0]],
    )
    first_half = sum_g1([first, G1])
    second_half = negate_g1(first_half)
    yield (
        "halves that verify only together",
        bad((first, [first_half, second_half])) == [[0, 1]],
    )
    other_half = sum_g1([second, negate_g1(G1)])
    yield (
        "halves on two messages that verify only together",
        bad((first, [first_half]), (second, [other_half])) == [[0], [0]],
    )
    yield "a zero key", _refuses(backend, INFINITY_G2)
    yield "a key off the curve", _refuses(backend, G2Point(G2[:-1] + b"\x00"))
    yield "a sum of keys", backend.sum_keys([plus, plus, minus]) == G2
    yield (
        "the contract's check",
        [backend.certifies(_MESSAGES[0], G1, G2, Signature(sigma)) for sigma in (first, second)]
        == [True, False],
    )


def _refuses(backend: Backend, key: G2Point) -> bool:
    try:
        backend.key(key)
    except BadKey:
        return True
    return False
