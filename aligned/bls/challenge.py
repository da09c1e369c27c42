"""The contract's challenge, which ties an aggregate's keys in G1 and G2 together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eth_hash.auto import keccak

from aligned.bls.curve import GROUP_ORDER

if TYPE_CHECKING:
    from aligned.model import G1Point, G2Point, Signature


def challenge(message: bytes, apk_g1: G1Point, apk_g2: G2Point, sigma: Signature) -> int:
    """Return ``keccak(m ‖ apk ‖ apkG2 ‖ sigma) mod r``, apkG2 with the imaginary parts first.

    Source: eigenlayer-middleware, ``BLSSignatureChecker.trySignatureAndApkVerification``.
    """
    real_x, imaginary_x, real_y, imaginary_y = (apk_g2[at : at + 32] for at in range(0, 128, 32))
    contract_g2 = imaginary_x + real_x + imaginary_y + real_y
    return int.from_bytes(keccak(message + apk_g1 + contract_g2 + sigma), "big") % GROUP_ORDER
