"""Edge: shortens the pause that a failover in good order makes.

The old primary pauses its writes until a replica has all of them, so that none is lost. Two things
make that last a second longer than it must. A replica reports how far it is once a second only, or
when asked. And after ``SENTINEL FAILOVER … COORDINATED`` (Valkey 9) the old primary stays paused
until a Sentinel notices the promotion: meanwhile it takes nothing from its successor, whose
writes nobody confirms. So we ask for the report, and end the pause of a server that has become a
replica, where a pause protects nothing.

Both commands are beyond what our user needs otherwise. Where its rights do not cover them they are
refused, and the failover takes its second.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from aggregator.store.connection import Address, connect, exchange, translated
from aligned.errors import StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

    from aggregator.store.connection import Reply, Server

logger = logging.getLogger(__name__)

PAUSE_COMMANDS = ("client|unpause", "replconf")
"""What our user may do besides, for an ACL, to make failovers in good order shorter."""

REPORT_SECONDS = 0.5
"""For all replicas to be asked."""

_WAITING = b"master_failover_state:waiting-for-sync"
_UNDECIDED = b"master_failover_state:failover-in-progress"
"""It calls itself a replica, and is the primary again if its successor refuses."""
_PAUSED = b"paused_reason:client_pause"


async def shorten(connection: Connection, info: Reply, server: Server, name: str) -> None:
    """Do what makes a pause shorter, if ``info`` tells of one.

    Args:
        connection: To the server that said it.
        info: Its answer to INFO replication.
        server: How to get into it, and so into its replicas.
        name: Shown by CLIENT LIST.

    Raises:
        StoreUnavailable: The connection is lost.
    """
    if not isinstance(info, bytes):
        return
    if _WAITING in info:
        await _ask_replicas(replicas_of(info), server, name)
    elif b"role:slave" in info and _UNDECIDED not in info:
        await _end_pause(connection)


async def _end_pause(connection: Connection) -> None:
    [clients] = await exchange(connection, [("INFO", "clients")])
    if isinstance(clients, bytes) and _PAUSED in clients:
        await exchange(connection, [("CLIENT", "UNPAUSE")])
        logger.info(
            "ended the pause of a server that is the primary no more",
            extra={"address": str(Address(connection.host, connection.port))},
        )


async def _ask_replicas(addresses: list[Address], server: Server, name: str) -> None:
    async with asyncio.TaskGroup() as asking:
        for address in addresses:
            asking.create_task(_ask(replace(server, address=address), name))


async def _ask(replica: Server, name: str) -> None:
    try:
        async with asyncio.timeout(REPORT_SECONDS):
            connection = await connect(replica, name)
            try:
                with translated(replica.address):
                    ask = connection.pack_command("REPLCONF", "GETACK", "*")
                    await connection.send_packed_command(ask, check_health=False)
                # That has no answer; whatever comes now tells that it was read.
                await exchange(connection, [("PING",)])
            finally:
                await connection.disconnect(nowait=True)
    except (StoreUnavailable, TimeoutError) as away:
        logger.debug(
            "a replica was not asked how far it is",
            extra={"address": str(replica.address), "reason": str(away)},
        )


def replicas_of(info: bytes) -> list[Address]:
    """Return the replicas that a primary names in its answer to INFO replication."""
    found = []
    for line in info.decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.startswith("slave") and "=" in value:
            fields = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            if "ip" in fields and fields.get("port", "").isdecimal():
                found.append(Address(fields["ip"], int(fields["port"])))
    return found
