"""The aggregator process with a network, a batcher and operators around it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aggregator.journal import opening, reading
from aggregator.journal.reading import Loaded
from aligned.model import BatchId, OperatorId
from devnet import files
from devnet.anvil import Anvil
from devnet.batcher import Batcher, Posted
from devnet.daemon import Daemon
from devnet.network import Network, hexed
from devnet.operator import Delivery, Fleet, Operator, Retries, Seen

RETRIES = Retries(attempts=300, pause_seconds=0.5)
"""As a Go operator's, with the pauses a twentieth as long and patience for slow machines."""

SECONDS = 90.0
"""Patience for anything that must come about."""

Status = dict[str, Any]
Overrides = Mapping[str, Mapping[str, object]]

AT_ONCE: Overrides = {"aggregation": {"window": "0s"}}
"""Answer as soon as there is a quorum."""

NEVER: Overrides = {"aggregation": {"window": "1h"}}
"""Answer when all have signed, and for the length of a test not before."""

UNHURRIED: Overrides = {"submission": {"resubmit_after": "1h"}}
"""Replace no transaction for being late."""

_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port that nobody listens on, outside the range the kernel gives away.

    A client that dials a port of that range while the aggregator is down may be given the same
    one as its own, and is connected to itself.
    """
    ceiling = int(_PORTS.read_text().split()[0]) if _PORTS.exists() else 32768
    while True:
        port = random.randrange(min(10_000, ceiling - 1000), ceiling)  # noqa: S311  # no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
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


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount two megabytes of memory, over what ``folder`` holds."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(folder: Path) -> Callable[[], None]:
    """Leave no byte on the disk of ``folder``; return what makes room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    return ballast.unlink


@asynccontextmanager
async def mining(anvil: Anvil, base_fee: int | None = None) -> AsyncIterator[None]:
    """Mine a block now and then, as a chain does; with this base fee, if one is given."""

    async def mine() -> None:
        while True:
            if base_fee is not None:
                await anvil.set_base_fee(base_fee)
            await anvil.mine()
            await asyncio.sleep(0.3)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(mine())
        yield
        task.cancel()


async def pooled(anvil: Anvil, *, other_than: str = "") -> str:
    """Wait until the pool has one transaction, and not that one; return its hash."""
    async with asyncio.timeout(SECONDS):
        while True:
            hashes = [str(transaction["hash"]) for transaction in await anvil.pool()]
            if len(hashes) == 1 and hashes[0] != other_than:
                return hashes[0]
            await asyncio.sleep(0.02)


def seen(batch: Posted) -> Seen:
    """Return ``batch`` as operators see it."""
    return Seen(batch.merkle_root, batch.sender)


@dataclass
class World:
    """Everything a story needs."""

    network: Network
    batcher: Batcher
    fleet: Fleet
    daemon: Daemon
    files: files.Files
    telemetry: str
    journal: Path

    @property
    def address(self) -> tuple[str, int]:
        """Where operators connect."""
        client = self.fleet.operators[0].client
        return client.host, client.port

    async def start(self) -> None:
        """Start the aggregator and wait until it is ready."""
        self.daemon.start()
        await self.daemon.ready()

    async def restart(self) -> None:
        """Kill the aggregator and start it again."""
        self.daemon.kill()
        await self.start()

    async def refuses_to_start(self) -> str:
        """Start the aggregator and see it end; return why, as it says."""
        before = len(self.lines())
        self.daemon.start()
        assert await self.daemon.ended() == 1
        (line,) = [each for each in self.lines()[before:] if each["level"] == "critical"]
        assert line["event"] == "the aggregator stops"
        return str(line["why"])

    # Operators.

    def online(self, count: int) -> None:
        """Let the first ``count`` operators answer batches, and the others be down."""
        for index, operator in enumerate(self.fleet.operators):
            operator.online = index < count

    def operator(self, index: int) -> Operator:
        return self.fleet.operators[index]

    async def sign(self, batch: Posted, *who: int) -> list[Delivery]:
        """Let these operators sign, and wait until each is done with it; all if none is named."""
        chosen = who or range(len(self.fleet.operators))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.operator(i).answer(seen(batch))) for i in chosen]
        return [task.result() for task in tasks]

    async def acknowledged(self, batch: Posted, count: int) -> None:
        """Wait until ``count`` operators hold an acknowledgement for ``batch``."""
        await eventually(
            lambda: len(self.fleet.book.acknowledged(batch.batch_id)) >= count,
            f"{count} acknowledgements; the daemon says:\n{self.daemon.tail()}",
        )

    async def signed(self, batch: Posted, *who: int) -> None:
        """Let these operators sign, and see that each got its acknowledgement."""
        deliveries = await self.sign(batch, *who)
        assert all(delivery.acknowledged for delivery in deliveries), self.daemon.tail()

    # What is promised.

    async def answered_once(self, *batches: Posted) -> str:
        """Wait until all are verified, each by one transaction; return the last one's hash."""
        answer = ""
        for batch in batches:
            try:
                async with asyncio.timeout(SECONDS):
                    # The state shows an answer a moment before the logs do.
                    while not (
                        (await self.network.batch(batch.batch_id)).responded
                        and await self.network.answers(batch.merkle_root, batch.sender)
                    ):
                        assert self.daemon.is_running, self.daemon.tail()
                        await asyncio.sleep(0.05)
            except TimeoutError as late:
                msg = f"batch not verified; the daemon says:\n{self.daemon.tail()}"
                raise AssertionError(msg) from late
            (answer,) = await self.network.answers(batch.merkle_root, batch.sender)
        return answer

    def loaded(self) -> Loaded:
        """Return what is in the journal; the daemon may be at work or not."""
        with opening.read_only(self.journal) as connection:
            return reading.load(connection)

    def kept(self) -> set[tuple[BatchId, OperatorId]]:
        """Return whose signatures on what are in the journal."""
        groups = self.loaded().entries.values()
        return {(each.batch_id, each.operator_id) for each in itertools.chain(*groups)}

    def promised(self) -> set[tuple[BatchId, OperatorId]]:
        """Return whose signatures on what were acknowledged."""
        return {
            (each.batch_id, each.operator_id)
            for each in self.fleet.book.deliveries
            if each.acknowledged
        }

    async def keeps_its_word(self) -> None:
        """See that nothing acknowledged is lost and nothing is answered twice.

        Nothing may be final yet: then signatures leave the journal.
        """
        assert self.promised() <= self.kept()
        answers = await self.network.all_answers()
        assert {batch.hex(): len(each) for batch, each in answers.items() if len(each) != 1} == {}

    # What it says.

    def lines(self) -> list[dict[str, Any]]:
        """Return the log of all starts; what is no log line is left out."""
        lines = self.daemon.log_text().splitlines() if self.daemon.starts else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    async def told(self, words: str, since: int = 0) -> dict[str, Any]:
        """Wait for a log line with ``words``, after the first ``since``; return it."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found.extend(line for line in self.lines()[since:] if words in line["event"])
            return bool(found)

        await eventually(is_there, f"a log line with {words!r}; it says:\n{self.daemon.tail()}")
        return found[0]

    async def shows(self, holds: Callable[[Status], bool], what: str) -> Status:
        """Wait until ``/status`` is as it should be; return it."""
        status: Status = {}
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        status = await self.daemon.status()
                    except (aiohttp.ClientError, TimeoutError):
                        status = {}
                    if status and holds(status):
                        return status
                    await asyncio.sleep(0.05)
        except TimeoutError as late:
            msg = f"{what}; it shows:\n{json.dumps(status, indent=1)}\n{self.daemon.tail()}"
            raise AssertionError(msg) from late

    async def holds(self, batch: Posted, signatures: int, **facts: object) -> None:
        """Wait until ``/status`` lists ``batch`` with so many signatures and these facts."""
        wanted = {"batch": hexed(batch.batch_id), "signatures": signatures, **facts}

        def is_listed(status: Status) -> bool:
            listed = status["batches"]["unresolved"]
            return any(wanted.items() <= each.items() for each in listed)

        await self.shows(is_listed, f"{wanted} is not listed")

    async def parked(self, batch: Posted, reason: str) -> Status:
        """Wait until ``batch`` is shown as parked for ``reason``; return what is shown."""

        def entry(status: Status) -> list[Status]:
            wanted = (hexed(batch.batch_id), reason)
            return [
                each for each in status["parked"] if (each["batch_id"], each["reason"]) == wanted
            ]

        return entry(await self.shows(lambda s: bool(entry(s)), f"parked: {reason}"))[0]


def merged(*several: Overrides) -> dict[str, dict[str, object]]:
    """Return overrides of several; the last one wins."""
    result: dict[str, dict[str, object]] = {}
    for overrides in several:
        for section, values in overrides.items():
            result[section] = {**result.get(section, {}), **values}
    return result


@asynccontextmanager
async def world(
    network: Network,
    folder: Path,
    *,
    endpoints: Sequence[str] | None = None,
    overrides: Overrides | None = None,
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
            overrides=merged({"telemetry": {"log_format": "json"}}, overrides or {}),
        ),
    )
    places = (overrides or {}).get("journal", {})
    journal = Path(str(places.get("path", written.config.with_suffix(".db"))))
    batcher = Batcher(network)
    await batcher.deposit()
    fleet = Fleet(network, ("127.0.0.1", port), retries=RETRIES, poll_seconds=0.1)
    daemon = Daemon(written.config, telemetry=telemetry, log=folder / "daemon.log")
    async with daemon, asyncio.TaskGroup() as group:
        signing = group.create_task(fleet.run())
        await fleet.watching()
        yield World(network, batcher, fleet, daemon, written, telemetry, journal)
        signing.cancel()
