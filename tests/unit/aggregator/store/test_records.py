from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from aggregator.journal.format import Fence
from aggregator.outbox import Kind, OutboxRow
from aggregator.store.keys import Keys
from aggregator.store.records import (
    FORMAT,
    NOBODY,
    News,
    identity_text,
    pack_entries,
    pack_row,
    pack_row_key,
    row_key,
    unpack_entries,
    unpack_fence,
    unpack_news,
    unpack_row,
    unpack_row_key,
)
from aligned.errors import StateDamaged
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
from tests.fakes.builders import entry
from tests.fakes.redis import a_row, identity


def _bytes(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


entries = st.builds(
    Entry, _bytes(32).map(BatchId), _bytes(32).map(OperatorId), _bytes(64).map(Signature)
)
rows = st.builds(
    OutboxRow,
    sender=_bytes(20).map(Address),
    nonce=st.integers(0, 2**64 - 1),
    attempt=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(Kind),
    batch_id=st.none() | _bytes(32).map(BatchId),
    created=st.none() | st.builds(BlockRef, st.integers(0, 2**63), _bytes(32).map(BlockHash)),
    raw=st.binary(max_size=300),
    hash=_bytes(32).map(TransactionHash),
    gas=st.integers(0, 2**64),
    max_fee=st.integers(0, 2**128).map(Wei),
    max_priority_fee=st.integers(0, 2**128).map(Wei),
    term=st.integers(1, 2**53).map(Term),
)


@given(st.lists(entries, max_size=5))
def test_entries_come_back_as_they_went(some: list[Entry]) -> None:
    assert list(unpack_entries(pack_entries(some))) == some


@given(rows)
def test_rows_come_back_as_they_went(row: OutboxRow) -> None:
    assert unpack_row(pack_row(row)) == row
    assert unpack_row_key(pack_row_key(row_key(row))) == row_key(row)


def test_an_entry_takes_128_bytes() -> None:
    assert len(pack_entries([entry(1, 1), entry(1, 2)])) == 2 * 128


def test_fields_of_later_releases_are_ignored() -> None:
    value = pack_row(a_row())
    later = value[:32] + json.dumps(json.loads(value[32:]) | {"blobs": [1]}).encode()
    assert unpack_row(later) == a_row()
    assert unpack_news({b"by": b"x", b"mood": b"good"}) == News()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"h" * 32, id="a hash alone"),
        pytest.param(b"h" * 32 + b"{}", id="no fields"),
        pytest.param(b"h" * 32 + b"[]", id="a list"),
        pytest.param(pack_row(a_row()).replace(b'"answer"', b'"question"'), id="unknown kind"),
        pytest.param(pack_row(a_row()).replace(b'"nonce":0', b'"nonce":"0"'), id="no number"),
        pytest.param(pack_row(a_row()).replace(b'"raw":"', b'"raw":"x'), id="no hexadecimal"),
    ],
)
def test_what_is_no_row_is_refused(value: bytes) -> None:
    with pytest.raises(StateDamaged):
        unpack_row(value)


@pytest.mark.parametrize("length", [1, 127, 129])
def test_what_is_no_list_of_entries_is_refused(length: int) -> None:
    with pytest.raises(StateDamaged):
        unpack_entries(bytes(length))


@pytest.mark.parametrize(
    ("fields", "news"),
    [
        pytest.param(
            {b"entries": pack_entries([entry(1, 1), entry(2, 1)])},
            News(entries=(entry(1, 1), entry(2, 1))),
            id="entries",
        ),
        pytest.param({b"row": pack_row(a_row())}, News(rows=(a_row(),)), id="row"),
        pytest.param(
            {b"dropped": pack_row_key(row_key(a_row(1))) + pack_row_key(row_key(a_row(2)))},
            News(dropped=(row_key(a_row(1)), row_key(a_row(2)))),
            id="dropped",
        ),
        pytest.param({b"evicted": pack_entries([entry()])}, News(evicted=(entry(),)), id="evicted"),
        pytest.param(
            {b"fence": b"7 pod-0 boot"}, News(fence=Fence(Term(7), "pod-0 boot")), id="fence"
        ),
    ],
)
def test_news_say_what_was_written(fields: dict[bytes, bytes], news: News) -> None:
    assert unpack_news({b"by": b"somebody", **fields}) == news


def test_nobody_leads_before_the_first_term() -> None:
    assert News().fence == NOBODY == Fence(Term(0), "")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(identity(), chain_id=2), id="chain"),
        pytest.param(replace(identity(), genesis_hash=BlockHash(b"x" * 32)), id="genesis"),
        pytest.param(replace(identity(), service_manager=Address(b"x" * 20)), id="contract"),
        pytest.param(replace(identity(), deployment_hash=BlockHash(b"x" * 32)), id="deployment"),
    ],
)
def test_identities_that_differ_read_differently(other: object) -> None:
    assert identity_text(other) != identity_text(identity())  # type: ignore[arg-type] # pytest


def test_a_recreated_chain_is_found_under_the_same_keys() -> None:
    assert Keys.of(identity(deployment=1)) == Keys.of(identity(deployment=2))
    assert Keys.of(identity(chain_id=1)) != Keys.of(identity(chain_id=2))


def test_every_key_is_in_one_slot() -> None:
    keys = Keys.of(identity())
    tag = keys.prefix[: keys.prefix.index(b"}") + 1]
    names = (keys.open, keys.outbox, keys.log, keys.batch(entry().batch_id))
    assert all(name.startswith(tag + b":") for name in names)
    assert len(set(names)) == len(names)


# What this release writes. The next one must read all of it: change nothing here; what differs
# needs a format of its own, and these stay as those of the release before.

ENTRY = "01" * 32 + "02" * 32 + "03" * 64
ROW = (
    b"h" * 32 + b'{"sender":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","nonce":3,"attempt":1,'
    b'"kind":"answer","batch":"0101010101010101010101010101010101010101010101010101010101010101",'
    b'"created":[100,"0404040404040404040404040404040404040404040404040404040404040404"],'
    b'"raw":"02f8","gas":250000,"max_fee":1180591620717411303424,"max_priority_fee":1000000000,'
    b'"term":9}'
)
CANCEL = (
    b"c" * 32 + b'{"sender":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","nonce":4,"attempt":0,'
    b'"kind":"cancel","batch":null,"created":null,"raw":"02","gas":21000,"max_fee":2,'
    b'"max_priority_fee":1,"term":9}'
)
ROW_KEY = "aa" * 20 + "0000000000000003" + "00000001"
AN_ENTRY = Entry(BatchId(b"\1" * 32), OperatorId(b"\2" * 32), Signature(b"\3" * 64))
AN_ANSWER = OutboxRow(
    sender=Address(b"\xaa" * 20),
    nonce=3,
    attempt=1,
    kind=Kind.ANSWER,
    batch_id=BatchId(b"\1" * 32),
    created=BlockRef(100, BlockHash(b"\4" * 32)),
    raw=b"\x02\xf8",
    hash=TransactionHash(b"h" * 32),
    gas=250_000,
    max_fee=Wei(2**70),
    max_priority_fee=Wei(10**9),
    term=Term(9),
)
A_CANCEL = replace(
    AN_ANSWER,
    nonce=4,
    attempt=0,
    kind=Kind.CANCEL,
    batch_id=None,
    created=None,
    raw=b"\x02",
    hash=TransactionHash(b"c" * 32),
    gas=21_000,
    max_fee=Wei(2),
    max_priority_fee=Wei(1),
)


def test_what_format_1_wrote_is_read() -> None:
    assert unpack_entries(bytes.fromhex(ENTRY)) == (AN_ENTRY,)
    assert unpack_row(ROW) == AN_ANSWER
    assert unpack_row(CANCEL) == A_CANCEL
    assert unpack_row_key(bytes.fromhex(ROW_KEY)) == row_key(AN_ANSWER)
    assert unpack_fence(b"7", b"pod-0.12ab34cd") == Fence(Term(7), "pod-0.12ab34cd")
    assert unpack_news({b"by": b"x", b"entries": bytes.fromhex(ENTRY)}) == News(entries=(AN_ENTRY,))
    assert unpack_news({b"by": b"x", b"row": ROW}) == News(rows=(AN_ANSWER,))
    assert unpack_news({b"by": b"x", b"dropped": bytes.fromhex(ROW_KEY)}) == News(
        dropped=(row_key(AN_ANSWER),)
    )
    assert unpack_news({b"by": b"x", b"evicted": bytes.fromhex(ENTRY)}) == News(evicted=(AN_ENTRY,))
    assert unpack_news({b"by": b"x", b"fence": b"7 pod-0.1"}) == News(
        fence=Fence(Term(7), "pod-0.1")
    )


def test_format_1_is_written_as_it_was() -> None:
    assert FORMAT == 1
    assert pack_entries([AN_ENTRY]).hex() == ENTRY
    assert (pack_row(AN_ANSWER), pack_row(A_CANCEL)) == (ROW, CANCEL)
    assert pack_row_key(row_key(AN_ANSWER)).hex() == ROW_KEY
    assert Keys.of(identity()).prefix == b"{aligned:1:" + b"73" * 20 + b"}:"
    assert identity_text(identity()) == (
        b"chain 1, genesis 0x" + b"67" * 32 + b", service manager 0x" + b"73" * 20
        + b", deployment block 0x" + b"00" * 31 + b"01"
    )  # fmt: skip
