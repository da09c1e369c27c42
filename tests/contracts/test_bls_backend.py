from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aligned.bls.arkworks import Arkworks
from aligned.bls.backend import BadKey, Group
from aligned.bls.choose import BACKENDS
from aligned.bls.curve import (
    FIELD_MODULUS,
    G1,
    G2,
    INFINITY_G1,
    INFINITY_G2,
    coordinates,
    g1_point,
    multiply_g1,
    negate_g1,
    sum_g1,
)
from aligned.bls.hash_to_g1 import hash_to_g1
from aligned.bls.known_answers import first_wrong_answer
from aligned.model import G1Point, G2Point, Signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aligned.bls.backend import Backend

# The aggregation vector: gnark-crypto by way of eigensdk-go; operators with the secrets 11, 22, 33.
MESSAGE = bytes.fromhex("c55a037b30f612ecb33053b23187310aaff81b14cc88a4a628bd3dea5434c7e2")
KEYS = {
    11: "12bb1156a9f6b360fcb2614e15d8a3ff07f2c699dc69ca830b20d2df91fe9cd3"
    "228b515a17f28b89920873207477f8c7fc05582debaf3184febf1cfdedc5ce88"
    "02a4fd764f52470e2fcfff325fb9692f55d6b8b077eefeaa04e07152b4d1fa94"
    "2b15dc62a5c9e36597914ddbbfde48806a8eabe45c8d3cccf9578ad08e058f92",
    22: "1d3e9ab60c7c4b236c594873aba12e5ba8c3b053549b9077cbb1610d6acef7bc"
    "1e21ce40143f745ecd8987537a6f70ea8b17a3ff1035fa6189d94121ad0ddcbc"
    "0354ef63bf6400ed9dfcc1ae612dd12cdcef0b7fa35050648058cce27981d7b9"
    "0a1befab2002dfa722502c1156b357644fdeed8b37364971ff4ed8ccd2ec0ad8",
    33: "263dbc2c01e732986b2d2364ace2001bf101a6851aed468ae25a520ffe90482d"
    "02d689138526142cb092180afa590704abe7238524473641d26d38c76a31faa8"
    "1e895e3ffc26f3c84b3ff093795e378eea776b92996d6d62f3e7112cfbe4143a"
    "13c1c31948880bb770d451813ec23ed882eabc2215bb14f0e0b4ba8b35ff3d8a",
}
APK_G1 = (
    "1bf3ebe16a0321c0c357f5c82f2c87abd0da6e916f5f6171b649840c052bf892"
    "2cc236a9e084af730472e0def08271b50385b691c3bc64432a382506552049b1"
)
SIGMA = (
    "23c4850d3b38f8927ea37e2cb6969e548571b25a2f660cb44c06d9acf4b870f5"
    "293c58c31821538c5d0ed6deaa6d3053fbc90eba76b2b99546c5ca85a3316ccb"
)
OUTSIDE_THE_SUBGROUP = bytes.fromhex(
    "0000000000000000000000000000000000000000000000000000000000000001"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "2869111d5381f072f8e2728fdb825a51aadd70e52c9830e9ab4b871c0531f1bb"
    "0d1271953ed9ea0836846e70a1934187998c7f790cb4d7511b7f8da82de048a4"
)
"""On the curve of G2: x = 1, and a root."""

OTHER = bytes(31) + b"\x05"
D = multiply_g1(G1, 99)
"""What colluders add to one signature and take from another."""


def sign(secret: int, message: bytes = MESSAGE) -> Signature:
    return Signature(multiply_g1(hash_to_g1(message), secret))


def plus(signature: Signature, point: G1Point) -> Signature:
    return Signature(sum_g1([signature, point]))


def key(secret: int) -> G2Point:
    return G2Point(bytes.fromhex(KEYS[secret]))


def group(backend: Backend, *claims: tuple[int, Signature], message: bytes = MESSAGE) -> Group:
    return Group(
        hash_to_g1(message),
        [signature for _, signature in claims],
        [backend.key(key(secret)) for secret, _ in claims],
    )


@pytest.fixture(scope="module", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    yield from _built(request.param)


@pytest.fixture(scope="module", params=["arkworks", "zksnake"])
def quick(request: pytest.FixtureRequest) -> Iterator[Backend]:
    yield from _built(request.param)


def _built(name: str) -> Iterator[Backend]:
    try:
        built = BACKENDS[name]()
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    yield built
    built.close()


GOOD = sign(11)
X, Y = coordinates(GOOD)
MALFORMED = {
    "x beyond the modulus": (X + FIELD_MODULUS << 256 | Y).to_bytes(64, "big"),
    "y beyond the modulus": g1_point(X, Y + FIELD_MODULUS),
    "off the curve": g1_point(X, Y ^ 1),
    "infinity": INFINITY_G1,
    "too short": GOOD[:63],
    "too long": GOOD + b"\0",
    "empty": b"",
}
WRONG = {
    "negated": negate_g1(GOOD),
    "of another message": sign(11, OTHER),
    "of another key": sign(22),
    "the generator": G1,
}
BAD_KEYS = {
    "infinity": INFINITY_G2,
    "off the curve": key(11)[:-1] + b"\0",
    "outside the subgroup": OUTSIDE_THE_SUBGROUP,
    "imaginary part first": key(11)[32:64] + key(11)[:32] + key(11)[96:] + key(11)[64:96],
    "beyond the modulus": (int.from_bytes(G2[:32], "big") + FIELD_MODULUS).to_bytes(32, "big")
    + G2[32:],
    "too short": key(11)[:127],
}


def test_known_answers_are_right(backend: Backend) -> None:
    assert first_wrong_answer(backend) is None


@pytest.mark.parametrize(
    ("digest", "point"),
    [
        pytest.param(bytes(32), G1, id="zero"),
        pytest.param(bytes(31) + b"\1", G1, id="one"),
        pytest.param(FIELD_MODULUS.to_bytes(32, "big"), G1, id="the modulus"),
        pytest.param(
            b"\xff" * 32,
            bytes.fromhex(
                "0e0a77c19a07df2f666ea36f7879462c0a78eb28f5c70b3dd35d438dc58f0d9c"
                "14be43b98e05db3bee1459f626263fc7bccd58e77b8182329f8ac7453c92c0ca"
            ),
            id="all ones",
        ),
        pytest.param(
            MESSAGE,
            bytes.fromhex(
                "03c8c9afac2f9245d1ef3cd82b81cf9451f270cf2ac17a71383b0d8ef240d2c6"
                "2cc002ef58c957648592d88b121664eb57a8d5f4a2d34ab13a7d43dd2bd434c5"
            ),
            id="a batch id",
        ),
    ],
)
def test_messages_hash_to_the_contracts_points(
    backend: Backend, digest: bytes, point: bytes
) -> None:
    assert backend.hash_to_g1(digest) == point


def test_a_message_of_another_length_is_an_error(backend: Backend) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        backend.hash_to_g1(bytes(31))


def test_keys_add_up_to_the_aggregate_key(backend: Backend) -> None:
    assert backend.sum_keys([backend.key(key(11)), backend.key(key(22))]) == key(33)
    assert backend.sum_keys([backend.key(key(33))]) == key(33)


def test_a_key_and_its_opposite_add_up_to_infinity(backend: Backend) -> None:
    g2 = key(11)
    y = [int.from_bytes(g2[at : at + 32], "big") for at in (64, 96)]
    opposite = g2[:64] + b"".join((FIELD_MODULUS - part).to_bytes(32, "big") for part in y)
    keys = [backend.key(g2), backend.key(G2Point(opposite))]
    assert backend.sum_keys(keys) == INFINITY_G2
    signatures = [sign(11), Signature(negate_g1(sign(11)))]
    assert backend.bad_signatures([Group(hash_to_g1(MESSAGE), signatures, keys)]) == [[]]


@pytest.mark.parametrize("bad", [pytest.param(point, id=name) for name, point in BAD_KEYS.items()])
def test_what_is_no_key_is_refused(backend: Backend, bad: bytes) -> None:
    with pytest.raises(BadKey):
        backend.key(G2Point(bad))


def test_the_aggregate_is_certified_and_any_change_is_not(backend: Backend) -> None:
    apk, sigma = G1Point(bytes.fromhex(APK_G1)), Signature(bytes.fromhex(SIGMA))
    assert backend.certifies(MESSAGE, apk, key(33), sigma)
    assert not backend.certifies(OTHER, apk, key(33), sigma)
    assert not backend.certifies(MESSAGE, G1, key(33), sigma)
    assert not backend.certifies(MESSAGE, apk, key(22), sigma)
    assert not backend.certifies(MESSAGE, apk, key(33), sign(22))


@pytest.mark.parametrize(
    ("apk", "apk_g2", "sigma"),
    [
        pytest.param(INFINITY_G1, key(33), bytes.fromhex(SIGMA), id="infinite G1 key"),
        pytest.param(
            bytes.fromhex(APK_G1), INFINITY_G2, bytes.fromhex(SIGMA), id="infinite G2 key"
        ),
        pytest.param(bytes.fromhex(APK_G1), key(33), INFINITY_G1, id="infinite signature"),
        pytest.param(INFINITY_G1, INFINITY_G2, INFINITY_G1, id="nothing at all"),
        pytest.param(
            bytes.fromhex(APK_G1), OUTSIDE_THE_SUBGROUP, bytes.fromhex(SIGMA), id="no G2 key"
        ),
        pytest.param(b"", b"", b"", id="empty"),
    ],
)
def test_what_is_no_point_certifies_nothing(
    backend: Backend, apk: bytes, apk_g2: bytes, sigma: bytes
) -> None:
    assert not backend.certifies(MESSAGE, G1Point(apk), G2Point(apk_g2), Signature(sigma))


def test_the_aggregate_verifies_under_the_aggregate_key(backend: Backend) -> None:
    assert backend.bad_signatures([group(backend, (33, Signature(bytes.fromhex(SIGMA))))]) == [[]]


def test_nothing_asked_is_nothing_bad(backend: Backend) -> None:
    assert backend.bad_signatures([]) == []
    assert backend.bad_signatures([group(backend), group(backend, (11, GOOD))]) == [[], []]


def test_malformed_ones_are_bad_and_spoil_nothing_beside_them(backend: Backend) -> None:
    claims = [(11, Signature(bad)) for bad in MALFORMED.values()]
    malformed = list(range(1, len(claims) + 1))
    assert backend.bad_signatures([group(backend, (11, GOOD), *claims)]) == [malformed]


@pytest.mark.parametrize("bad", [pytest.param(point, id=name) for name, point in WRONG.items()])
def test_a_wrong_one_is_bad_alone(backend: Backend, bad: bytes) -> None:
    assert backend.bad_signatures([group(backend, (11, Signature(bad)))]) == [[0]]


def test_signatures_that_changed_places_are_both_bad(backend: Backend) -> None:
    swapped = group(backend, (11, sign(22)), (22, sign(11)))
    assert backend.bad_signatures([swapped]) == [[0, 1]]


def test_halves_that_verify_only_together_are_refused_alone_and_as_a_pair(
    backend: Backend,
) -> None:
    first, second = plus(sign(11), D), plus(sign(22), negate_g1(D))
    assert sum_g1([first, second]) == bytes.fromhex(SIGMA)
    assert backend.bad_signatures([group(backend, (11, first), (22, second))]) == [[0, 1]]
    assert backend.bad_signatures([group(backend, (11, first))]) == [[0]]
    assert backend.bad_signatures([group(backend, (22, second))]) == [[0]]


def test_halves_on_two_messages_are_refused_in_one_call(backend: Backend) -> None:
    first = group(backend, (11, plus(sign(11), D)))
    second = group(backend, (22, plus(sign(22, OTHER), negate_g1(D))), message=OTHER)
    assert backend.bad_signatures([first, second]) == [[0], [0]]


def test_verdicts_of_several_messages_stay_apart(backend: Backend) -> None:
    groups = [
        group(backend, (11, sign(11)), (22, sign(11))),
        group(backend, (11, sign(11, OTHER)), (22, sign(22, OTHER)), message=OTHER),
        group(backend, (33, sign(33))),
    ]
    assert backend.bad_signatures(groups) == [[1], [], []]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 63, 64, 65, 130, 200])
def test_bad_ones_are_found_wherever_they_are(quick: Backend, size: int) -> None:
    secrets = [(11, 22, 33)[i % 3] for i in range(size)]
    keys = {secret: quick.key(key(secret)) for secret in KEYS}
    signatures = {secret: sign(secret) for secret in KEYS}
    message = hash_to_g1(MESSAGE)
    good = [signatures[secret] for secret in secrets]
    for positions in _positions(size):
        claimed = [plus(s, D) if i in positions else s for i, s in enumerate(good)]
        asked = Group(message, claimed, [keys[secret] for secret in secrets])
        assert quick.bad_signatures([asked]) == [positions]


def _positions(size: int) -> Sequence[list[int]]:
    few = [[], [0], [size - 1], [size // 2], sorted({0, size // 3, size - 1})]
    return [*few, list(range(size))] if size <= 10 else few


@pytest.mark.parametrize("culprit", [None, 0, 7, 19])
def test_one_bad_one_among_many_messages_is_found(quick: Backend, culprit: int | None) -> None:
    messages = [bytes(31) + bytes([number]) for number in range(20)]
    groups = []
    for number, message in enumerate(messages):
        claims = [(secret, sign(secret, message)) for secret in KEYS][: number % 3 + 1]
        if number == culprit:
            claims[-1] = (claims[-1][0], plus(claims[-1][1], D))
        groups.append(group(quick, *claims, message=message))
    expected = [[number % 3] if number == culprit else [] for number in range(20)]
    assert quick.bad_signatures(groups) == expected


def test_the_same_signature_may_be_asked_about_twice(quick: Backend) -> None:
    wrong = plus(GOOD, D)
    claims = [(11, GOOD), (11, GOOD), (11, wrong), (11, wrong)]
    assert quick.bad_signatures([group(quick, *claims)]) == [[2, 3]]


def test_one_message_may_come_in_two_groups(quick: Backend) -> None:
    groups = [group(quick, (11, GOOD)), group(quick, (11, plus(GOOD, D)))]
    assert quick.bad_signatures(groups) == [[], [0]]


def test_the_extension_refuses_what_only_a_bug_would_ask() -> None:
    try:
        native = Arkworks()
    except ImportError as error:
        pytest.skip(f"arkworks is not installed: {error}")
    asked = group(native, (11, GOOD))
    for broken in (
        Group(asked.message, asked.signatures, []),
        Group(INFINITY_G1, asked.signatures, asked.keys),
        Group(G1Point(asked.message[:-1]), asked.signatures, asked.keys),
    ):
        with pytest.raises(ValueError, match=r"key|message|bytes"):
            native.bad_signatures([broken])
