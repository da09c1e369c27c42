"""Three daemons over one Redis with everything around them, and ways to part them from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligned.model import BatchId, OperatorId
from devnet.batcher import Batcher, Posted, verified
from devnet.network import Network, hexed
from devnet.operator import Fleet, Operator
from devnet.proxy import Proxy
from devnet.relay import Network as Wires
from devnet.replicas import Replica, Replicas
from devnet.sentinel import SentinelGroup
from tests.integration.daemons import RETRIES, SECONDS, eventually, seen
from tests.nemesis.world import REDIS, wired

Promises = set[tuple[BatchId, OperatorId]]
Sections = Mapping[str, Mapping[str, object]]


@dataclass
class Trio:
    """Three replicas with everything around them."""

    network: Network
    group: SentinelGroup
    replicas: Replicas
    batcher: Batcher
    fleet: Fleet
    proxies: list[Proxy]
    """Between each replica and the chain; none unless asked for."""
    wires: Wires | None = None
    """Between each replica and Redis; none unless asked for."""

    def direct(self, index: int, to: Replica) -> Operator:
        """Return operator ``index`` with a connection of its own to a certain replica."""
        key = self.network.operators[index]
        return Fleet(self.network, to.address, keys=[key], retries=RETRIES).operators[0]

    async def signed(self, batch: Posted, who: int, to: Replica) -> None:
        """Let an operator sign at one replica, and see that it gets its acknowledgement."""
        operator = self.direct(who, to)
        operator.book = self.fleet.book
        delivery = await operator.answer(seen(batch))
        operator.close()
        assert delivery.acknowledged, to.daemon.tail()

    async def signed_at(self, batch: Posted, at: Sequence[Replica]) -> None:
        """Let three operators, a quorum, sign at these replicas in turn."""
        for who in range(3):
            await self.signed(batch, who, at[who % len(at)])

    async def signed_by_the_others(self, batch: Posted, leader: Replica) -> None:
        """Let the two operators that a quorum needs beside the first sign at the two standbys."""
        for who, replica in enumerate(self.standbys(leader), start=1):
            await self.signed(batch, who, replica)

    async def acknowledged(self, batch: Posted, count: int) -> None:
        await eventually(
            lambda: len(self.fleet.book.acknowledged(batch.batch_id)) >= count,
            f"{count} acknowledgements\n" + self.tails(),
        )

    async def answered_once(self, *batches: Posted) -> None:
        """Wait until all are verified, each by one transaction."""
        for batch in batches:
            assert await verified(self.network, batch, seconds=SECONDS), self.tails()
        answers = await self.network.all_answers()
        assert {batch.hex(): len(each) for batch, each in answers.items() if len(each) != 1} == {}

    def promised(self) -> Promises:
        return {
            (each.batch_id, each.operator_id)
            for each in self.fleet.book.deliveries
            if each.acknowledged
        }

    async def nothing_is_lost(self, *, of: list[Replica] | None = None) -> None:
        """See that all these replicas come to hold every signature that was acknowledged."""
        for replica in of or self.replicas.all:
            await eventually(
                lambda replica=replica: self.promised() <= replica.kept(),  # type: ignore[misc] # a loop's default
                f"{replica.name} holds what was promised\n" + self.tails(),
            )

    async def holds(self, replica: Replica, batch: Posted, signatures: int) -> None:
        """Wait until a replica shows ``batch`` with so many signatures."""
        async with asyncio.timeout(SECONDS):
            while True:
                listed = (await replica.daemon.status())["batches"]["unresolved"]
                wanted = {"batch": hexed(batch.batch_id), "signatures": signatures}
                if any(wanted.items() <= each.items() for each in listed):
                    return
                await asyncio.sleep(0.05)

    # Parting.

    def cut_off(self, replica: Replica) -> None:
        """Cut one replica off from Redis; the others stay."""
        assert self.wires is not None
        self.wires.cut({replica.name}, {REDIS})

    def reconnect(self) -> None:
        assert self.wires is not None
        self.wires.heal()

    def proxy(self, replica: Replica) -> Proxy:
        return self.proxies[self.replicas.all.index(replica)]

    # What they say.

    def lines(self, replica: Replica) -> list[dict[str, Any]]:
        """Return the log of all starts."""
        text = replica.daemon.log_text().splitlines()
        return [json.loads(line) for line in text if line.startswith("{") and line.endswith("}")]

    async def told(self, replica: Replica, words: str, *, reason: str = "") -> dict[str, Any]:
        """Wait for a log line with these words and this in its reason; return it."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found.extend(
                line
                for line in self.lines(replica)
                if words in line["event"] and reason in str(line.get("reason", ""))
            )
            return bool(found)

        await eventually(is_there, f"{replica.name} says {words!r} {reason!r}\n{self.tails()}")
        return found[0]

    async def journals(self, replica: Replica, batch: Posted, who: int) -> None:
        """Wait until an operator's signature is in a replica's journal."""
        mine = (batch.batch_id, self.network.operators[who].operator_id)
        await eventually(lambda: mine in replica.kept(), f"{replica.name} journals it")

    def standbys(self, leader: Replica) -> list[Replica]:
        return [replica for replica in self.replicas.all if replica is not leader]

    def tails(self) -> str:
        return "\n".join(f"{one.name}: {one.daemon.tail()[-1500:]}" for one in self.replicas.all)


@asynccontextmanager
async def three(
    chain: Network,
    group: SentinelGroup,
    folder: Path,
    *,
    election: Mapping[str, object] | None = None,
    each: Sequence[Sections] = ({}, {}, {}),
    parted: bool = False,
) -> AsyncIterator[Trio]:
    """Configure three replicas; they are not started. Operators sign where the balancer leads.

    Args:
        chain: What they serve.
        group: What they share.
        folder: For their files.
        election: The section, for all of them.
        each: Further sections, one after the other.
        parted: With wires and proxies that can be cut, for each replica by itself.
    """
    overrides: dict[str, Mapping[str, object]] = {
        "aggregation": {"window": "0s"},
        "listen": {"drain_delay": "0s"},
        "telemetry": {"log_format": "json"},
        # Not the fastest: relays and servers share the machine with whatever else is tested on it.
        "election": {"profile": "normal"} | dict(election or {}) if parted else election or {},
    }
    sections = [dict(one) for one in each]
    async with AsyncExitStack() as stack:
        proxies: list[Proxy] = []
        wires: Wires | None = None
        if parted:
            wires = Wires()
            stack.callback(wires.close)
            for index, one in enumerate(sections):
                proxies.append(await stack.enter_async_context(Proxy(chain.anvil.url)))
                one["redis"] = {"sentinels": wired(wires, group, f"replica-{index}")}
                one["chain"] = {"endpoints": [{"name": "proxied", "url": proxies[index].url}]}
        replicas = await stack.enter_async_context(
            Replicas(chain, folder, sentinels=group.sentinels, overrides=overrides, each=sections)
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        batcher = Batcher(chain)
        await batcher.deposit()
        fleet = Fleet(chain, replicas.address, retries=RETRIES, poll_seconds=0.1)
        for operator in fleet.operators:
            operator.online = False
        signing = tasks.create_task(fleet.run())
        stack.callback(signing.cancel)
        await fleet.watching()
        yield Trio(chain, group, replicas, batcher, fleet, proxies, wires)


def mend(group: SentinelGroup) -> None:
    """Undo what a test did to Redis."""
    for index, machine in enumerate(group.machines):
        group.resume(index)
        if machine.server is not None and machine.server.code is not None:
            group.start_server(index)
        group.ask(machine.port, "CONFIG", "SET", "maxmemory", "0")
