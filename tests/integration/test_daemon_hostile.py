"""Hostile, broken and unlucky clients, beside honest load on the same process."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aligned.model import Response
from aligned.wire import messages
from aligned.wire.gob import Value
from aligned.wire.netrpc import Client
from devnet import misbehave
from devnet.go_client import Connection, ConnectionLost, SharedClient, ShutDown
from devnet.keys import OperatorKey, keys
from devnet.network import Network
from devnet.operator import Operator, Seen
from tests.integration.daemons import AT_ONCE, RETRIES, World, seen, world

STRANGERS = keys(8)[5:]
"""Registered nowhere; the network has the first four, and the fifth joins where it is wanted."""

CONNECT = Client().dial()


def stranger(here: World, key: OperatorKey) -> Operator:
    """Return an operator with its own connection, which the caller closes."""
    return Operator(key, SharedClient(*here.address), book=here.fleet.book, retries=RETRIES)


async def ask(here: World, value: Response | Value) -> tuple[int | None, str]:
    """Send one response on a new connection; return code and error, None and "" if it closed."""
    sent = messages.to_value(value) if isinstance(value, Response) else value
    connection = await Connection.dial(*here.address)
    try:
        reply = await connection.call(sent)
    except (ConnectionLost, ShutDown):
        return None, ""
    else:
        return reply.value, reply.error
    finally:
        connection.close()


async def over_and_over(here: World, make: Callable[[], Response | Value]) -> None:
    """Send what ``make`` returns on one connection, a new one whenever it is closed."""
    while True:
        connection = await Connection.dial(*here.address)
        try:
            while True:
                made = make()
                value = messages.to_value(made) if isinstance(made, Response) else made
                await connection.call(value)
                await asyncio.sleep(0.005)
        except (ConnectionLost, ShutDown):
            continue
        finally:
            connection.close()


@asynccontextmanager
async def dialled(here: World, count: int) -> AsyncIterator[list[socket.socket]]:
    """Hold plain connections."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.socket()
            one.setblocking(False)
            sockets.append(one)
            await loop.sock_connect(one, here.address)
        yield sockets
    finally:
        for one in sockets:
            one.close()


async def send_junk(here: World) -> None:
    loop = asyncio.get_running_loop()
    value = messages.to_value(invented(here, STRANGERS[1]))
    client = Client()
    begin = client.dial()
    _, unknown = client.call("Aggregator.Other", messages.SIGNED_TASK_RESPONSE, value)
    while True:
        async with dialled(here, 1) as (one,):
            with suppress(OSError):
                good = random.choice([b"", begin, begin + unknown])  # noqa: S311  # no secret
                await loop.sock_sendall(one, good)
                await loop.sock_sendall(one, secrets.token_bytes(200))
                await asyncio.sleep(0.01)


async def say_nothing(here: World) -> None:
    """Hold connections that are silent before the CONNECT, after it, and within a message."""
    loop = asyncio.get_running_loop()
    async with dialled(here, 60) as sockets:
        for number, one in enumerate(sockets):
            await loop.sock_sendall(one, [b"", CONNECT, CONNECT + b"\x40half"][number % 3])
            if number % 2:
                one.shutdown(socket.SHUT_WR)
        await asyncio.Event().wait()


async def be_slow(here: World) -> None:
    loop = asyncio.get_running_loop()
    async with dialled(here, 1) as (one,):
        for byte in CONNECT * 100:
            with suppress(OSError):
                await loop.sock_sendall(one, bytes([byte]))
            await asyncio.sleep(0.05)


async def get(here: World) -> None:
    while True:
        reader, writer = await asyncio.open_connection(*here.address)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: aggregator\r\n\r\n")
            assert b" 404 Not Found" in await reader.read()
        finally:
            writer.close()
        await asyncio.sleep(0.02)


def invented(here: World, key: OperatorKey) -> Response:
    return misbehave.honest(key, Seen(secrets.token_bytes(32), here.batcher.account))


async def test_honest_operators_are_served_beside_all_others(
    own_chain: Network, tmp_path: Path
) -> None:
    (mallory,) = keys(5)[4:]
    await own_chain.register([mallory], [1])
    async with world(own_chain, tmp_path, overrides=AT_ONCE) as here:
        here.operator(4).online = False
        await here.start()
        pid = here.daemon.pid
        roots = [secrets.token_bytes(32) for _ in range(5)]
        targets = [Seen(root, here.batcher.account) for root in roots]
        victim, second = own_chain.operators[:2]

        def aim() -> Seen:
            """Return a batch that is yet to come, under way or answered."""
            return random.choice(targets)  # noqa: S311  # no secret

        made: list[Callable[[], Response | Value]] = [
            lambda: misbehave.forged(victim.operator_id, aim()),
            lambda: misbehave.by_another_key(victim.operator_id, second, aim()),
            lambda: misbehave.of_another_batch(mallory, targets[0], targets[1]),
            lambda: misbehave.wrong_hash(mallory, aim()),
            lambda: misbehave.nil_signature(mallory, aim()),
            lambda: misbehave.nil_signature(mallory, aim(), inner=True),
            lambda: misbehave.bad_coordinates(mallory, aim(), "infinity"),
            lambda: misbehave.bad_coordinates(mallory, aim(), "off curve"),
            lambda: misbehave.bad_coordinates(mallory, aim(), "out of range"),
            lambda: misbehave.honest(STRANGERS[0], aim()),
            lambda: invented(here, mallory),
        ]
        works: list[Coroutine[object, object, None]] = [
            *(over_and_over(here, each) for each in made),
            *(work(here) for work in (send_junk, say_nothing, be_slow, get)),
        ]
        async with asyncio.TaskGroup() as group:
            attacks = [group.create_task(work) for work in works]
            batches = []
            for root in roots:
                batches.append(await here.batcher.post(root))
                await here.acknowledged(batches[-1], 4)
            await here.answered_once(*batches)
            await here.shows(
                lambda status: (
                    status["responses"]["over_quota"] > 0
                    and status["responses"]["unknown_operator"] > 0
                    and status["responses"]["refused"] > 20
                ),
                "hostile calls are counted",
            )
            for attack in attacks:
                attack.cancel()
        # the daemon is the same, and serves on
        assert here.daemon.pid == pid
        await here.answered_once(await here.batcher.post())
        await here.told("signature does not verify")
        assert [line for line in here.lines() if line["level"] in {"error", "critical"}] == []
        for batch in batches:
            assert here.fleet.book.refused(batch.batch_id) == set()
        assert await here.daemon.terminate() == 0
        await here.keeps_its_word()


async def test_junk_in_an_honest_name_before_beside_and_after_the_real_one_changes_nothing(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        victim = chain.operators[0].operator_id
        refused = (1, "")
        assert await ask(here, misbehave.forged(victim, seen(batch))) == refused
        async with asyncio.TaskGroup() as group:
            group.create_task(here.signed(batch, 0))
            beside = [
                group.create_task(ask(here, misbehave.forged(victim, seen(batch))))
                for _ in range(5)
            ]
        assert [task.result() for task in beside] == [refused] * 5
        assert await ask(here, misbehave.forged(victim, seen(batch))) == refused
        await here.holds(batch, 1)
        await here.signed(batch, 1, 2)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_colluders_whose_halves_only_fit_together_are_refused_each(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        first, second = chain.operators[:2]
        halves = misbehave.colluding(first, second, seen(batch))
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(here, half)) for half in (*halves, *halves)]
        assert [task.result() for task in asked] == [(1, "")] * 4
        await here.holds(batch, 0)
        await here.signed(batch)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_early_duplicate_and_late_signatures_are_acknowledged_and_kept_once(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        here.online(0)
        await here.start()
        root = secrets.token_bytes(32)
        early = misbehave.honest(chain.operators[0], Seen(root, here.batcher.account))
        assert await ask(here, early) == (0, "")
        batch = await here.batcher.post(root)
        async with asyncio.TaskGroup() as group:
            repeats = [group.create_task(ask(here, early)) for _ in range(3)]
            fresh = misbehave.honest(chain.operators[1], seen(batch))
            repeats += [group.create_task(ask(here, fresh)) for _ in range(3)]
        assert [task.result() for task in repeats] == [(0, "")] * 6
        await here.holds(batch, 2)
        await here.signed(batch, 2)
        await here.answered_once(batch)
        late = misbehave.honest(chain.operators[3], seen(batch))
        assert await ask(here, late) == (0, "")
        assert await ask(here, early) == (0, "")
        assert len(here.kept()) == 4
        await here.answered_once(batch)


async def test_an_operator_that_registered_one_block_ago_counts(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=AT_ONCE) as here:
        here.online(0)
        await here.start()
        (key,) = keys(5)[4:]
        newcomer = stranger(here, key)
        await own_chain.register([key], [400])
        batch = await here.batcher.post()
        delivery = await newcomer.answer(seen(batch))
        newcomer.close()
        assert delivery.acknowledged
        await here.signed(batch, 0, 1)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_an_operator_that_nobody_knows_is_told_to_try_again(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        code, error = await ask(here, misbehave.honest(STRANGERS[0], seen(batch)))
        assert code is None
        assert "not registered as of the latest block; retry" in error
        await here.holds(batch, 0)
