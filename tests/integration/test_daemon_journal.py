"""The journal fills up, is damaged, belongs elsewhere; the process dies while it writes."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aligned.model import BatchId, OperatorId, Response
from aligned.wire import messages
from devnet.go_client import Connection, ConnectionLost, ShutDown
from devnet.network import Network
from devnet.operator import Seen
from tests.integration.daemons import (
    AT_ONCE,
    SECONDS,
    World,
    eventually,
    fill_up,
    merged,
    small_disk,
    world,
)

Promises = set[tuple[BatchId, OperatorId]]


class Load:
    """Responses of every operator to batches that are on no chain, several calls at once."""

    def __init__(self, here: World, dice: random.Random) -> None:
        self._here = here
        self._dice = dice
        self._calls = 0
        self.promised: Promises = set()

    def _response(self, index: int) -> Response:
        seen = Seen(self._dice.randbytes(32), self._here.batcher.account)
        return self._here.operator(index).response(seen)

    async def run(self) -> None:
        """Send 200 responses, or until the aggregator is gone."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._here.fleet.operators)):
                group.create_task(self._calling(index))

    async def reach(self, promises: int) -> None:
        """Wait until there are so many promises."""
        await eventually(lambda: len(self.promised) >= promises, f"{promises} promises")

    async def _calling(self, index: int) -> None:
        try:
            connection = await Connection.dial(*self._here.address)
        except OSError:
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(self._one_after_the_other(connection, index))

    async def _one_after_the_other(self, connection: Connection, index: int) -> None:
        for _ in range(10):
            response = self._response(index)
            try:
                reply = await connection.call(messages.to_value(response))
            except (ConnectionLost, ShutDown):
                return
            assert (reply.value, reply.error) == (0, "")
            self.promised.add((response.batch_id, response.operator_id))


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_under_load_it_has_everything_it_acknowledged(
    chain: Network, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311  # no secret
    async with world(chain, tmp_path) as here:
        load = Load(here, dice)
        for _ in range(3):
            await here.start()
            async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
                group.create_task(load.run())
                await load.reach(len(load.promised) + dice.randint(1, 150))
                here.daemon.kill()
            assert load.promised <= here.kept()
        await here.start()
        status = await here.daemon.status()
        assert status["batches"]["count"]["not_on_chain"] == len(here.kept())
        batch = await here.batcher.post()
        await here.answered_once(batch)


# Full.


def limit_file_size(here: World) -> Callable[[], None]:
    """Let no file of the process grow any more; the next start is free of it."""
    size = here.journal.with_name(here.journal.name + "-wal").stat().st_size
    resource.prlimit(here.daemon.pid, resource.RLIMIT_FSIZE, (size, size))
    return lambda: None


def fill_disk(here: World) -> Callable[[], None]:
    return fill_up(here.journal.parent)


async def fill(here: World, spoil: Callable[[World], Callable[[], None]]) -> None:
    """Let it meet a journal that cannot grow; then mend that and see that nothing was lost."""
    here.online(0)
    await here.start()
    batch = await here.batcher.post()
    await here.signed(batch, 0, 1)
    mend = spoil(here)
    load = Load(here, random.Random(7))  # noqa: S311  # no secret
    await load.run()
    assert await here.daemon.ended() == 1
    line = here.lines()[-1]
    assert (line["level"], line["event"]) == ("critical", "the aggregator stops")
    assert str(here.journal) in line["why"]
    assert "then start again" in line["why"]
    mend()
    assert load.promised | here.promised() <= here.kept()
    await here.start()
    await here.signed(batch, 2)
    await here.answered_once(batch)
    await here.keeps_its_word()


async def test_a_full_disk_ends_it_and_loses_nothing(chain: Network, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        overrides = merged(AT_ONCE, {"journal": {"path": str(disk / "aggregator.db")}})
        async with world(chain, tmp_path, overrides=overrides) as here:
            await fill(here, fill_disk)


async def test_started_on_a_full_disk_it_ends_and_has_everything_once_there_is_room(
    chain: Network, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        overrides = merged(AT_ONCE, {"journal": {"path": str(disk / "aggregator.db")}})
        async with world(chain, tmp_path, overrides=overrides) as here:
            here.online(0)
            await here.start()
            batch = await here.batcher.post()
            await here.signed(batch, 0, 1)
            assert await here.daemon.terminate() == 0
            mend = fill_disk(here)
            for _ in range(2):
                why = await here.refuses_to_start()
                assert "Make room" in why
                assert "Leave the file where it is" in why
            mend()
            await here.start()
            assert here.promised() <= here.kept()
            await here.signed(batch, 2)
            await here.answered_once(batch)


@pytest.mark.skipif(sys.platform != "linux", reason="no limit for another process")
async def test_a_journal_that_may_not_grow_ends_it_and_loses_nothing(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        await fill(here, limit_file_size)


# Damaged.


async def test_a_damaged_journal_is_not_used(chain: Network, tmp_path: Path) -> None:
    async with world(chain, tmp_path) as here:
        await here.start()
        await here.answered_once(await here.batcher.post())
        assert await here.daemon.terminate() == 0
        good = here.journal.read_bytes()
        with here.journal.open("r+b") as file:
            for page in range(1, len(good) // 4096):
                file.seek(page * 4096)
                file.write(os.urandom(64))
        why = await here.refuses_to_start()
        assert f"journal {here.journal}: damaged" in why
        assert "restore the newest export with `aggregator journal import`" in why
        here.journal.write_bytes(good)
        await here.start()
        await here.answered_once(await here.batcher.post())
