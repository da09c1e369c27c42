from __future__ import annotations

from eth_hash.auto import keccak

from aligned.bls.challenge import challenge
from aligned.bls.curve import GROUP_ORDER
from aligned.model import G1Point, G2Point, Signature


def test_the_key_goes_into_the_challenge_imaginary_parts_first() -> None:
    message, apk, sigma = b"m" * 32, G1Point(b"a" * 64), Signature(b"s" * 64)
    apk_g2 = G2Point(b"".join(letter * 32 for letter in (b"1", b"2", b"3", b"4")))
    in_contract_order = b"2" * 32 + b"1" * 32 + b"4" * 32 + b"3" * 32
    expected = int.from_bytes(keccak(message + apk + in_contract_order + sigma), "big")
    assert challenge(message, apk, apk_g2, sigma) == expected % GROUP_ORDER
