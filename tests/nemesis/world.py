"""What runs: a chain, Redis with Sentinels, three aggregators behind a balancer, wires to cut."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp

from devnet.anvil import Anvil
from devnet.daemon import DaemonFailed
from devnet.network import Network
from devnet.relay import Network as Wires
from devnet.replicas import Replica, Replicas, status
from devnet.sentinel import GroupFailed, SentinelGroup
from tests.nemesis.history import Exit, History
from tests.nemesis.judge import WINDOW_SECONDS
from tests.nemesis.plan import Options

SETTLE_SECONDS = 180.0
"""Patience until everything is well again. A Sentinel that was not scheduled for two seconds does
nothing for another thirty."""

DEMOTION_SECONDS = 15.0
"""How long Sentinels get to demote a former primary by themselves."""

START_SECONDS = 180.0
"""Patience with the first start."""

STOP_SECONDS = 60.0
"""Patience with a replica that is told to stop."""

REDIS = "redis"
"""What wires lead to."""

CHAIN = "chain"
_SEND = b"eth_sendRawTransaction"
_BLOCK_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_SETTLE_LOOK_SECONDS = 0.3
_STAKE = 100
_Result = TypeVar("_Result")


class Gate:
    """What of a replica's requests reaches the chain. Switched here, read by the wires' thread."""

    def __init__(self) -> None:
        self.refuses = False
        """Break every connection at its next request."""
        self.holds_sends = False
        """Keep transactions back."""
        self.caught = False
        """One was kept back."""

    def asked(self, data: bytes) -> bytes | None:
        """See ``devnet.relay.Network.relay``.

        Raises:
            ConnectionResetError: It does not pass.
        """
        if self.refuses:
            msg = "refused"
            raise ConnectionResetError(msg)
        if self.holds_sends and _SEND in data:
            self.caught = True
            return None
        return data


@dataclass
class World:
    """Everything there is, and what is meant to be down."""

    network: Network
    group: SentinelGroup
    replicas: Replicas
    gates: dict[str, Gate]
    """Between each replica, by name, and the chain."""
    wires: Wires
    """Between each replica and everything else."""
    hands: ThreadPoolExecutor
    """One thread for plain calls to ``group``, which may wait: processes must be started from a
    thread that lives on."""
    history: History
    down: set[str] = field(default_factory=set)
    """Replicas that are stopped or standing still on purpose."""

    async def redis(self, work: Callable[[], _Result]) -> _Result:
        """Do something with ``group`` without blocking the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.hands, work)

    def cut_off(self, replica: Replica, machine: str) -> None:
        """Cut a replica off from ``REDIS`` or ``CHAIN``: silence; one at a time."""
        self.wires.cut({replica.name}, {machine})

    def reconnect(self) -> None:
        self.wires.heal()

    async def begin(self) -> Replica:
        """Start all replicas; return who leads.

        Raises:
            DaemonFailed: One does not get ready, or nobody leads.
        """
        for replica in self.replicas.all:
            self.start(replica)
        for replica in self.replicas.all:
            await replica.daemon.ready(START_SECONDS)
        return await self.replicas.leader(seconds=START_SECONDS)

    async def leader(self) -> Replica | None:
        """Return who says that it leads; of several the one of the highest term."""
        roles = [
            (role["term"] or 0, index)
            for index, replica in enumerate(self.replicas.all)
            if replica.name not in self.down and (role := await status(replica))["leads"]
        ]
        return self.replicas.all[max(roles)[1]] if roles else None

    def start(self, replica: Replica) -> None:
        replica.daemon.start()
        self.down.discard(replica.name)

    async def guard(self) -> None:
        """Note processes that end by themselves, and start them again, until cancelled."""
        while True:
            for replica in self.replicas.all:
                if replica.name not in self.down and not replica.daemon.is_running:
                    ended = await replica.daemon.ended()
                    self.history.exits.append(Exit(replica.name, ended, time.time()))
                    self.start(replica)
            await asyncio.sleep(_LOOK_SECONDS)

    async def settled(self) -> str:
        """Wait until everything is well; return what is not if that takes too long."""
        began = time.monotonic()
        problem = "nothing was looked at"
        while time.monotonic() < began + SETTLE_SECONDS:
            if not (problem := await self._problem()):
                return ""
            if problem.startswith(REDIS) and time.monotonic() > began + DEMOTION_SECONDS:
                with suppress(GroupFailed):  # it is looked at again
                    await self.redis(self.group.settle)
            await asyncio.sleep(_SETTLE_LOOK_SECONDS)
        return problem

    async def _problem(self) -> str:
        if not await self.redis(self.group.is_settled):
            return f"{REDIS} is not settled"
        for replica in self.replicas.all:
            if problem := await _unwell(replica):
                return f"{replica.name} {problem}"
        return "" if await self.leader() else "nobody leads"


async def stop(replica: Replica) -> str:
    """Stop a replica in order; return what was not in order."""
    try:
        ended = await replica.daemon.terminate(STOP_SECONDS)
    except DaemonFailed:
        replica.daemon.kill()
        return f"{replica.name} was told to stop and ran on for {STOP_SECONDS:g} s"
    return f"{replica.name} was told to stop and ended with {ended}" if ended else ""


async def _unwell(replica: Replica) -> str:
    if not replica.daemon.is_running:
        return "does not run"
    try:
        shown = await replica.daemon.status()
    except (aiohttp.ClientError, TimeoutError):
        return "does not answer"
    store = shown["replicas"]["store"]
    if not store["reachable"] or not store["in_sync"]:
        return "is not in sync with Redis"
    unfit = shown["replicas"]["unfit"]
    return f"is unfit to lead: {unfit}" if unfit else ""


@asynccontextmanager
async def built(options: Options, folder: Path, history: History) -> AsyncIterator[World]:
    """Start chain and Redis and configure three replicas; the replicas are not started yet.

    Raises:
        ChainFailed: There is no anvil, or it does not start.
        GroupFailed: There is no Redis or Valkey, or it does not start.
    """
    async with AsyncExitStack() as stack:
        hands = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="hands"))
        anvil = await stack.enter_async_context(Anvil(block_seconds=_BLOCK_SECONDS))
        network = await Network.deploy(anvil, stakes=(_STAKE,) * options.operators)
        group = SentinelGroup()
        stack.callback(group.close)
        stack.callback(_keep_logs, group, folder)
        await asyncio.get_running_loop().run_in_executor(hands, group.start)
        wires = Wires()
        stack.callback(wires.close)
        gates = {f"replica-{index}": Gate() for index in range(3)}
        each: list[dict[str, dict[str, object]]] = []
        for name, gate in gates.items():
            port = wires.relay(CHAIN, anvil.port, caller=name, asked=gate.asked)
            endpoint = {"name": "wired", "url": f"http://127.0.0.1:{port}"}
            sentinels = wired(wires, group, name)
            each.append({"redis": {"sentinels": sentinels}, "chain": {"endpoints": [endpoint]}})
        overrides = {
            "aggregation": {"window": f"{WINDOW_SECONDS:g}s"},
            "listen": {"drain_delay": "200ms"},
            "telemetry": {"log_format": "json"},
            "election": {"profile": options.profile},
        }
        replicas = Replicas(
            network, folder, sentinels=group.sentinels, overrides=overrides, each=each
        )
        world = World(network, group, replicas, gates, wires, hands, history)
        world.down.update(replica.name for replica in replicas.all)
        await stack.enter_async_context(replicas)
        yield world


def wired(wires: Wires, group: SentinelGroup, caller: str) -> list[str]:
    """Lay wires from one replica to all of Redis; return its Sentinels' addresses.

    Sentinels and servers tell addresses, which would lead past the wires: the replica is told its
    own. Ports of these ranges have five digits each, so lengths in what is sent stay right.
    """
    spelling: dict[bytes, bytes] = {}

    def told(data: bytes) -> bytes:
        for theirs, ours in spelling.items():
            data = data.replace(theirs, ours)
        return data

    sentinels = []
    for machine in group.machines:
        server = wires.relay(REDIS, machine.port, caller=caller, told=told)
        sentinel = wires.relay(REDIS, machine.sentinel_port, caller=caller, told=told)
        sentinels.append(f"127.0.0.1:{sentinel}")
        for place in (b"$5\r\n%d\r\n", b"127.0.0.1 %d", b"master_port:%d"):
            spelling[place % machine.port] = place % server
    return sentinels


def _keep_logs(group: SentinelGroup, folder: Path) -> None:
    for log in group._folder.glob("*.log"):
        with suppress(OSError):
            shutil.copy(log, folder / f"redis-{log.name}")
