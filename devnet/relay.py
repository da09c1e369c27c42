"""A switchable network between machines that are all this one.

A relay forwards connections to one port. Who calls is told by the source address (on Linux every
address 127.x.y.z is ours to call from), or a relay is for one caller alone.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

_CHUNK = 65536
_BLOCKED_SECONDS = 0.01
_Result = TypeVar("_Result")


class _Relay(NamedTuple):
    server: asyncio.Server
    machine: str


class _Way(NamedTuple):
    """From the caller to a port."""

    pair: frozenset[str]
    port: int
    spell: Callable[[bytes], bytes] | None


class Network:
    """Relays between machines, and cuts between any two of them.

    A machine is the address it calls from, or the name of a relay's only caller. Across a cut,
    bytes wait and nobody is told: open connections fall silent, new ones are accepted and never
    answered. After ``heal`` what waited arrives, as TCP would deliver it.

    Resource handling: ``close`` it. Plain calls; the bytes move on a thread of its own.
    """

    def __init__(self) -> None:
        self._cuts: frozenset[frozenset[str]] = frozenset()
        self._relays: list[_Relay] = []
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
        spell: Callable[[bytes], bytes] | None = None,
    ) -> int:
        """Forward a new port of 127.0.0.1 to ``port``, which ``machine`` listens on; return it.

        Args:
            machine: Who listens.
            port: Where.
            caller: Who alone calls here; None: whoever has the source address.
            spell: Gets what ``machine`` sends, as it comes, and returns what the caller is told
                instead; for addresses in it, which would lead past the relay.
        """
        return self._do(self._listen(machine, port, caller, spell))

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

    async def _listen(
        self,
        machine: str,
        port: int,
        caller: str | None,
        spell: Callable[[bytes], bytes] | None,
    ) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._handlers.add(task)
                task.add_done_callback(self._handlers.discard)
            pair = frozenset((caller or writer.get_extra_info("peername")[0], machine))
            with suppress(OSError, asyncio.CancelledError):
                await self._forward(_Way(pair, port, spell), reader, writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        self._relays.append(_Relay(server, machine))
        listening: int = server.sockets[0].getsockname()[1]
        return listening

    async def _forward(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._passage(way.pair)
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", way.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(way.pair, None, reader, onward_writer))
                both.create_task(self._pump(way.pair, way.spell, onward_reader, writer))
        except* OSError:
            pass
        finally:
            onward_writer.close()

    async def _pump(
        self,
        pair: frozenset[str],
        spell: Callable[[bytes], bytes] | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self._passage(pair)
            writer.write(data if spell is None else spell(data))
            await writer.drain()
        await self._passage(pair)
        msg = "the other end closed"
        raise ConnectionResetError(msg)  # ends the other direction too

    async def _passage(self, pair: frozenset[str]) -> None:
        while pair in self._cuts:  # noqa: ASYNC110 - switched from other threads
            await asyncio.sleep(_BLOCKED_SECONDS)

    async def _stop(self) -> None:
        for relay in self._relays:
            relay.server.close()
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        if handlers:
            await asyncio.wait(handlers)
