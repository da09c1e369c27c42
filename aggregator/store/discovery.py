"""Edge: where the primary is.

All Sentinels are asked side by side, each within a short deadline; what counts is the newest
configuration that any of them names. A Sentinel on the wrong side of a partition goes on naming
the old primary with an older configuration epoch.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from aggregator.store.connection import (
    Address,
    Refusal,
    Server,
    connect,
    exchange,
    receive,
    texts,
)
from aligned.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import Connection

    from aggregator.store.connection import Access, Reply

logger = logging.getLogger(__name__)

ASK_SECONDS = 0.5
"""For a majority of the Sentinels to answer; then whoever has answered decides."""

FIRST_SECONDS = 1.0
"""More, for the first of them if none has answered by then: giving up throws away connections that
are almost made, and a network or machine that is slow would never get an answer."""

_QUIET_SECONDS = 60.0
"""A subscription that was silent for so long is made anew: it may lead nowhere."""

_RETRY_SECONDS = 1.0


class Discovery(Protocol):
    """Knows which server is the primary, or should be."""

    async def find(self) -> Server:
        """Return the primary; its role is not checked.

        Raises:
            StoreUnavailable: Nobody knows.
        """

    async def watch(self, switched: Callable[[], None]) -> NoReturn:
        """Call ``switched`` whenever another primary is announced, until cancelled."""

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """One address that is always the primary's, e.g. a managed service's."""

    server: Server

    async def find(self) -> Server:
        return self.server

    async def watch(self, switched: Callable[[], None]) -> NoReturn:
        del switched
        while True:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass


class _Found(NamedTuple):
    """What came of asking."""

    turn: int
    """Counts how often was asked."""
    server: Server | None
    problem: str = ""


class _Answer(NamedTuple):
    epoch: int
    votes: int
    address: Address


class Sentinels:
    """Asks a group of Sentinels.

    Resource handling: keeps one idle connection to each; ``aclose`` them.
    """

    def __init__(
        self,
        sentinels: Sequence[Server],
        *,
        master: str,
        access: Access,
        database: int = 0,
        name: str = "aggregator",
    ) -> None:
        """Describe the group.

        Args:
            sentinels: Each by itself; a load balancer in front defeats them.
            master: The name they know the primary by.
            access: How to get into the primary.
            database: Of the primary.
            name: Shown by CLIENT LIST.
        """
        self._sentinels = tuple(sentinels)
        self._master = master
        self._access = access
        self._database = database
        self._name = name
        self._idle: dict[Server, Connection] = {}
        self._asking = asyncio.Lock()
        self._turn = 0
        self._found = _Found(0, None)

    async def find(self) -> Server:
        """Return the primary of the newest configuration among the answers.

        Those who call while others ask share the next turn: in an outage everybody wants to know,
        and a storm of connections would keep slow Sentinels from answering anybody.

        Raises:
            StoreUnavailable: No Sentinel answers.
        """
        arrived = self._turn
        async with self._asking:
            if self._found.turn <= arrived:
                self._turn += 1
                self._found = await self._ask_all(self._turn)
            if self._found.server is None:
                raise StoreUnavailable(self._found.problem)
            return self._found.server

    async def _ask_all(self, turn: int) -> _Found:
        answers: list[tuple[int, Address]] = []
        failures: list[str] = []
        majority, first = asyncio.Event(), asyncio.Event()

        async def ask(sentinel: Server) -> None:
            try:
                answers.append(await self._ask(sentinel))
            except StoreUnavailable as unavailable:
                failures.append(str(unavailable))
            is_last = len(answers) + len(failures) == len(self._sentinels)
            if answers or is_last:
                first.set()
            if 2 * len(answers) > len(self._sentinels) or is_last:
                majority.set()

        async with asyncio.TaskGroup() as asking:
            tasks = [asking.create_task(ask(sentinel)) for sentinel in self._sentinels]
            if not await _within(ASK_SECONDS, majority) and not await _within(FIRST_SECONDS, first):
                failures.append(f"silent for {ASK_SECONDS + FIRST_SECONDS} s")
            for task in tasks:
                task.cancel()
        if not answers:
            problem = f"no Sentinel names the primary {self._master!r}: {'; '.join(failures)}"
            return _Found(turn, None, problem)
        server = Server(address=newest(answers), access=self._access, database=self._database)
        return _Found(turn, server)

    async def _ask(self, sentinel: Server) -> tuple[int, Address]:
        connection = self._idle.pop(sentinel, None)
        if connection is None:
            connection = await connect(sentinel, self._name)
        kept = False
        try:
            replies = await exchange(
                connection,
                [
                    ("SENTINEL", "MASTER", self._master),
                    ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master),
                ],
            )
            kept = self._idle.setdefault(sentinel, connection) is connection
        finally:
            if not kept:
                await connection.disconnect(nowait=True)
        for reply in replies:
            if isinstance(reply, Refusal):
                msg = f"Sentinel {sentinel.address}: {reply.code} {reply.text}"
                raise StoreUnavailable(msg)
        return configuration(*replies)

    async def watch(self, switched: Callable[[], None]) -> NoReturn:
        """See ``Discovery.watch``: every Sentinel is listened to, the last one to know as well."""
        first, *others = self._sentinels
        async with asyncio.TaskGroup() as listening:
            for sentinel in others:
                listening.create_task(self._listen(sentinel, switched))
            await self._listen(first, switched)

    async def _listen(self, sentinel: Server, switched: Callable[[], None]) -> NoReturn:
        while True:
            try:
                await self._hear(sentinel, switched)
            except StoreUnavailable as unavailable:
                logger.debug("a Sentinel is away", extra={"reason": str(unavailable)})
            await asyncio.sleep(_RETRY_SECONDS)

    async def _hear(self, sentinel: Server, switched: Callable[[], None]) -> None:
        connection = await connect(sentinel, self._name)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await exchange(connection, [("SUBSCRIBE", "+switch-master")])
            while True:
                async with asyncio.timeout(_QUIET_SECONDS):
                    news = await receive(connection)
                if isinstance(news, list) and news[0] == b"message" and isinstance(news[2], bytes):
                    text = news[2].decode(errors="replace")  # name, old address, new address
                    if text.split(" ")[0] == self._master:
                        logger.info("Sentinel announces a primary", extra={"announced": text})
                        switched()
        except TimeoutError:
            pass
        finally:
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """See ``Discovery.aclose``."""
        while self._idle:
            _, connection = self._idle.popitem()
            await connection.disconnect(nowait=True)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for ``event`` no longer than that; tell whether it was set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def newest(answers: Sequence[tuple[int, Address]]) -> Address:
    """Return the address with the highest configuration epoch; the most named one among equals."""
    named = [_Answer(epoch, answers.count((epoch, address)), address) for epoch, address in answers]
    return max(named, key=lambda answer: (answer.epoch, answer.votes)).address


def configuration(master: Reply, address: Reply) -> tuple[int, Address]:
    """Return configuration epoch and address of a Sentinel's replies.

    The epoch is in SENTINEL MASTER. The address there is the old one, beside the new epoch, for as
    long as this Sentinel carries a failover out; GET-MASTER-ADDR-BY-NAME then tells the new one.

    Raises:
        StoreUnavailable: They have none.
    """
    flat = master if isinstance(master, list) else []
    fields = dict(zip(flat[::2], flat[1::2], strict=False))
    try:
        host, port = texts(address)
        return int(fields[b"config-epoch"]), Address(host.decode(), int(port))  # type: ignore[arg-type] # or it raises
    except (KeyError, ValueError, TypeError) as error:
        msg = f"a Sentinel's answer has no address: {error!r}"
        raise StoreUnavailable(msg) from error
