"""Who plays the aggregator in the demo: one process, or several with a leader."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from devnet import files, redis_servers
from devnet.daemon import Daemon
from devnet.replicas import Replica, Replicas, free_port, status
from devnet.sentinel import SentinelGroup

if TYPE_CHECKING:
    from types import TracebackType

    from aligned.model import BatchId, OperatorId
    from devnet.network import Network

DOWN_SECONDS = 0.7
"""Between a kill and the next start, as a supervisor would leave."""

LEADS, RUNS, STANDS_BY, KILLED, STARTS = "leads", "running", "stands by", "KILLED", "starting"

_WINDOW = {"aggregation": {"window": "500ms"}}


class Cast(Protocol):
    """The aggregator, however many processes it is."""

    states: dict[str, str]
    """What each process is now, by name; after ``look``."""

    @property
    def address(self) -> tuple[str, int]:
        """Where operators connect."""

    async def start(self) -> None:
        """Start, and return when answers can be sent."""

    async def look(self) -> None:
        """Bring ``states`` up to date."""

    def kill(self) -> str:
        """Kill the process that answers; return its name."""

    async def recovered(self) -> str:
        """Return when answers can be sent again, with who sends them."""

    async def mend(self) -> None:
        """Bring back what was killed, if it is not back already."""

    async def stop(self) -> None:
        """Stop in order."""

    def kept(self) -> set[tuple[BatchId, OperatorId]]:
        """Return whose signatures on what are on disk."""


class Single:
    """One process; a supervisor starts it again."""

    def __init__(self, network: Network, folder: Path) -> None:
        port, telemetry = free_port(), f"127.0.0.1:{free_port()}"
        self._written = files.write(
            folder,
            network.deployment,
            files.Options(
                endpoints=[network.anvil.url],
                listen=f"127.0.0.1:{port}",
                telemetry=telemetry,
                overrides=_WINDOW,
            ),
        )
        self._daemon = Daemon(
            self._written.config, telemetry=telemetry, log=folder / "aggregator.log"
        )
        self._replica = Replica(
            name="aggregator",
            daemon=self._daemon,
            address=("127.0.0.1", port),
            journal=self._written.config.with_suffix(".db"),
        )
        self.states = {"aggregator": STARTS}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._daemon.kill()

    @property
    def address(self) -> tuple[str, int]:
        return self._replica.address

    async def start(self) -> None:
        self.states = {"aggregator": STARTS}
        self._daemon.start()
        await self._daemon.ready()
        self.states = {"aggregator": f"{RUNS}, pid {self._daemon.pid}"}

    async def look(self) -> None:
        pass

    def kill(self) -> str:
        self._daemon.kill()
        self.states = {"aggregator": KILLED}
        return "the aggregator"

    async def recovered(self) -> str:
        await asyncio.sleep(DOWN_SECONDS)
        await self.start()
        return f"the aggregator, started again as pid {self._daemon.pid},"

    async def mend(self) -> None:
        pass

    async def stop(self) -> None:
        await self._daemon.terminate()

    def kept(self) -> set[tuple[BatchId, OperatorId]]:
        return self._replica.kept()


class Several:
    """Replicas over a group of Redis servers with Sentinels; the leader is the one killed."""

    def __init__(self, network: Network, folder: Path, count: int) -> None:
        self._network = network
        self._folder = folder
        self._count = count
        self._stack = AsyncExitStack()
        self._leader: Replica | None = None
        self._killed: Replica | None = None
        self._replicas: Replicas
        self.states: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        group = self._stack.enter_context(SentinelGroup())
        self._replicas = Replicas(
            self._network,
            self._folder,
            sentinels=group.sentinels,
            count=self._count,
            overrides=_WINDOW,
        )
        self.states = {replica.name: STARTS for replica in self._replicas.all}
        await self._stack.enter_async_context(self._replicas)
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
        return self._replicas.address

    async def start(self) -> None:
        self._leader = await self._replicas.start()
        await self.look()

    async def look(self) -> None:
        for replica in self._replicas.all:
            if not replica.daemon.is_running:
                self.states[replica.name] = KILLED
                continue
            role = await status(replica)
            shown = f"{LEADS}, term {role['term']}" if role["leads"] else STANDS_BY
            self.states[replica.name] = shown if "stopping" in role else STARTS

    def kill(self) -> str:
        """See ``Cast.kill``.

        Raises:
            RuntimeError: Nobody has led yet.
        """
        if self._leader is None:
            msg = "start comes first"
            raise RuntimeError(msg)
        self._killed = self._leader
        self._killed.daemon.kill()
        self.states[self._killed.name] = KILLED
        return f"the leader, {self._killed.name},"

    async def recovered(self) -> str:
        self._leader = await self._replicas.leader(other_than=self._killed)
        return self._leader.name

    async def mend(self) -> None:
        if self._killed is not None:
            self._killed.daemon.start()
            await self._killed.daemon.ready()
            self._killed = None

    async def stop(self) -> None:
        async with asyncio.TaskGroup() as stopping:
            for replica in self._replicas.all:
                if replica.daemon.is_running:
                    stopping.create_task(replica.daemon.terminate())

    def kept(self) -> set[tuple[BatchId, OperatorId]]:
        return set().union(*(replica.kept() for replica in self._replicas.all))


def has_servers() -> bool:
    """Tell whether there is a Redis or Valkey to share."""
    with tempfile.TemporaryDirectory(prefix="aligned-servers-") as folder:
        return (redis_servers.valkey(Path(folder)) or redis_servers.redis()) is not None
