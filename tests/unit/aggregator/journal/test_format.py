from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from aggregator.journal import format as layout
from aggregator.outbox import Kind, OutboxRow
from aligned.model import (
    Address,
    BatchId,
    BlockHash,
    BlockRef,
    Entry,
    OperatorId,
    Signature,
    Term,
    TransactionHash,
    Wei,
)
from tests.fakes.builders import a_batch_id, entry, operator_id, signature

entries = st.builds(
    Entry,
    st.binary(min_size=32, max_size=32).map(BatchId),
    st.binary(min_size=32, max_size=32).map(OperatorId),
    st.binary(min_size=64, max_size=64).map(Signature),
)

rows = st.builds(
    OutboxRow,
    sender=st.binary(min_size=20, max_size=20).map(Address),
    nonce=st.integers(0, 2**63 - 1),
    attempt=st.integers(0, 100),
    kind=st.sampled_from(Kind),
    batch_id=st.none() | st.binary(min_size=32, max_size=32).map(BatchId),
    created=st.none()
    | st.builds(
        BlockRef, st.integers(0, 2**63), st.binary(min_size=32, max_size=32).map(BlockHash)
    ),
    raw=st.binary(max_size=300),
    hash=st.binary(min_size=32, max_size=32).map(TransactionHash),
    gas=st.integers(0, 2**63),
    max_fee=st.integers(0, 2**256 - 1).map(Wei),
    max_priority_fee=st.integers(0, 2**256 - 1).map(Wei),
    term=st.integers(1, 2**63 - 1).map(Term),
)


@given(st.lists(st.tuples(st.lists(entries, max_size=8), st.integers(0, 3)), max_size=4))
def test_unpacking_gives_what_was_packed(items: list[tuple[list[Entry], int]]) -> None:
    unpacked = [
        (Entry(pack.batch, *slot), pack.height)
        for pack in layout.pack(items)
        for slot in layout.unpack(pack.packed)
    ]
    assert sorted(unpacked) == sorted((one, height) for some, height in items for one in some)


def test_a_batch_has_one_pack_for_each_height() -> None:
    packs = layout.pack([([entry(1, 1), entry(2, 1)], 7), ([entry(1, 2)], 7), ([entry(1, 3)], 8)])
    assert [(pack.batch, pack.height, len(pack.packed)) for pack in packs] == [
        (a_batch_id(1), 7, 192),
        (a_batch_id(2), 7, 96),
        (a_batch_id(1), 8, 96),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(entry()._replace(batch_id=BatchId(b"short")), id="batch"),
        pytest.param(entry()._replace(operator_id=OperatorId(b"short")), id="operator"),
        pytest.param(entry()._replace(signature=Signature(b"\0" * 63)), id="signature"),
    ],
)
def test_an_entry_of_other_lengths_is_not_packed(bad: Entry) -> None:
    with pytest.raises(ValueError, match="other lengths"):
        layout.pack([([bad], 7)])


def test_taking_out_leaves_the_other_slots_in_order() -> None:
    (pack,) = layout.pack([([entry(1, 1), entry(1, 2), entry(1, 3)], 7)])
    rest = layout.without(pack.packed, [(operator_id(2), signature(1, 2))])
    assert [operator for operator, _ in layout.unpack(rest)] == [operator_id(1), operator_id(3)]


def test_taking_out_another_signature_of_the_operator_leaves_the_pack() -> None:
    (pack,) = layout.pack([([entry(1, 1)], 7)])
    assert layout.without(pack.packed, [(operator_id(1), signature(1, 9))]) == pack.packed


@given(rows)
def test_a_row_survives_json(row: OutboxRow) -> None:
    assert layout.decode_row(layout.parse_object(json.dumps(layout.encode_row(row)))) == row


@given(st.lists(st.binary(max_size=4) | st.integers(0, 9), max_size=4), st.data())
def test_a_checksum_tells_where_one_value_ends(
    values: list[bytes | int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(values)))
    assert layout.checksum(*values) != layout.checksum(*values[:at], b"", *values[at:])
