"""The replicated daemon with everything around it: chain, Redis group, replicas."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from devnet.anvil import Anvil
from devnet.network import Network
from devnet.redis_servers import Options
from devnet.replicas import Replicas
from devnet.sentinel import SentinelGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from devnet.replicas import Replica

DOWN_AFTER = 1500
"""Milliseconds of silence after which a Sentinel takes a server for dead: as managed Redis."""

_LOOK_SECONDS = 0.05
_SETTLE_SECONDS = 90.0
_TICKS = os.sysconf("SC_CLK_TCK")

Overrides = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Stack:
    """Replicas that are ready, merged and led by one of them."""

    network: Network
    group: SentinelGroup
    replicas: Replicas

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time so far of replicas, Redis servers and Sentinels (Linux)."""
        servers = [machine.server for machine in self.group.machines]
        sentinels = [machine.sentinel for machine in self.group.machines]
        return {
            "replicas": sum(
                replica.daemon.cpu_seconds()
                for replica in self.replicas.all
                if replica.daemon.is_running
            ),
            "redis": sum(_cpu_seconds(one.pid) for one in servers if one is not None),
            "sentinels": sum(_cpu_seconds(one.pid) for one in sentinels if one is not None),
        }

    async def settled(self) -> Replica:
        """Wait until every replica is fit and has merged all, and one leads; return that one.

        Raises:
            TimeoutError: It does not happen.
        """
        async with asyncio.timeout(_SETTLE_SECONDS):
            while True:
                shown = [await status(replica) for replica in self.replicas.all]
                leading = [
                    replica
                    for replica, one in zip(self.replicas.all, shown, strict=True)
                    if one and one["role"]["leads"]
                ]
                if len(leading) == 1 and all(map(_is_well, shown)):
                    return leading[0]
                await asyncio.sleep(_LOOK_SECONDS)

    def standbys(self, leader: Replica) -> list[Replica]:
        return [replica for replica in self.replicas.all if replica is not leader]


def _is_well(shown: Mapping[str, Any]) -> bool:
    group = shown.get("replicas")
    return bool(
        group
        and group["unfit"] is None
        and group["store"]["reachable"]
        and group["store"]["in_sync"]
    )


async def status(replica: Replica) -> dict[str, Any]:
    """Return ``/status``; empty if there is no answer."""
    if replica.daemon.is_running:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(2.0):
                return await replica.daemon.status()
    return {}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@asynccontextmanager
async def stack(
    operators: int, *, count: int = 3, profile: str = "fast", overrides: Overrides | None = None
) -> AsyncIterator[Stack]:
    """Give a stack that is settled; everything ends with it.

    Args:
        operators: Of equal stake.
        count: Replicas.
        profile: Of the election.
        overrides: Section -> key -> value.

    Raises:
        ChainFailed: There is no anvil.
        GroupFailed: There is no Redis.
        DaemonFailed: A replica does not get ready.
    """
    sections: Overrides = {
        "aggregation": {"window": "0s"},
        "listen": {"drain_delay": "0s"},
        "telemetry": {"log_format": "json"},
        "bls": {"backend": "arkworks"},
    }
    for section, values in (overrides or {}).items():
        sections[section] = {**sections.get(section, {}), **values}
    sections["election"] = {**sections.get("election", {}), "profile": profile}
    with (
        tempfile.TemporaryDirectory(prefix="aligned-bench-") as folder,
        SentinelGroup(options=Options(down_after=DOWN_AFTER)) as group,
    ):
        async with Anvil() as chain:
            network = await Network.deploy(chain, stakes=(100,) * operators)
            async with Replicas(
                network,
                Path(folder),
                sentinels=group.sentinels,
                count=count,
                overrides=sections,
            ) as replicas:
                await replicas.start()
                here = Stack(network, group, replicas)
                await here.settled()
                yield here
