from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st
from py_ecc.optimized_bn128.optimized_curve import G1, multiply, normalize

from aligned.errors import MalformedMessage
from aligned.model import Address, BatchId, OperatorId, Response, Signature, batch_id
from aligned.wire import messages
from aligned.wire.messages import FIELD_MODULUS, RESPOND, SIGNED_TASK_RESPONSE, BadResponse, Reason
from aligned.wire.netrpc import Client, Server

if TYPE_CHECKING:
    from aligned.wire.gob import Value

ROOT = bytes(range(100, 132))
SENDER = Address(bytes(range(20)))


def signature(scalar: int) -> Signature:
    x, y = normalize(multiply(G1, scalar))
    return Signature(int(x).to_bytes(32) + int(y).to_bytes(32))


def response(scalar: int = 1, root: bytes = ROOT) -> Response:
    return Response(
        root, SENDER, batch_id(root, SENDER), OperatorId(bytes(range(128, 160))), signature(scalar)
    )


def over_the_wire(value: Value, first_id: int = 65) -> Value:
    client = Client(first_id)
    server = Server({RESPOND})
    server.feed(client.dial() + client.call(RESPOND, SIGNED_TASK_RESPONSE, value)[1])
    call = server.next_call()
    assert call is not None
    server.types.require(call.argument.type_id, SIGNED_TASK_RESPONSE)
    return server.types.decode(*call.argument)


def with_point(point: Value) -> dict[str, Value]:
    return messages.to_value(response()) | {"BlsSignature": {"G1Point": {"G1Affine": point}}}


def limbs(number: int) -> list[Value]:
    return [number >> shift & (1 << 64) - 1 for shift in (0, 64, 128, 192)]


def montgomery(number: int) -> list[Value]:
    return limbs((number << 256) % FIELD_MODULUS)


def test_the_hash_of_root_and_sender_is_that_of_the_contract() -> None:
    assert batch_id(b"\xaa" * 32, SENDER).hex() == (
        "c55a037b30f612ecb33053b23187310aaff81b14cc88a4a628bd3dea5434c7e2"
    )


def test_a_captured_request_is_understood(vectors: dict[str, bytes]) -> None:
    server = Server({RESPOND})
    server.feed(vectors["connect"] + vectors["first_request"])
    call = server.next_call()
    assert call is not None
    digest = BatchId(bytes(0xF0 + n % 16 for n in range(32)))
    decoded = messages.from_value(server.types.decode(*call.argument), lambda *_: digest)
    assert decoded == Response(
        merkle_root=b"\xaa" * 32,
        sender=SENDER,
        batch_id=digest,
        operator_id=OperatorId(bytes(8 * n for n in range(32))),
        signature=Signature(vectors["first_request_signature"]),
    )


@pytest.mark.parametrize("first_id", [64, 65], ids=["newer Go", "older Go"])
def test_requests_are_written_as_a_go_operator_does(
    vectors: dict[str, bytes], first_id: int
) -> None:
    captured = Response(
        merkle_root=b"\xaa" * 32,
        sender=SENDER,
        batch_id=BatchId(bytes(0xF0 + n % 16 for n in range(32))),
        operator_id=OperatorId(bytes(8 * n for n in range(32))),
        signature=Signature(vectors["first_request_signature"]),
    )
    client = Client(first_id)
    seq, data = client.call(RESPOND, SIGNED_TASK_RESPONSE, messages.to_value(captured))
    assert seq == 0
    if first_id == 65:
        assert data == vectors["first_request"]
    else:
        assert data.startswith(vectors["first_request_base_64_prefix"])
        assert len(data) == len(vectors["first_request"]) - 1


@given(st.integers(1, 2**40), st.binary(min_size=32, max_size=32), st.integers(64, 10**6))
def test_responses_come_back(scalar: int, root: bytes, first_id: int) -> None:
    sent = response(scalar, root)
    assert messages.from_value(over_the_wire(messages.to_value(sent), first_id)) == sent


@pytest.mark.parametrize("name", ["nil_outer_signature", "nil_inner_signature"])
def test_a_captured_nil_signature_is_refused(vectors: dict[str, bytes], name: str) -> None:
    client = Client(65)
    server = Server({RESPOND})
    first = client.call(RESPOND, SIGNED_TASK_RESPONSE, messages.to_value(response()))[1]
    header = client.call(RESPOND, SIGNED_TASK_RESPONSE, messages.to_value(response()))[1]
    header = header[: header[0] + 1]
    server.feed(client.dial() + first + header + vectors[name])
    server.next_call()
    call = server.next_call()
    assert call is not None
    with pytest.raises(BadResponse, match="nil signature"):
        messages.from_value(server.types.decode(*call.argument))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(
            messages.to_value(response()) | {"BlsSignature": {}},
            Reason.NIL_SIGNATURE,
            id="outer pointer nil",
        ),
        pytest.param(
            messages.to_value(response()) | {"BlsSignature": {"G1Point": {}}},
            Reason.NIL_SIGNATURE,
            id="inner pointer nil",
        ),
        pytest.param(
            messages.to_value(response()._replace(merkle_root=bytes(32))),
            Reason.WRONG_HASH,
            id="hash of another root",
        ),
        pytest.param(
            messages.to_value(response()._replace(sender=Address(bytes(20)))),
            Reason.WRONG_HASH,
            id="hash of another sender",
        ),
        pytest.param(
            with_point({"X": limbs(FIELD_MODULUS), "Y": montgomery(2)}),
            Reason.OUT_OF_RANGE,
            id="x is p",
        ),
        pytest.param(
            with_point({"X": montgomery(1), "Y": limbs(2**256 - 1)}),
            Reason.OUT_OF_RANGE,
            id="y is 2**256 - 1",
        ),
        pytest.param(
            with_point(
                {"X": limbs((1 << 256) % FIELD_MODULUS + FIELD_MODULUS), "Y": montgomery(2)}
            ),
            Reason.OUT_OF_RANGE,
            id="on the curve but for a p too much",
        ),
        pytest.param(
            with_point({"X": montgomery(1), "Y": montgomery(3)}), Reason.OFF_CURVE, id="(1, 3)"
        ),
        pytest.param(with_point({"X": limbs(1), "Y": limbs(2)}), Reason.OFF_CURVE, id="not scaled"),
        pytest.param(with_point({"X": limbs(0), "Y": limbs(0)}), Reason.INFINITY, id="(0, 0)"),
    ],
)
def test_what_can_never_be_right_is_refused(value: Value, reason: Reason) -> None:
    with pytest.raises(BadResponse) as caught:
        messages.from_value(over_the_wire(value))
    assert caught.value.reason is reason
    assert str(caught.value) == reason.value


def test_the_negative_of_a_point_is_a_point() -> None:
    value = with_point({"X": montgomery(1), "Y": montgomery(FIELD_MODULUS - 2)})
    decoded = messages.from_value(over_the_wire(value))
    assert decoded.signature == (1).to_bytes(32) + (FIELD_MODULUS - 2).to_bytes(32)


def test_a_number_above_255_is_no_byte() -> None:
    value: Value = messages.to_value(response()) | {"OperatorId": [256, *[0] * 31]}
    with pytest.raises(MalformedMessage):
        messages.from_value(over_the_wire(value))


def test_arrays_left_out_are_zero() -> None:
    value = messages.to_value(response())
    del value["OperatorId"]
    assert messages.from_value(over_the_wire(value)).operator_id == bytes(32)


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1))
def test_any_pair_of_numbers_is_a_canonical_point_or_refused(x: int, y: int) -> None:
    try:
        found = messages.signature_from_montgomery(x, y)
    except BadResponse:
        return
    assert int.from_bytes(found[:32]) < FIELD_MODULUS
    assert int.from_bytes(found[32:]) < FIELD_MODULUS
