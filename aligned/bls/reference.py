"""The backend over py_ecc: plain Python, 0.3 s a check, so it works in processes of its own.

The reference for the others, and what serves where nothing native runs.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aligned.bls.backend import BadKey, Runs
from aligned.bls.hash_to_g1 import hash_to_g1
from aligned.bls.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.bls.backend import Group, Key
    from aligned.model import G1Point, G2Point, Signature

_WORKERS = 2
"""One for the stream of signatures, one so that a certificate need not wait behind them."""

_PATIENCE = 60.0
"""Seconds for any question, on a machine that is busy."""

_PATIENCE_PER_SIGNATURE = 5.0
"""Seconds more: the worst search asks two checks a signature."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A checked key in its encoding; decoding it in the worker costs next to nothing."""

    g2: G2Point


class Reference:
    """See ``Backend``."""

    name = "py_ecc"
    runs = Runs.PROCESS

    def __init__(self) -> None:
        """Get ready; workers start at the first question.

        Raises:
            ImportError: py_ecc is not installed.
        """
        if importlib.util.find_spec("py_ecc") is None:
            msg = "No module named 'py_ecc'"
            raise ImportError(msg)
        self._workers = Workers("aligned.bls.pairings", limit=_WORKERS)

    def key(self, g2: G2Point) -> Key:
        if not self._workers.ask("is_key", g2, patience=_PATIENCE):
            msg = f"{g2.hex()} is not in G2"
            raise BadKey(msg)
        return _Key(g2)

    def hash_to_g1(self, digest: bytes) -> G1Point:
        return hash_to_g1(digest)

    def bad_signatures(self, groups: Sequence[Group]) -> list[list[int]]:
        question = [
            (group.message, list(group.signatures), _encodings(group.keys)) for group in groups
        ]
        count = sum(len(group.signatures) for group in groups)
        patience = _PATIENCE + _PATIENCE_PER_SIGNATURE * count
        answer = self._workers.ask("bad_signatures", question, patience=patience)
        return cast("list[list[int]]", answer)

    def sum_keys(self, keys: Sequence[Key]) -> G2Point:
        answer = self._workers.ask("sum_keys", _encodings(keys), patience=_PATIENCE)
        return cast("G2Point", answer)

    def certifies(self, message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> bool:
        question = (message, apk_g1, apk_g2, sigma)
        return bool(self._workers.ask("certifies", *question, patience=_PATIENCE))

    def close(self) -> None:
        self._workers.close()


def _encodings(keys: Sequence[Key]) -> list[G2Point]:
    return [key.g2 for key in cast("Sequence[_Key]", keys)]
