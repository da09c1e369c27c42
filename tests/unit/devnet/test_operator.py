from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import pytest

from aligned.bls.curve import sum_g1
from aligned.model import Address, G1Point, OperatorId, Response
from aligned.wire.messages import BadResponse, Reason
from devnet import misbehave
from devnet.go_client import RECONNECTED, SharedClient
from devnet.keys import keys
from devnet.operator import Delivery, Operator, Retries, Seen

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

_SEEN = Seen(b"\x07" * 32, Address(b"\x08" * 20))
_OTHER = Seen(b"\x09" * 32, Address(b"\x08" * 20))


class Aggregator(Protocol):
    script: deque[str]
    got: list[Response | BadResponse]
    dials: int
    port: int

    async def start(self) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture
def operator(aggregator: Aggregator) -> Iterator[Operator]:
    client = SharedClient("127.0.0.1", aggregator.port)
    made = Operator(keys(2)[0], client, retries=Retries(pause_seconds=0.0))
    yield made
    made.close()


def _outcomes(delivery: Delivery) -> list[str]:
    return [
        str(attempt.code) if attempt.code is not None else attempt.problem.partition(":")[0]
        for attempt in delivery.attempts
    ]


async def test_the_response_arrives_as_signed(aggregator: Aggregator, operator: Operator) -> None:
    await operator.client.connect()
    delivery = await operator.answer(_SEEN)
    assert aggregator.got == [misbehave.honest(operator.key, _SEEN)]
    assert (delivery.acknowledged, delivery.given_up) == (True, False)
    assert operator.book.acknowledged(_SEEN.batch_id) == {operator.key.operator_id}


@pytest.mark.parametrize(
    ("script", "outcomes"),
    [
        pytest.param(["0"], ["0"], id="accepted"),
        pytest.param(["1"], ["1"], id="any reply counts as success"),
        pytest.param(["error", "0"], ["not now", "0"], id="an error leaves the connection"),
        pytest.param(
            ["close", "0"],
            ["connection lost", RECONNECTED, "0"],
            id="a reconnection takes an attempt",
        ),
        pytest.param(
            ["half", "0"], ["connection lost", RECONNECTED, "0"], id="half a reply is none"
        ),
    ],
)
async def test_an_operator_tries_again_as_the_go_operator_does(
    aggregator: Aggregator, operator: Operator, script: list[str], outcomes: list[str]
) -> None:
    aggregator.script.extend(script)
    await operator.client.connect()
    assert _outcomes(await operator.answer(_SEEN)) == outcomes


async def test_ten_errors_and_the_response_is_forgotten(
    aggregator: Aggregator, operator: Operator
) -> None:
    aggregator.script.extend(["error"] * 10)
    await operator.client.connect()
    delivery = await operator.answer(_SEEN)
    assert _outcomes(delivery) == ["not now"] * 10
    assert operator.book.given_up(_SEEN.batch_id) == {operator.key.operator_id}


async def test_an_outage_takes_attempts_until_it_ends(
    aggregator: Aggregator, operator: Operator
) -> None:
    aggregator.script.append("leave")
    await operator.client.connect()
    delivery = await operator.answer(_SEEN)
    assert _outcomes(delivery) == ["connection lost"] + ["cannot connect"] * 9
    assert delivery.given_up
    await aggregator.start()
    assert _outcomes(await operator.answer(_SEEN)) == [RECONNECTED, "0"]


async def test_a_reply_of_1_is_not_an_acknowledgement(
    aggregator: Aggregator, operator: Operator
) -> None:
    aggregator.script.append("1")
    await operator.client.connect()
    await operator.answer(_SEEN)
    assert operator.book.acknowledged(_SEEN.batch_id) == set()
    assert operator.book.refused(_SEEN.batch_id) == {operator.key.operator_id}


async def test_batches_share_the_connection_and_do_not_wait_for_each_other(
    aggregator: Aggregator, operator: Operator
) -> None:
    aggregator.script.extend(["silence", "0"])
    await operator.client.connect()
    async with asyncio.TaskGroup() as group:
        stuck = group.create_task(operator.answer(_SEEN))
        await asyncio.sleep(0)
        delivery = await operator.answer(_OTHER)
        assert (delivery.acknowledged, stuck.done(), aggregator.dials) == (True, False, 1)
        operator.client.abort()
        assert _outcomes(await stuck) == ["connection lost", RECONNECTED, "0"]


async def test_an_operator_that_starts_while_nobody_listens_fails(
    aggregator: Aggregator, operator: Operator
) -> None:
    aggregator.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await operator.client.connect()


async def test_a_server_that_is_no_aggregator_is_refused() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        client = SharedClient("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(OSError, match="unexpected HTTP response"):
            await client.connect()
        client.close()


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        pytest.param("infinity", Reason.INFINITY, id="infinity"),
        pytest.param("off curve", Reason.OFF_CURVE, id="off curve"),
        pytest.param("out of range", Reason.OUT_OF_RANGE, id="out of range"),
        pytest.param("outer", Reason.NIL_SIGNATURE, id="nil"),
        pytest.param("inner", Reason.NIL_SIGNATURE, id="nil inside"),
    ],
)
async def test_a_message_is_wrong_in_the_way_it_says(
    aggregator: Aggregator, operator: Operator, which: str, reason: Reason
) -> None:
    await operator.client.connect()
    if which in {"outer", "inner"}:
        value = misbehave.nil_signature(operator.key, _SEEN, inner=which == "inner")
    else:
        value = misbehave.bad_coordinates(operator.key, _SEEN, which)
    await operator.deliver(misbehave.honest(operator.key, _SEEN), value)
    (refused,) = aggregator.got
    assert isinstance(refused, BadResponse)
    assert refused.reason is reason


def test_colluding_halves_are_wrong_alone_and_right_together() -> None:
    first, second = keys(2)
    halves = misbehave.colluding(first, second, _SEEN)
    true = [misbehave.honest(key, _SEEN) for key in (first, second)]
    assert [half.operator_id for half in halves] == [one.operator_id for one in true]
    assert all(half.signature != one.signature for half, one in zip(halves, true, strict=True))
    assert _sum(halves) == _sum(true)


def _sum(responses: list[Response] | tuple[Response, ...]) -> G1Point:
    return sum_g1(G1Point(response.signature) for response in responses)


def test_wrong_responses_differ_from_the_true_one_in_the_signature_or_the_hash() -> None:
    first, second = keys(2)
    true = misbehave.honest(first, _SEEN)
    stranger = OperatorId(b"\x01" * 32)
    assert misbehave.forged(stranger, _SEEN).operator_id == stranger
    assert misbehave.forged(first.operator_id, _SEEN).signature != true.signature
    other = misbehave.by_another_key(first.operator_id, second, _SEEN)
    assert other == true._replace(signature=second.sign(_SEEN.batch_id))
    swapped = misbehave.of_another_batch(first, _SEEN, _OTHER)
    assert swapped == true._replace(signature=first.sign(_OTHER.batch_id))
    wrong = misbehave.wrong_hash(first, _SEEN)
    assert wrong.batch_id != true.batch_id
    assert wrong.signature == first.sign(wrong.batch_id)
