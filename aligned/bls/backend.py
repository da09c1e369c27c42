"""The arithmetic that verification needs, behind one interface with three implementations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from aligned.errors import AlignedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.model import G1Point, G2Point, Signature


class BadKey(AlignedError):
    """Not a point of G2's subgroup in canonical encoding, or infinity."""


class Key(Protocol):
    """A decoded public key in G2; opaque outside its backend, never infinity."""


@dataclass(frozen=True, slots=True)
class Group:
    """Signatures on one message, with their keys in the same order."""

    message: G1Point
    """The message's point, ``hash_to_g1(batch id)``."""
    signatures: Sequence[Signature]
    keys: Sequence[Key]


class Runs(StrEnum):
    """Where a backend's calls belong."""

    THREAD = "thread"
    """It releases the GIL: on a worker thread."""
    LOOP = "loop"
    """It is quick and holds the GIL: in the event loop."""
    PROCESS = "process"
    """It is slow: the backend has its own pool; calls come from a worker thread and wait for it."""


class Backend(Protocol):
    """BN254 arithmetic. Thread-safe. Infinity and zero keys are refused everywhere."""

    @property
    def name(self) -> str:
        """``arkworks``, ``zksnake`` or ``py_ecc``."""

    @property
    def runs(self) -> Runs: ...

    def key(self, g2: G2Point) -> Key:
        """Decode a key, with range, curve, subgroup and infinity checks.

        Raises:
            BadKey: It is not a valid key.
        """

    def hash_to_g1(self, digest: bytes) -> G1Point:
        """Return the point of a 32-byte message. See ``aligned.bls.hash_to_g1``."""

    def bad_signatures(self, groups: Sequence[Group]) -> list[list[int]]:
        """Return for each group the ascending indices of the signatures that do not verify.

        Each signature gets its own verdict: random 64-bit combinations, drawn after the call has
        the input, halving on failure; a lone one gets the exact check. Malformed ones are bad.
        """

    def sum_keys(self, keys: Sequence[Key]) -> G2Point:
        """Return the sum of one or more keys; infinity as 128 zero bytes."""

    def certifies(self, message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> bool:
        """Run the contract's own check of an aggregate on a 32-byte message.

        Source: eigenlayer-middleware, ``BLSSignatureChecker.trySignatureAndApkVerification``:
        ``e(sigma + g·apk, -G2) · e(H(m) + g·G1, apkG2) = 1`` with
        ``g = keccak(m ‖ apk ‖ apkG2 ‖ sigma) mod r``.
        """

    def close(self) -> None:
        """Release pools; the backend is finished."""
