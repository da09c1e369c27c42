from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from aligned.wire import messages
from aligned.wire.netrpc import Server
from devnet.batcher import Batcher, verified
from devnet.network import ETHER, OWNER
from devnet.operator import Fleet, Retries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aligned.model import Response
    from devnet.network import Network


class _Aggregator(asyncio.Protocol):
    """Answers 0 to everything and tells what it got."""

    def __init__(self, got: asyncio.Queue[Response]) -> None:
        self._got = got
        self._server = Server({messages.RESPOND})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._server.feed(data)
        while (call := self._server.next_call()) is not None:
            value = self._server.types.decode(*call.argument)
            self._got.put_nowait(messages.from_value(value))
            self._server.reply(call.method, call.seq, 0)
        self._transport.write(self._server.take_output())


@pytest.fixture
async def got() -> asyncio.Queue[Response]:
    return asyncio.Queue()


@pytest.fixture
async def address(got: asyncio.Queue[Response]) -> AsyncIterator[tuple[str, int]]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Aggregator(got), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


@asynccontextmanager
async def _running(fleet: Fleet) -> AsyncIterator[None]:
    await fleet.connect()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fleet.run())
        await fleet.watching()
        try:
            yield
        finally:
            task.cancel()


async def _take(got: asyncio.Queue[Response], count: int) -> list[Response]:
    async with asyncio.timeout(60):
        return [await got.get() for _ in range(count)]


async def test_every_operator_answers_a_batch_that_appears(
    chain: Network, address: tuple[str, int], got: asyncio.Queue[Response]
) -> None:
    fleet = Fleet(chain, address, poll_seconds=0.02)
    async with _running(fleet):
        batch = await Batcher(chain).post(value=ETHER)
        responses = await _take(got, 4)
    assert {response.operator_id for response in responses} == {
        key.operator_id for key in chain.operators
    }
    assert {response.batch_id for response in responses} == {batch.batch_id}


async def test_operators_that_are_offline_say_nothing(
    chain: Network, address: tuple[str, int], got: asyncio.Queue[Response]
) -> None:
    fleet = Fleet(chain, address, poll_seconds=0.02)
    fleet.operators[0].online = False
    async with _running(fleet):
        await Batcher(chain).post(value=ETHER)
        responses = await _take(got, 3)
    assert fleet.operators[0].key.operator_id not in {
        response.operator_id for response in responses
    }
    assert got.empty()


async def test_a_batch_of_a_reorganization_is_answered_too(
    own_chain: Network, address: tuple[str, int], got: asyncio.Queue[Response]
) -> None:
    fleet = Fleet(own_chain, address, keys=own_chain.operators[:1], poll_seconds=0.02)
    async with _running(fleet):
        await own_chain.anvil.mine(5)
        first = await Batcher(own_chain).post(value=ETHER)
        (one,) = await _take(got, 1)
        await own_chain.anvil.reorg(3)
        second = await Batcher(own_chain, account=OWNER).post(first.merkle_root, value=ETHER)
        (other,) = await _take(got, 1)
    assert (one.batch_id, other.batch_id) == (first.batch_id, second.batch_id)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


@pytest.fixture
def complaint() -> Iterator[asyncio.Event]:
    """Set when the operators could not read the chain."""
    heard, logger = _Heard(), logging.getLogger("devnet.operator")
    logger.addHandler(heard)
    logger.setLevel(logging.DEBUG)
    yield heard.event
    logger.removeHandler(heard)
    logger.setLevel(logging.NOTSET)


async def test_a_chain_that_goes_away_does_not_end_the_operators(
    own_chain: Network,
    address: tuple[str, int],
    got: asyncio.Queue[Response],
    complaint: asyncio.Event,
) -> None:
    fleet = Fleet(
        own_chain,
        address,
        keys=own_chain.operators[:1],
        retries=Retries(pause_seconds=0.0),
        poll_seconds=0.02,
    )
    async with _running(fleet):
        own_chain.anvil.stop()
        await complaint.wait()
        own_chain.anvil.start()
        batch = await Batcher(own_chain).post(value=ETHER)
        (response,) = await _take(got, 1)
    assert response.batch_id == batch.batch_id


async def test_waiting_for_a_batch_that_nobody_answers_ends(chain: Network) -> None:
    batch = await Batcher(chain).post(value=ETHER)
    with pytest.raises(TimeoutError):
        await verified(chain, batch, seconds=0.1)
