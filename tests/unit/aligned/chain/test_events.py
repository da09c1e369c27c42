from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from aligned.chain import abi, events
from aligned.chain.rpc import Undecodable
from aligned.model import Address, BlockHash, BlockRef, G1Point, G2Point, batch_id, operator_id

SENDER = b"\x5e" * 20
ROOT = b"\xaa" * 32
BLOCK = BlockRef(300, BlockHash(b"\xcc" * 32))
BATCH_TYPES = ("address", "uint32", "bytes", "uint256")


def entry(topics: list[bytes], data: bytes) -> dict[str, Any]:
    return {
        "address": "0x" + "11" * 20,
        "topics": ["0x" + topic.hex() for topic in topics],
        "data": "0x" + data.hex(),
        "blockNumber": hex(BLOCK.number),
        "blockHash": "0x" + BLOCK.hash.hex(),
        "logIndex": "0x2",
    }


def log(topics: list[bytes], data: bytes) -> events.Log:
    return events.parse_log(entry(topics, data))


def test_a_batch_is_read_from_its_event() -> None:
    data = encode(BATCH_TYPES, (SENDER, 300, b"https://batch", 10**16))
    batch = events.new_batch(log([abi.NEW_BATCH_V3, ROOT], data))
    assert (batch.merkle_root, batch.sender, batch.created) == (ROOT, SENDER, BLOCK)
    assert (batch.batch_id, batch.fee_limit) == (batch_id(ROOT, Address(SENDER)), 10**16)


def test_a_pointer_that_is_no_text_does_no_harm() -> None:
    data = encode(BATCH_TYPES, (SENDER, 300, b"\xff\xfe\x80", 1))
    assert events.new_batch(log([abi.NEW_BATCH_V3, ROOT], data)).fee_limit == 1


def test_an_answer_is_read_from_its_event() -> None:
    answered = events.batch_verified(
        log([abi.BATCH_VERIFIED, ROOT], encode(("address",), (SENDER,)))
    )
    assert answered == (batch_id(ROOT, Address(SENDER)), BLOCK)


def test_a_registration_swaps_the_words_of_g2() -> None:
    words = [bytes([n]) * 32 for n in range(1, 7)]
    topics = [abi.NEW_PUBKEY_REGISTRATION, bytes(12) + b"\x77" * 20]
    operator = events.new_operator(log(topics, b"".join(words)))
    assert operator.address == b"\x77" * 20
    assert operator.g1 == G1Point(words[0] + words[1])
    assert operator.operator_id == operator_id(operator.g1)
    # the event has imaginary parts first
    assert operator.g2 == G2Point(words[3] + words[2] + words[5] + words[4])


@pytest.mark.parametrize(
    "change",
    [
        {"blockHash": None},
        {"blockNumber": None},
        {"data": "0xabc"},
        {"topics": [5]},
        {"logIndex": "two"},
        {"address": "11"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_log_that_lacks_a_part_is_not_decoded(change: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        events.parse_log(entry([ROOT], b"") | change)


@pytest.mark.parametrize(
    ("parse", "topics", "data"),
    [
        (events.new_batch, [abi.NEW_BATCH_V3, ROOT], b"\x01" * 40),
        (events.new_batch, [abi.NEW_BATCH_V3], encode(BATCH_TYPES, (SENDER, 1, b"", 1))),
        (events.batch_verified, [abi.BATCH_VERIFIED, ROOT], b""),
        (events.new_operator, [abi.NEW_PUBKEY_REGISTRATION, ROOT], b"\x01" * 191),
        (events.new_operator, [abi.NEW_PUBKEY_REGISTRATION], b"\x01" * 192),
    ],
    ids=["batch data", "batch topics", "answer", "key data", "key topics"],
)
def test_an_event_of_another_form_is_not_decoded(
    parse: Any, topics: list[bytes], data: bytes
) -> None:
    with pytest.raises(Undecodable):
        parse(log(topics, data))
