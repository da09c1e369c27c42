"""Edge: calls to whichever server is the primary now.

A bounded number of connections, each checked when it is made: the server's role, whose state it
holds, and its lineage. No retries here: scripts are idempotent, and callers know for how long
trying again makes sense.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from aggregator.store.connection import Address, Refusal, connect, exchange
from aggregator.store.scripts import scripts
from aligned.errors import StateMismatch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio.connection import Connection

    from aggregator.store.connection import Argument, Reply
    from aggregator.store.discovery import Discovery

CALL_SECONDS = 1.5
"""For one exchange. Short, because a late reply of a frozen primary proves nothing."""

CONNECTIONS = 8
"""Open at once. Group commit needs two, a leader's writes and the background four."""


@dataclass(eq=False, slots=True)
class Link:
    """A connection to a primary."""

    connection: Connection
    lineage: str
    """The server's ``master_replid`` when it connected: changes with every promotion, restart and
    loss of data."""
    generation: int
    """A link of an earlier generation than the primary's is closed instead of kept."""

    async def exchange(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Send commands in one write and return their replies in order.

        Raises:
            StoreUnavailable: The connection is lost.
        """
        return await exchange(self.connection, commands)

    async def close(self) -> None:
        """Close at once. Repeats are free."""
        await self.connection.disconnect(nowait=True)


class Lineage:
    """The primary's ``master_replid``: another one after every promotion, restart and loss."""

    def __init__(self) -> None:
        self.now = ""
        """As last seen; empty before the first connection."""
        self._changed = asyncio.Event()

    def see(self, lineage: str) -> bool:
        """Note what a look at the primary showed; tell whether it is another one than before."""
        before, self.now = self.now, lineage
        if lineage != before:
            self._changed.set()
        return before not in {"", lineage}

    async def change(self) -> str:
        """Wait for a lineage that was not returned yet."""
        await self._changed.wait()
        self._changed.clear()
        return self.now


class Primary:
    """The primary as far as it is known.

    Resource handling: ``aclose`` it. Cancelling a call closes its connection.
    """

    def __init__(
        self,
        discovery: Discovery,
        *,
        check: Callable[[], Sequence[Argument]],
        name: str = "aggregator",
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            discovery: Knows where it is.
            check: Returns the command that fails at a state that is not ours.
            name: Shown by CLIENT LIST.
        """
        self._discovery = discovery
        self._check = check
        self._name = name
        self._idle: list[Link] = []
        self._busy: set[Link] = set()
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._generation = 0
        self.lineage = Lineage()
        self.address: Address | None = None
        """The last one connected to."""

    async def call(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Send commands over one connection in one write; return their replies in order.

        Raises:
            StoreUnavailable: No primary, or no answer in time. The commands may have run.
            StateMismatch: The primary holds another deployment's state.
        """
        try:
            async with asyncio.timeout(2 * CALL_SECONDS), self.link() as link:
                async with asyncio.timeout(CALL_SECONDS):
                    return await link.exchange(*commands)
        except TimeoutError as error:
            msg = f"the primary {self.address or ''} did not answer in time"
            raise StoreUnavailable(msg) from error

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """Lend a connection. It is kept for others unless the body raised.

        Raises:
            StoreUnavailable: No primary.
            StateMismatch: The primary holds another deployment's state.
        """
        async with self._room:
            while self._idle and not self._idle[-1].connection.is_connected:
                self._idle.pop()
            link = self._idle.pop() if self._idle else await self._connect()
            self._busy.add(link)
            try:
                yield link
            except BaseException:
                await link.close()
                raise
            finally:
                self._busy.discard(link)
            if link.generation == self._generation and link.connection.is_connected:
                self._idle.append(link)
            else:
                await link.close()

    async def _connect(self) -> Link:
        server = await self._discovery.find()
        self.address = server.address
        connection = await connect(server, self._name)
        try:
            lineage = await self._greet(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        await self._note(lineage)
        return Link(connection, lineage, self._generation)

    async def _note(self, lineage: str) -> None:
        if self.lineage.see(lineage):
            await self.drop()  # what is still connected may lead to a server of the past

    async def _greet(self, connection: Connection) -> str:
        loads = [("SCRIPT", "LOAD", script.text) for script in scripts().values()]
        info, *loaded, checked = await exchange(
            connection, [("INFO", "replication"), *loads, self._check()]
        )
        lineage = lineage_of(info)
        for reply in loaded:
            if isinstance(reply, Refusal):
                raise StoreUnavailable(f"scripts are refused: {reply.code} {reply.text}")
        if isinstance(checked, Refusal):
            raise refused(checked)
        return lineage

    async def look(self) -> None:
        """Look at the lineage; drop connections to a server that is the primary no more.

        Raises:
            StoreUnavailable: Nobody knows the primary, or it does not answer.
        """
        server = await self._discovery.find()
        if self.address is not None and server.address != self.address:
            await self.drop()
        [info] = await self.call(("INFO", "replication"))
        await self._note(lineage_of(info))

    async def watch(self, switched: Callable[[], None]) -> NoReturn:
        """See ``Discovery.watch``."""
        await self._discovery.watch(switched)

    async def drop(self) -> None:
        """Close every connection, those in use as well: the primary is another one."""
        self._generation += 1
        links = [*self._idle, *self._busy]
        self._idle.clear()
        for link in links:
            await link.close()

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
        await self.drop()
        await self._discovery.aclose()


def lineage_of(info: Reply) -> str:
    """Return the lineage in an answer to INFO replication.

    Raises:
        StoreUnavailable: The server is no primary.
    """
    if not isinstance(info, bytes):
        raise StoreUnavailable(f"INFO is refused: {info}")
    lines = info.decode(errors="replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if fields.get("role") != "master":
        raise StoreUnavailable(f"not a primary but a {fields.get('role')}")
    return fields.get("master_replid", "")


def refused(refusal: Refusal) -> StateMismatch | StoreUnavailable:
    """Return the error for a refusal that any script may give."""
    if refusal.code == "IDENTITY":
        return StateMismatch(
            f"the store holds another deployment's state ({refusal.text}); use another Redis or "
            "database, or empty this one if that deployment is gone"
        )
    if refusal.code == "FORMAT":
        return StateMismatch(
            f"the store was written by a later release (format {refusal.text}); upgrade this one"
        )
    return StoreUnavailable(f"the primary refuses: {refusal.code} {refusal.text}")
