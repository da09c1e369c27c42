"""From a 32-byte message to a point of G1, as the contract does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aligned.bls.curve import FIELD_MODULUS, g1_point

if TYPE_CHECKING:
    from aligned.model import G1Point

_ROOT_EXPONENT = (FIELD_MODULUS + 1) // 4


def hash_to_g1(digest: bytes) -> G1Point:
    """Return the point of a 32-byte digest: x = digest mod p, then x + 1 until a y exists.

    Of the two roots the (p + 1) / 4 th power is taken. Not constant-time; takes about 0.1 ms.

    Raises:
        ValueError: ``digest`` has not 32 bytes.

    Source:
        eigenlayer-middleware, ``BN254.hashToG1``; eigensdk-go, ``MapToCurve``.
    """
    if len(digest) != 32:  # noqa: PLR2004
        msg = f"a message has 32 bytes, not {len(digest)}"
        raise ValueError(msg)
    x = int.from_bytes(digest, "big") % FIELD_MODULUS
    while True:
        square = (x * x * x + 3) % FIELD_MODULUS
        y = pow(square, _ROOT_EXPONENT, FIELD_MODULUS)
        if y * y % FIELD_MODULUS == square:
            return g1_point(x, y)
        x = (x + 1) % FIELD_MODULUS
