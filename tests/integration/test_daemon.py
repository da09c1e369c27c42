"""The whole: from operators' signatures to verified batches."""

from __future__ import annotations

import signal
from pathlib import Path

from devnet.network import Network
from tests.integration.daemons import world


async def test_a_batch_is_verified(chain: Network, tmp_path: Path) -> None:
    async with world(chain, tmp_path) as here:
        here.daemon.start()
        await here.daemon.ready()
        batch = await here.batcher.post()
        await here.acknowledged(batch, 4)
        await here.answered_once(batch)


async def test_sigterm_ends_it_in_order(chain: Network, tmp_path: Path) -> None:
    async with world(chain, tmp_path) as here:
        here.daemon.start()
        await here.daemon.ready()
        assert await here.daemon.terminate() == 0


async def test_what_was_acknowledged_survives_a_kill(chain: Network, tmp_path: Path) -> None:
    async with world(chain, tmp_path) as here:
        here.online(2)
        here.daemon.start()
        await here.daemon.ready()
        batch = await here.batcher.post()
        await here.acknowledged(batch, 2)
        here.daemon.kill()
        here.daemon.start()
        await here.daemon.ready()
        status = await here.daemon.status()
        (unresolved,) = status["batches"]["unresolved"]
        assert unresolved["signatures"] == 2


async def test_a_pause_of_the_whole_process_loses_nothing(chain: Network, tmp_path: Path) -> None:
    async with world(chain, tmp_path) as here:
        here.daemon.start()
        await here.daemon.ready()
        here.daemon.signal(signal.SIGSTOP)
        batch = await here.batcher.post()
        here.daemon.signal(signal.SIGCONT)
        await here.answered_once(batch)
        await here.acknowledged(batch, 4)
