"""The event loop alone stands still: threads and sockets go on, timers and replies do not."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

from aggregator import app, configure
from devnet.batcher import Batcher
from devnet.files import Options, write
from devnet.network import Network
from devnet.operator import Fleet, Retries
from tests.integration.daemons import SECONDS, eventually, free_port

BLOCKED_SECONDS = 5.0


async def test_a_loop_blocked_for_five_seconds_loses_nothing(
    chain: Network, tmp_path: Path
) -> None:
    listen, telemetry = (f"127.0.0.1:{free_port()}" for _ in range(2))
    options = Options(endpoints=[chain.anvil.url], listen=listen, telemetry=telemetry)
    settings = configure.load(write(tmp_path, chain.deployment, options).config, {})
    host, _, port = listen.partition(":")
    fleet = Fleet(chain, (host, int(port)), retries=Retries(600, 0.2), poll_seconds=0.05)
    batcher = Batcher(chain)
    await batcher.deposit()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        serving = group.create_task(app.run(settings, {}))
        signing = group.create_task(fleet.run())
        await fleet.watching()
        first = await batcher.post()
        await eventually(lambda: bool(fleet.book.acknowledged(first.batch_id)), "it runs")
        second = await batcher.post()
        threading.Event().wait(BLOCKED_SECONDS)  # what this is about
        for batch in (first, second):
            while len(fleet.book.acknowledged(batch.batch_id)) < 4:  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.05)
            while not await chain.answers(batch.merkle_root, batch.sender):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        signing.cancel()
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    for batch in (first, second):
        assert len(await chain.answers(batch.merkle_root, batch.sender)) == 1
