"""A switchable network between machines that are all this one.

A relay forwards connections to one port. Who calls is told by the source address (on Linux every
address 127.x.y.z is ours to call from), or a relay is for one caller alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

_CHUNK = 65536
_BLOCKED_SECONDS = 0.01
_Result = TypeVar("_Result")


Hook = Callable[[bytes], "bytes | None"]
"""Decides about a piece of what one side sends; runs in the relays' thread."""


class _Way(NamedTuple):
    """To a port of a machine."""

    pair: frozenset[str]
    """Both ends' names, as far as they are known."""
    port: int
    asked: Hook
    told: Hook


class Network:
    """Relays between machines, and cuts between any two of them.

    A machine is the address it calls from, or the name of a relay's only caller. Across a cut,
    bytes wait and nobody is told: open connections fall silent, new ones are accepted and never
    answered. After ``heal`` what waited arrives, as TCP would deliver it.

    Resource handling: ``close`` it. Plain calls; the bytes move on a thread of its own.
    """

    def __init__(self) -> None:
        self._cuts: frozenset[frozenset[str]] = frozenset()
        self._servers: list[asyncio.Server] = []
        self._handlers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()

    def relay(
        self,
        machine: str,
        port: int,
        *,
        caller: str | None = None,
        asked: Hook = bytes,
        told: Hook = bytes,
    ) -> int:
        """Forward a new port of 127.0.0.1 to ``port``, which ``machine`` listens on; return it.

        Args:
            machine: Who listens.
            port: Where.
            caller: Who alone calls here; None: whoever has the source address.
            asked: Gets what the caller sends, piece by piece as it comes, and returns what passes;
                None: it waits, and is asked again. An OSError ends the connection.
            told: The same for what ``machine`` sends; e.g. for addresses in it, which would lead
                past the relay.
        """
        return self._do(self._listen(caller, _Way(frozenset({machine}), port, asked, told)))

    def cut(self, one_side: set[str], other_side: set[str]) -> None:
        """Cut every connection between machines of the two sides, and nothing else."""
        self._cuts = frozenset(frozenset((a, b)) for a in one_side for b in other_side)

    def heal(self) -> None:
        """Undo the cut."""
        self._cuts = frozenset()

    def close(self) -> None:
        """End all relays. Repeats are free."""
        if not self._loop.is_closed():
            self._do(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _do(self, step: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    async def _listen(self, caller: str | None, way: _Way) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._handlers.add(task)
                task.add_done_callback(self._handlers.discard)
            pair = way.pair | {caller or writer.get_extra_info("peername")[0]}
            with suppress(OSError, asyncio.CancelledError):
                await self._forward(way._replace(pair=pair), reader, writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        self._servers.append(server)
        listening: int = server.sockets[0].getsockname()[1]
        return listening

    async def _forward(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._passage(way.pair)
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", way.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(way.pair, way.asked, reader, onward_writer))
                both.create_task(self._pump(way.pair, way.told, onward_reader, writer))
        except* OSError:
            pass
        finally:
            onward_writer.close()

    async def _pump(
        self,
        pair: frozenset[str],
        hook: Hook,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self._passage(pair)
            while (passing := hook(data)) is None:  # noqa: ASYNC110 - switched from other threads
                await asyncio.sleep(_BLOCKED_SECONDS)
            writer.write(passing)
            await writer.drain()
        await self._passage(pair)
        msg = "the other end closed"
        raise ConnectionResetError(msg)  # ends the other direction too

    async def _passage(self, pair: frozenset[str]) -> None:
        while pair in self._cuts:  # noqa: ASYNC110 - switched from other threads
            await asyncio.sleep(_BLOCKED_SECONDS)

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        # All, not only the handlers: what was accepted a moment ago still gets its handler.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for handler in self._handlers:
                handler.cancel()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
