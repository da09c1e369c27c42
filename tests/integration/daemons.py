"""The aggregator process with a network, a batcher and operators around it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from devnet import files
from devnet.batcher import Batcher, Posted
from devnet.daemon import Daemon
from devnet.network import Network
from devnet.operator import Fleet, Retries

RETRIES = Retries(attempts=60, pause_seconds=0.5)
"""As a Go operator's, with the pauses a twentieth as long and patience for slow machines."""

SECONDS = 60.0
"""Patience for anything that must come about."""


def free_port() -> int:
    """Return a port that nobody listens on, outside the range the kernel gives away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until ``holds``."""
    try:
        async with asyncio.timeout(SECONDS):
            while not holds():  # noqa: ASYNC110  # other processes set no event
                await asyncio.sleep(0.02)
    except TimeoutError as late:
        msg = f"not within {SECONDS} s: {what}"
        raise AssertionError(msg) from late


@dataclass
class World:
    """Everything a story needs."""

    network: Network
    batcher: Batcher
    fleet: Fleet
    daemon: Daemon
    files: files.Files

    async def acknowledged(self, batch: Posted, count: int) -> None:
        """Wait until ``count`` operators hold an acknowledgement for ``batch``."""
        await eventually(
            lambda: len(self.fleet.book.acknowledged(batch.batch_id)) >= count,
            f"{count} acknowledgements; the daemon says:\n{self.daemon.tail()}",
        )

    async def answered_once(self, batch: Posted) -> None:
        """Wait until ``batch`` is verified, and see that one transaction did it."""
        try:
            async with asyncio.timeout(SECONDS):
                while not (await self.network.batch(batch.batch_id)).responded:
                    await asyncio.sleep(0.05)
        except TimeoutError as late:
            msg = f"batch not verified; the daemon says:\n{self.daemon.tail()}"
            raise AssertionError(msg) from late
        answers = await self.network.answers(batch.merkle_root, batch.sender)
        assert len(answers) == 1

    def online(self, count: int) -> None:
        """Let the first ``count`` operators answer batches, and the others be down."""
        for index, operator in enumerate(self.fleet.operators):
            operator.online = index < count


@asynccontextmanager
async def world(
    network: Network,
    folder: Path,
    *,
    endpoints: Sequence[str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> AsyncIterator[World]:
    """Configure an aggregator for ``network`` in ``folder``; it is not started yet.

    The operators answer batches from the first moment on.
    """
    port, telemetry = free_port(), f"127.0.0.1:{free_port()}"
    written = files.write(
        folder,
        network.deployment,
        files.Options(
            endpoints=endpoints or [network.anvil.url],
            listen=f"127.0.0.1:{port}",
            telemetry=telemetry,
            overrides=overrides or {},
        ),
    )
    batcher = Batcher(network)
    await batcher.deposit()
    fleet = Fleet(network, ("127.0.0.1", port), retries=RETRIES, poll_seconds=0.1)
    daemon = Daemon(written.config, telemetry=telemetry, log=folder / "daemon.log")
    async with daemon, asyncio.TaskGroup() as group:
        signing = group.create_task(fleet.run())
        yield World(network, batcher, fleet, daemon, written)
        signing.cancel()
