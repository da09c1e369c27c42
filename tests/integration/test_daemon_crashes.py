"""The process dies, stands still or is told to stop, at every point of a batch's life."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aligned.model import OperatorId
from aligned.wire import messages
from devnet.go_client import Connection, ConnectionLost, ShutDown
from devnet.network import Network, hexed
from devnet.operator import Seen
from devnet.proxy import Proxy
from tests.integration.daemons import (
    AT_ONCE,
    NEVER,
    SECONDS,
    UNHURRIED,
    eventually,
    merged,
    pooled,
    world,
)

UNKNOWN = OperatorId(b"?" * 32)


@pytest.fixture
async def proxy(chain: Network) -> AsyncIterator[Proxy]:
    async with Proxy(chain.anvil.url) as running:
        yield running


async def test_killed_before_the_quorum_it_needs_what_it_had(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        await here.signed(batch, 0, 1)
        await here.restart()
        await here.holds(batch, 2)
        await here.signed(batch, 2)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_killed_within_the_window_it_goes_on_with_the_quorum(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=NEVER) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        await here.signed(batch, 0, 1, 2)
        await here.holds(batch, 3, quorum=True)
        await here.restart()
        await here.holds(batch, 3, quorum=True)
        assert here.loaded().outbox == []
        await here.signed(batch, 3)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_killed_between_recording_and_broadcasting_the_same_bytes_are_sent(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=UNHURRIED) as here:
        await here.start()
        proxy.faults.hanging.add("eth_sendRawTransaction")
        batch = await here.batcher.post()
        await proxy.held()
        here.daemon.kill()
        assert await chain.anvil.pool() == []
        (row,) = here.loaded().outbox
        proxy.faults.hanging.clear()
        await here.start()
        assert await here.answered_once(batch) == hexed(row.hash)
        assert [each.raw for each in here.loaded().outbox] == [row.raw]
        await here.acknowledged(batch, 4)
        await here.keeps_its_word()


async def test_killed_between_broadcasting_and_the_receipt_it_sends_nothing_else(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=UNHURRIED) as here:
        await here.start()
        await chain.anvil.automine(on=False)
        batch = await here.batcher.post()
        waiting = await pooled(chain.anvil)
        before = len(here.lines())
        await here.restart()
        await here.told("answers are sent", since=before)
        assert await pooled(chain.anvil) == waiting
        await chain.anvil.mine()
        assert await here.answered_once(batch) == waiting
        assert [hexed(row.hash) for row in here.loaded().outbox] == [waiting]
        await here.acknowledged(batch, 4)
        await here.keeps_its_word()


async def test_killed_again_and_again_it_answers_every_batch_once(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        batches = []
        for _ in range(5):
            here.daemon.start()
            batches.append(await here.batcher.post())
            # a start takes about a second: before it is ready, and well after
            await asyncio.sleep(random.uniform(0.5, 2.0))  # noqa: S311  # no secret
            here.daemon.kill()
        await here.start()
        await here.answered_once(*batches)
        for batch in batches:
            await here.acknowledged(batch, 4)
        await here.keeps_its_word()


async def test_batches_posted_while_it_was_down_are_answered_however_old(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        await here.start()
        here.online(0)
        oldest = await here.batcher.post()
        here.online(4)
        await here.answered_once(await here.batcher.post())
        here.daemon.kill()
        missed = [await here.batcher.post() for _ in range(3)]
        await chain.anvil.mine(5)
        await here.start()
        await here.signed(oldest)
        await here.answered_once(oldest, *missed)
        await here.keeps_its_word()


async def test_stopped_for_five_seconds_with_a_call_in_flight_it_loses_nothing(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        await here.start()
        first = await here.batcher.post()
        await here.answered_once(first)
        await here.acknowledged(first, 4)  # all connections stand
        here.daemon.signal(signal.SIGSTOP)
        batches = [await here.batcher.post() for _ in range(3)]
        await eventually(lambda: len(here.fleet.book.deliveries) == 16, "calls in flight")
        await asyncio.sleep(5)
        here.daemon.signal(signal.SIGCONT)
        await here.answered_once(*batches)
        for batch in batches:
            await here.acknowledged(batch, 4)
        assert all(len(each.attempts) <= 2 for each in here.fleet.book.deliveries[4:])
        assert here.daemon.starts == 1
        await here.keeps_its_word()


async def test_told_to_stop_it_answers_or_closes_every_call_in_flight(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path) as here:
        await here.start()
        key, sender = chain.operators[0], here.batcher.account
        calls = [here.operator(0).response(Seen(bytes([n]) * 32, sender)) for n in range(200)]
        connections = [await Connection.dial(*here.address) for _ in range(4)]
        replied: set[bytes] = set()
        closed = 0

        async def call(number: int) -> None:
            nonlocal closed
            response = calls[number]
            try:
                reply = await connections[number % 4].call(messages.to_value(response))
            except (ConnectionLost, ShutDown):
                closed += 1
            else:
                assert (reply.value, reply.error) == (0, "")
                replied.add(response.batch_id)

        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(call(number))
            await eventually(lambda: len(replied) > 0, "a reply")
            assert await here.daemon.terminate() == 0
        assert len(replied) + closed == 200
        assert {(batch_id, key.operator_id) for batch_id in replied} <= here.kept()
        assert here.lines()[-1]["event"] == "stopped"


async def test_told_to_stop_it_closes_a_call_that_waits_for_the_chain(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    overrides = {"listen": {"drain_timeout": "500ms"}}
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=overrides) as here:
        await here.start()
        proxy.faults.hang = True
        response = here.operator(0).response(Seen(bytes(32), here.batcher.account))
        held = messages.to_value(response._replace(operator_id=UNKNOWN))
        connection = await Connection.dial(*here.address)

        async def call() -> None:
            with pytest.raises(ConnectionLost):
                await connection.call(held)

        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            group.create_task(call())
            await here.shows(lambda status: status["responses"]["held"] == 1, "held")
            assert await here.daemon.terminate() == 0


async def test_started_while_the_chain_is_away_it_takes_signatures_and_answers_later(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    overrides = merged(AT_ONCE, {"chain": {"request_timeout": "500ms"}})
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=overrides) as here:
        here.online(0)
        await here.start()
        await eventually(lambda: bool(here.loaded().operators), "it journals who the operators are")
        here.daemon.kill()
        await proxy.refuse()
        batch = await here.batcher.post()
        await here.start()
        line = await here.told("chain away at the start")
        assert "devnet-0" in line["reason"]
        await here.signed(batch)
        await here.holds(batch, 4)
        await proxy.accept()
        await here.answered_once(batch)
        await here.told("the chain confirms the journal's deployment")
        await here.keeps_its_word()


async def test_started_for_the_first_time_while_the_chain_is_away_it_waits(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    async with world(chain, tmp_path, endpoints=[proxy.url]) as here:
        await proxy.refuse()
        here.daemon.start()
        line = await here.told("chain away at the first start: waiting for an endpoint")
        assert line["level"] == "warning"
        assert await here.daemon.terminate() == 0
        before = len(here.lines())
        here.daemon.start()
        await here.told("chain away at the first start", since=before)
        await proxy.accept()
        await here.daemon.ready()
        await here.answered_once(await here.batcher.post())
