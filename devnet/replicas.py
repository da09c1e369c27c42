"""Several aggregators over one Redis, with what stands in front of them."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from aggregator.journal import opening, reading
from devnet import files
from devnet.balancer import Balancer
from devnet.daemon import Daemon, DaemonFailed
from devnet.redis_servers import MASTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from aligned.model import BatchId, OperatorId
    from devnet.network import Network

_LOOK_SECONDS = 0.02
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Replica:
    """One aggregator."""

    name: str
    daemon: Daemon
    address: tuple[str, int]
    """Where operators connect."""
    journal: Path

    def kept(self) -> set[tuple[BatchId, OperatorId]]:
        """Return whose signatures on what are in the journal; none before there is one."""
        if not self.journal.exists():
            return set()
        with opening.read_only(self.journal) as connection:
            groups = reading.load(connection).entries.values()
        return {(each.batch_id, each.operator_id) for group in groups for each in group}


class Replicas:
    """Configures as many as are wanted; they are started one by one or together.

    Resource handling: an async context manager; leaving it kills them.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        sentinels: Sequence[tuple[str, int]],
        count: int = 3,
        overrides: Mapping[str, Mapping[str, object]] | None = None,
        each: Sequence[Mapping[str, Mapping[str, object]]] = (),
    ) -> None:
        """Write the files.

        Args:
            network: What they serve.
            folder: For configurations, journals and logs.
            sentinels: Host and port of each.
            count: How many.
            overrides: Section -> key -> value, for all of them.
            each: The same for one after the other, over those for all.
        """
        self.all = [
            _replica(network, folder, index, sentinels, (overrides or {}, *each[index : index + 1]))
            for index in range(count)
        ]
        self.balancer = Balancer([replica.address for replica in self.all])
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for replica in self.all:
            await self._stack.enter_async_context(replica.daemon)
        await self._stack.enter_async_context(self.balancer)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def address(self) -> tuple[str, int]:
        """Where operators connect without knowing whom they get."""
        return self.balancer.address

    async def start(self) -> Replica:
        """Start all; return who leads.

        Raises:
            DaemonFailed: One does not get ready, or nobody leads.
        """
        for replica in self.all:
            replica.daemon.start()
        for replica in self.all:
            await replica.daemon.ready()
        return await self.leader()

    async def leader(
        self, *, other_than: Replica | None = None, after: int = 0, seconds: float = 60.0
    ) -> Replica:
        """Wait until one of the replicas leads; return it.

        Args:
            other_than: Not this one.
            after: In a later term than this.
            seconds: How long to wait.

        Raises:
            DaemonFailed: None does.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for replica in self.all:
                        if replica is other_than:
                            continue
                        role = await status(replica)
                        if role["leads"] and role["term"] > after:
                            return replica
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as late:
            tails = "\n".join(f"{one.name}: {one.daemon.tail()}" for one in self.all)
            msg = f"nobody leads after {seconds} s:\n{tails}"
            raise DaemonFailed(msg) from late


async def status(replica: Replica) -> dict[str, Any]:
    """Return the role that a replica shows; one that does not answer leads nobody."""
    if replica.daemon.is_running:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(1.0):
                role: dict[str, Any] = (await replica.daemon.status())["role"]
                return role
    return {"leads": False, "term": None, "holder": ""}


def _replica(
    network: Network,
    folder: Path,
    index: int,
    sentinels: Sequence[tuple[str, int]],
    several: Sequence[Mapping[str, Mapping[str, object]]],
) -> Replica:
    name = f"replica-{index}"
    port, telemetry = free_port(), f"127.0.0.1:{free_port()}"
    sections: dict[str, dict[str, object]] = {
        "redis": {
            "sentinels": [f"{host}:{sentinel}" for host, sentinel in sentinels],
            "master_name": MASTER,
        },
        "election": {"profile": "fast"},
    }
    for overrides in several:
        for section, values in overrides.items():
            sections[section] = {**sections.get(section, {}), **values}
    sections["election"]["replica"] = name
    written = files.write(
        folder / name,
        network.deployment,
        files.Options(
            endpoints=[network.anvil.url],
            listen=f"127.0.0.1:{port}",
            telemetry=telemetry,
            overrides=sections,
        ),
    )
    return Replica(
        name=name,
        daemon=Daemon(written.config, telemetry=telemetry, log=folder / f"{name}.log"),
        address=("127.0.0.1", port),
        journal=written.config.with_suffix(".db"),
    )


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
