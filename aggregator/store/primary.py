"""Edge: calls to whichever server is the primary now.

A bounded number of connections, each checked when it is made: the server's role, whose state it
holds, and its lineage. No retries here: scripts are idempotent, and callers know for how long
trying again makes sense.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from aggregator.store.connection import (
    HANDSHAKE_SECONDS,
    Address,
    Refusal,
    connect,
    exchange,
)
from aggregator.store.pause import shorten
from aggregator.store.scripts import scripts
from aligned.errors import StateMismatch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio.connection import Connection

    from aggregator.store.connection import Argument, Reply, Server
    from aggregator.store.discovery import Discovery

CALL_SECONDS = 1.5
"""For one exchange. Short, because a late reply of a frozen primary proves nothing."""

LOOK_SECONDS = 1.0
"""Between two looks at the primary's lineage."""

_SLOW_SECONDS = 0.1
"""A call that takes longer is a reason to look."""

_DEMOTED = frozenset({"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED"})
"""What a server answers that is a primary no more, or not yet."""

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
    demoted: bool = False
    """The server said that it is the primary no more."""

    async def exchange(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Send commands in one write and return their replies in order.

        Raises:
            StoreUnavailable: The connection is lost.
        """
        replies = await exchange(self.connection, commands)
        if any(isinstance(reply, Refusal) and reply.code in _DEMOTED for reply in replies):
            self.demoted = True
        return replies

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
        self._begun: dict[Link, float] = {}
        self._greetings: dict[asyncio.Timeout, Address] = {}
        self._probe: Connection | None = None
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._generation = 0
        self.lineage = Lineage()
        self._named: Address | None = None
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
                return await self._exchange(link, commands)
        except TimeoutError as error:
            msg = f"the primary {self.address or ''} did not answer in time"
            raise StoreUnavailable(msg) from error

    async def _exchange(self, link: Link, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        self._begun[link] = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await link.exchange(*commands)
        finally:
            del self._begun[link]

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """Lend a connection. It is kept for others unless the body raised.

        If its server turns out to be the primary no more, all others are closed with it: a read
        that waits is told at once, a write that is paused only later.

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
                if link.demoted:
                    await self.drop()
            if link.generation == self._generation and link.connection.is_connected:
                self._idle.append(link)
            else:
                await link.close()

    async def _connect(self) -> Link:
        server = await self._discovery.find()
        self._named = server.address
        try:
            connection, lineage = await self._greet(server)
        except _Demoted as demoted:
            # It knows its successor a second before the Sentinels tell.
            server = replace(server, address=demoted.successor)
            connection, lineage = await self._greet(server)
        self.address = server.address
        await self._note(lineage)
        return Link(connection, lineage, self._generation)

    async def _note(self, lineage: str) -> None:
        if self.lineage.see(lineage):
            await self.drop(self.address)  # what is connected may lead to a server of the past

    async def _greet(self, server: Server) -> tuple[Connection, str]:
        """Return a connection to a primary of ours, and its lineage.

        Raises:
            StoreUnavailable: It does not answer, or is no primary, or another one was found
                meanwhile.
            StateMismatch: It holds another deployment's state.
        """
        try:
            async with asyncio.timeout(None) as patience:
                self._greetings[patience] = server.address
                try:
                    return await self._shake_hands(server)
                finally:
                    self._greetings.pop(patience, None)
        except TimeoutError as error:
            msg = f"{server.address} is the primary no more"
            raise StoreUnavailable(msg) from error

    async def _shake_hands(self, server: Server) -> tuple[Connection, str]:
        connection = await connect(server, self._name)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                return connection, await self._examine(connection, server)
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            msg = f"{server.address} did not answer in time"
            raise StoreUnavailable(msg) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _examine(self, connection: Connection, server: Server) -> str:
        loads = [("SCRIPT", "LOAD", script.text) for script in scripts().values()]
        [info] = await exchange(connection, [("INFO", "replication")])
        await shorten(connection, info, server, self._name)
        lineage = lineage_of(info)  # first: a server that was just demoted may still pause scripts
        *loaded, checked = await exchange(connection, [*loads, self._check()])
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
        if server.address not in {self._named, self.address}:
            await self.drop(server.address)
        self._named = server.address
        info = await self._ask(replace(server, address=self.address or server.address))
        try:
            lineage = lineage_of(info)
        except StoreUnavailable as stale:
            # The successor may take longer to connect to than we take to look again.
            await self.drop(stale.successor if isinstance(stale, _Demoted) else None)
            raise
        await self._note(lineage)

    async def _ask(self, server: Server) -> Reply:
        """Return what a server says of its replication, over a connection for nothing else.

        Others may hang: a server that is about to be demoted pauses scripts, not questions.

        Raises:
            StoreUnavailable: It does not answer.
        """
        probe, self._probe = self._probe, None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                if probe is None or _address(probe) != server.address or not probe.is_connected:
                    await _close(probe)
                    probe = await connect(server, self._name)
                [info] = await exchange(probe, [("INFO", "replication")])
                await shorten(probe, info, server, self._name)
        except TimeoutError as error:
            await _close(probe)
            msg = f"{server.address} did not answer in time"
            raise StoreUnavailable(msg) from error
        except BaseException:
            await _close(probe)
            raise
        other, self._probe = self._probe, probe  # of a look at the same time
        await _close(other)
        return info

    async def rest(self) -> None:
        """Return when it is time to look again: soon if a call hangs.

        A server that is demoted in good order may leave a write unanswered until a Sentinel
        closes its connection.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LOOK_SECONDS
        while loop.time() < until:
            await asyncio.sleep(_SLOW_SECONDS)
            if min(self._begun.values(), default=until) < loop.time() - _SLOW_SECONDS:
                return

    async def watch(self, switched: Callable[[], None]) -> NoReturn:
        """See ``Discovery.watch``."""
        await self._discovery.watch(switched)

    async def drop(self, primary: Address | None = None) -> None:
        """Close every connection, those in use as well: the primary is another one.

        Args:
            primary: Where it is, if that is known: connections being made to it are kept.
        """
        self._generation += 1
        links = [*self._idle, *self._busy]
        self._idle.clear()
        for patience, address in list(self._greetings.items()):
            if address != primary:
                del self._greetings[patience]
                patience.reschedule(asyncio.get_running_loop().time())
        for link in links:
            await link.close()

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
        await self.drop()
        await _close(self._probe)
        await self._discovery.aclose()


def _address(connection: Connection) -> Address:
    return Address(connection.host, connection.port)


async def _close(connection: Connection | None) -> None:
    if connection is not None:
        await connection.disconnect(nowait=True)


class _Demoted(StoreUnavailable):
    """The server is a replica and says of whom."""

    def __init__(self, role: str, successor: Address) -> None:
        super().__init__(f"not a primary but a {role} of {successor}")
        self.successor = successor


def lineage_of(info: Reply) -> str:
    """Return the lineage in an answer to INFO replication.

    Raises:
        StoreUnavailable: The server is no primary.
        _Demoted: The same, and it says who is.
    """
    if not isinstance(info, bytes):
        raise StoreUnavailable(f"INFO is refused: {info}")
    lines = info.decode(errors="replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    role, host, port = (fields.get(name, "") for name in ("role", "master_host", "master_port"))
    if host and port.isdecimal():
        raise _Demoted(role, Address(host, int(port)))
    if role != "master":
        raise StoreUnavailable(f"not a primary but a {role or 'stranger'}")
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
    advice = _ADVICE.get(refusal.code)
    text = f"the primary refuses: {refusal.code} {refusal.text}"
    return StoreUnavailable(f"{text}; {advice}" if advice else text)


_ADVICE = {
    "OOM": "raise maxmemory, and find out what fills it",
    "NOPERM": "give the user the right that is named",
}
"""What to do about refusals of a server, by their code."""
