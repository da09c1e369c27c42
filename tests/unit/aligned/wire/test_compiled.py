from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st
from py_ecc.optimized_bn128.optimized_curve import G1, multiply, normalize

from aligned.errors import MalformedMessage
from aligned.model import Address, OperatorId, Response, Signature, batch_id
from aligned.wire import messages
from aligned.wire.compiled import Memory, ResponseReader
from aligned.wire.gob import Struct, TypeMismatch
from aligned.wire.gob_stream import Incoming, Item, Outgoing
from aligned.wire.messages import SIGNED_TASK_RESPONSE, BadResponse

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = [normalize(multiply(G1, scalar)) for scalar in range(1, 400)]
EVEN = [
    (x, y)
    for x, y in ((int(x), int(y)) for x, y in POINTS)
    if all(
        limb >> 56
        for number in (x, y)
        for limb in (
            ((number << 256) % messages.FIELD_MODULUS) >> shift & (1 << 64) - 1
            for shift in (0, 64, 128, 192)
        )
    )
]


def response(
    point: int = 0, root: bytes = b"\xaa" * 32, operator: bytes = b"\x99" * 32
) -> Response:
    x, y = POINTS[point]
    sender = Address(bytes(range(120, 140)))
    return Response(
        root,
        sender,
        batch_id(root, sender),
        OperatorId(operator),
        Signature(int(x).to_bytes(32) + int(y).to_bytes(32)),
    )


def stream(*responses: Response, local: Struct = SIGNED_TASK_RESPONSE) -> Incoming:
    outgoing = Outgoing(65)
    incoming = Incoming()
    for sent in responses:
        incoming.feed(outgoing.encode(local, messages.to_value(sent)))
    return incoming


def generic(incoming: Incoming, item: Item) -> Response:
    incoming.types.require(item.type_id, SIGNED_TASK_RESPONSE)
    return messages.from_value(incoming.types.decode(*item))


def verdict(read: Callable[[], Response]) -> object:
    try:
        return read()
    except BadResponse as refused:
        return refused.reason
    except (MalformedMessage, TypeMismatch) as error:
        return type(error)


def quick_only(incoming: Incoming, item: Item) -> Response | None:
    """Return what the fast path alone makes of ``item``."""
    return ResponseReader(incoming.types, Memory())._read_usual(item.data, item.at)


def same(incoming: Incoming, item: Item, reader: ResponseReader) -> None:
    expected = verdict(lambda: generic(incoming, item))
    assert verdict(lambda: reader.read(item)) == expected
    assert verdict(lambda: reader.read(item)) == expected  # also out of its memory


@settings(max_examples=300)
@given(
    st.integers(0, len(POINTS) - 1),
    st.binary(min_size=32, max_size=32)
    | st.sampled_from([b"\xff" * 32, b"\1\1\1\1\4" * 6 + b"ab"]),
    st.binary(min_size=32, max_size=32)
    | st.sampled_from([b"\xff" * 32, b"\0\0\0\1\x20" * 6 + b"ab"]),
)
def test_honest_responses_are_read_as_the_generic_decoder_does(
    point: int, root: bytes, operator: bytes
) -> None:
    sent = response(point, root, operator)
    incoming = stream(sent)
    item = incoming.next_item()
    assert item is not None
    same(incoming, item, ResponseReader(incoming.types, Memory()))
    assert generic(incoming, item) == sent


@pytest.mark.parametrize("point", range(0, 399, 7))
def test_the_fast_path_takes_every_ordinary_response(point: int) -> None:
    incoming = stream(response(point))
    item = incoming.next_item()
    assert item is not None
    assert quick_only(incoming, item) == response(point)


def test_points_with_and_without_short_limbs_are_among_those_tried() -> None:
    assert 0 < len(EVEN) < len(POINTS)


@settings(max_examples=1000)
@given(st.data())
def test_damaged_responses_get_the_verdict_of_the_generic_decoder(data: st.DataObject) -> None:
    incoming = stream(response(data.draw(st.integers(0, 20))))
    item = incoming.next_item()
    assert item is not None
    damaged = bytearray(item.data)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(item.at, len(damaged)))
        patch = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"\xff\xff", b"\xfe\0\7", b"\0\0\0", b"\1\x20", b"\1\1\1\1\4"])
        )
        cut = data.draw(st.integers(0, 3))
        damaged[at : at + cut] = patch
    reader = ResponseReader(incoming.types, Memory())
    reader.read(item)
    same(incoming, Item(item.type_id, bytes(damaged), item.at), reader)


@given(st.data())
def test_bad_points_get_the_verdict_of_the_generic_decoder(data: st.DataObject) -> None:
    number = st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**32]) | st.integers(0, 2**64 - 1)
    value = messages.to_value(response())
    coordinates = {name: data.draw(st.lists(number, min_size=4, max_size=4)) for name in ("X", "Y")}
    value["BlsSignature"] = {
        "G1Point": {"G1Affine": {name: list(limbs) for name, limbs in coordinates.items()}}
    }
    incoming = Incoming()
    incoming.feed(Outgoing(64).encode(SIGNED_TASK_RESPONSE, value))
    item = incoming.next_item()
    assert item is not None
    same(incoming, item, ResponseReader(incoming.types, Memory()))


def test_a_wrong_hash_is_refused_each_time() -> None:
    bad = response()._replace(merkle_root=bytes(32))
    incoming = stream(bad)
    item = incoming.next_item()
    assert item is not None
    reader = ResponseReader(incoming.types, Memory())
    for _ in range(2):
        with pytest.raises(BadResponse, match="batch id is not the hash"):
            reader.read(item)


def test_fields_in_another_order_and_unknown_ones_are_read_by_name() -> None:
    turned = Struct("SignedTaskResponse", tuple(reversed(SIGNED_TASK_RESPONSE.fields)))
    more = Struct("Later", (*turned.fields, ("Extra", turned)))
    for local in (turned, more):
        incoming = stream(response(3), local=local)
        item = incoming.next_item()
        assert item is not None
        assert ResponseReader(incoming.types, Memory()).read(item) == response(3)


def test_a_type_without_one_of_the_fields_is_a_mismatch_each_time() -> None:
    shorter = Struct("SignedTaskResponse", SIGNED_TASK_RESPONSE.fields[:4])
    incoming = stream(response(), local=shorter)
    item = incoming.next_item()
    assert item is not None
    reader = ResponseReader(incoming.types, Memory())
    for _ in range(2):
        with pytest.raises(TypeMismatch, match="SignedTaskResponse lacks field OperatorId"):
            reader.read(item)


def test_the_hash_is_taken_once_per_batch_whatever_the_order() -> None:
    memory = Memory()
    roots = [bytes([number]) * 32 for number in range(4)]
    incoming = stream(
        *(response(point, root, bytes([point]) * 32) for point in range(10) for root in roots)
    )
    readers = [ResponseReader(incoming.types, memory) for _ in range(10)]
    for number in range(40):
        item = incoming.next_item()
        assert item is not None
        readers[number // 4].read(item)
    assert memory.batch_id.cache_info().misses == 4


def test_memory_is_bounded() -> None:
    memory = Memory(size=2)
    incoming = stream(*(response(0, bytes([number]) * 32) for number in range(5)))
    reader = ResponseReader(incoming.types, memory)
    for number in range(5):
        item = incoming.next_item()
        assert item is not None
        assert reader.read(item).merkle_root == bytes([number]) * 32
    for known in (memory.batch_id, memory.head):
        assert known.cache_info().currsize == 2
