"""Individual verdicts by random combination and halving, for backends without their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aligned.bls.curve import is_on_g1

if TYPE_CHECKING:
    from aligned.bls.backend import Key
    from aligned.model import G1Point, Signature


class Claim(NamedTuple):
    """One signature that waits for its verdict."""

    group: int
    position: int
    """In its group."""
    signature: Signature
    """On the curve, not infinity."""
    key: Key
    factor: int
    """64 random bits, not zero, drawn after the input was fixed."""


class Part(NamedTuple):
    """Claims on one message; at least one."""

    message: G1Point
    claims: Sequence[Claim]


Holds = Callable[[Sequence[Part]], bool]
"""The product over the parts of e(message, sum of factor · key) equals e(sum of factor ·
signature over all, g2)."""


def bad_signatures(
    groups: Sequence[tuple[G1Point, Sequence[Signature], Sequence[Key]]], holds: Holds
) -> list[list[int]]:
    """Return for each group the ascending indices of the signatures that do not verify.

    A bad signature passes with at most 2^-63 in each combination it is in, a lone one never.
    """
    bad: list[list[int]] = [[] for _ in groups]
    parts = []
    for group, (message, signatures, keys) in enumerate(groups):
        claims = []
        for position, (signature, key) in enumerate(zip(signatures, keys, strict=True)):
            if is_on_g1(signature):
                factor = secrets.randbits(64) or 1
                claims.append(Claim(group, position, signature, key, factor))
            else:
                bad[group].append(position)
        if claims:
            parts.append(Part(message, claims))
    if parts and not holds(parts):
        _search(parts, holds, bad)
    return [sorted(positions) for positions in bad]


def _search(parts: Sequence[Part], holds: Holds, bad: list[list[int]]) -> None:
    """Find the culprits in ``parts``, which do not hold: across messages first, then inside."""
    halves = _halves(parts)
    if halves is None:
        claim = parts[0].claims[0]
        bad[claim.group].append(claim.position)
        return
    left, right = halves
    if holds(left):
        _search(right, holds, bad)  # it must be in there: no need to ask
        return
    _search(left, holds, bad)
    if not holds(right):
        _search(right, holds, bad)


def _halves(parts: Sequence[Part]) -> tuple[Sequence[Part], Sequence[Part]] | None:
    if len(parts) > 1:
        middle = len(parts) // 2
        return parts[:middle], parts[middle:]
    message, claims = parts[0]
    if len(claims) == 1:
        return None
    middle = len(claims) // 2
    return [Part(message, claims[:middle])], [Part(message, claims[middle:])]
