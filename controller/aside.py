"""A thread with an event loop of its own, for work that must not share ours."""

from __future__ import annotations

import asyncio
import logging
import selectors
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)

_ROUNDS = 10
_ROUND_SECONDS = 0.5

_FAREWELL_SECONDS = 1.0
"""For connections to close: over TLS each waits for its peer's goodbye, and nothing tells when."""

_LOOK_SECONDS = 0.01


class Aside:
    """Runs one coroutine in a thread; a daemon, which no exit waits for.

    Error handling: how the coroutine ended is raised by ``ended``. Tasks that it leaves behind
    are cancelled again and again for some seconds, and then dropped; so are connections that do
    not close.
    """

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Prepare. To be made in the loop that will wait for it.

        Args:
            name: Of the thread.
            work: Called in the thread, in its loop.
        """
        self._main = asyncio.get_running_loop()
        self._work = work
        self._ended = asyncio.Event()
        self._error: BaseException | None = None
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def tell(self, what: Callable[[], object]) -> None:
        """Have its loop do ``what`` soon; nothing happens if it has ended."""
        _call(self._loop, what)

    def answer(self, what: Callable[[], object]) -> None:
        """Have the loop that waits for it do ``what`` soon. To be called in the thread."""
        _call(self._main, what)

    async def ended(self) -> None:
        """Wait until the coroutine has ended; what it raised is raised."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:  # noqa: BLE001 - handed to the main loop, which raises it
            self._error = error
        self.answer(self._ended.set)
        try:
            self._loop.run_until_complete(self._part())
        finally:
            self._loop.close()

    async def _part(self) -> None:
        """End what is left in the loop."""
        await _sweep()
        until = self._loop.time() + _FAREWELL_SECONDS
        # The loop's own pipe stays.
        while len(self._selector.get_map()) > 1 and self._loop.time() < until:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(_LOOK_SECONDS)


async def _sweep() -> None:
    """End the tasks that are left in the loop."""
    for _ in range(_ROUNDS):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        for task in left:
            task.cancel()
        # Again and again: one cancellation may be swallowed.
        await asyncio.wait(left, timeout=_ROUND_SECONDS)
    logger.debug("tasks are left behind", extra={"tasks": len(asyncio.all_tasks()) - 1})


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Have another thread's loop do ``what``; one that is closed needs nothing any more."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        return
