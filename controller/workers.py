"""Workers: keys become passes, while this process leads.

A pass that fails comes again, later each time. Besides events there is a list of everything every
few minutes. Where all was well, and a pass that no event asked for changes an object all the same,
the watches have missed something: that is counted as drift.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from controller.errors import ClusterAway, ClusterError, Conflict, Gone
from controller.essence import Key
from controller.handlers import DEBOUNCE_SECONDS
from controller.ports import AGGREGATORS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from controller.ports import Cluster
    from controller.queue import WorkQueue

logger = logging.getLogger(__name__)

PASS_SECONDS = 60.0
"""For a pass; it comes again then."""

RESYNC_SECONDS = 300.0
SPREAD = 0.1
"""Of the pause between two lists, up and down, so that replicas do not list together."""

CALM_SECONDS = 10.0
"""A pass that wants to look again sooner than that has something under way."""

_RETRY_SECONDS = 5.0


class Result(StrEnum):
    """How a pass ended."""

    DONE = "done"
    CONFLICT = "conflict"
    """Something changed meanwhile."""
    AWAY = "away"
    """The API server did not answer as it should."""
    REFUSED = "refused"
    """The API server will not do this: a right is missing."""
    LATE = "late"
    """It took too long."""
    DEFECT = "defect"
    """A defect of ours."""


class Outcome(Protocol):
    """How a pass went."""

    @property
    def requeue_after(self) -> float | None:
        """Seconds after which to look again; None: not before something happens."""

    @property
    def wrote(self) -> int:
        """Writes that may have changed something."""


class Passes(Protocol):
    """What workers do."""

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Take one resource a step further.

        Raises:
            ClusterError: It could not be done now.
        """


class Measured(Protocol):
    """What is told about passes."""

    def passed(self, result: str, seconds: float) -> None: ...

    def drifted(self) -> None: ...


class Workers:
    """Takes keys from a queue and passes them on. ``resource`` and ``child`` add to it."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        passes: Passes,
        measured: Measured,
        clock: Callable[[], float],
        *,
        pass_seconds: float = PASS_SECONDS,
    ) -> None:
        """Prepare; nothing is taken yet.

        Args:
            queue: Keys of resources.
            passes: What to do with them.
            measured: Told how it went.
            clock: Seconds; the event loop's own time.
            pass_seconds: Deadline of a pass.
        """
        self._queue = queue
        self._passes = passes
        self._measured = measured
        self._clock = clock
        self._pass_seconds = pass_seconds
        self._calm: set[Key] = set()
        """Keys whose last pass left nothing to do, and of which no event has told since."""
        self._changed: dict[asyncio.Task[Any] | None, int] = {}
        """Objects changed so far, by the task of the pass."""
        self._since: dict[Key, float] = {}
        """Keys in a pass, and when that began."""
        self._drained = asyncio.Event()
        self._stopping = False

    # What watches and lists tell.

    def resource(self, key: Key) -> None:
        """Have a resource looked at that has changed."""
        self._calm.discard(key)
        self._queue.add(key)

    def child(self, key: Key) -> None:
        """Have a resource looked at whose objects have changed; changes come in bursts."""
        self._calm.discard(key)
        self._queue.add_after(key, DEBOUNCE_SECONDS)

    def list(self, keys: Sequence[Key]) -> None:
        """Have all of these looked at: there are no others."""
        self._calm.intersection_update(keys)
        for key in keys:
            self._queue.add(key)

    def wrote(self, kind: str, verb: str) -> None:
        """Count a write of the pass that the current task does; reports are none."""
        task = asyncio.current_task()
        if task in self._changed and verb != "status" and kind != "Event":
            self._changed[task] += 1

    # What runs.

    async def work(self) -> None:
        """Take keys until ``stop``. Several may run at once.

        A defect that one resource brings up is logged and its pass comes again, ever later: the
        others must not suffer.
        """
        while not self._stopping:
            key = await self._queue.get()
            try:
                await self._pass(key)
            finally:
                self._queue.done(key)

    async def stop(self) -> None:
        """Wait until the passes under way are done; begin no other.

        What still waits for a worker is left to whoever leads next. The tasks of ``work`` are
        cancelled by their owner after this.
        """
        self._stopping = True
        while self._since:
            self._drained.clear()
            await self._drained.wait()

    @property
    def longest(self) -> float:
        """Seconds since the oldest pass under way began; 0: there is none."""
        return self._clock() - min(self._since.values(), default=self._clock())

    async def _pass(self, key: Key) -> None:
        if self._stopping:
            return
        was_calm = key in self._calm
        self._calm.discard(key)
        async with self._timed(key) as changed:
            outcome = await self._passes.reconcile(key.namespace, key.name)
            self._queue.forget(key)
            if was_calm and changed():
                self._measured.drifted()
                logger.info("found what no event told", extra={"resource": str(key)})
            pause = outcome.requeue_after
            if not self._queue.is_pending(key) and (pause is None or pause >= CALM_SECONDS):
                self._calm.add(key)
            if pause is not None:
                self._queue.add_after(key, pause)

    @asynccontextmanager
    async def _timed(self, key: Key) -> AsyncIterator[Callable[[], int]]:
        """Take the time of a pass, and what it raises; give what tells how much it changed."""
        began = self._since[key] = self._clock()
        result = Result.DONE
        task = asyncio.current_task()
        self._changed[task] = 0
        try:
            async with asyncio.timeout(self._pass_seconds):
                yield lambda: self._changed[task]
        except (ClusterError, TimeoutError) as error:
            result = _result(error)
            self._again(key, result, error)
        except Exception as defect:  # noqa: BLE001 - see ``work``
            result = Result.DEFECT
            self._again(key, result, defect)
        finally:
            del self._since[key], self._changed[task]
            self._drained.set()
            self._measured.passed(result, self._clock() - began)

    def _again(self, key: Key, result: Result, error: Exception) -> None:
        asked = error.retry_after if isinstance(error, ClusterAway) else None
        self._queue.add_rate_limited(key, asked or 0.0)
        level, advice = _ADVICE[result]
        facts = {"resource": str(key), "result": str(result), "reason": str(error)}
        logger.log(level, advice, extra=facts, exc_info=result is Result.DEFECT)


def _result(error: Exception) -> Result:
    match error:
        case TimeoutError():
            return Result.LATE
        case Conflict() | Gone():
            return Result.CONFLICT
        case ClusterAway():
            return Result.AWAY
        case _:
            return Result.REFUSED


_ADVICE = {
    Result.CONFLICT: (logging.DEBUG, "something changed during a pass; it comes again"),
    Result.AWAY: (logging.INFO, "the API server is away; the pass comes again"),
    Result.LATE: (
        logging.WARNING,
        "a pass took too long and comes again; look at the API server's latency and at ours",
    ),
    Result.REFUSED: (
        logging.ERROR,
        "the API server refuses what a pass needs; compare our roles with those of this release",
    ),
    Result.DEFECT: (
        logging.ERROR,
        "a defect of ours ends each pass of a resource; others are served. Please report it",
    ),
}


async def resync(
    cluster: Cluster,
    namespaces: Sequence[str | None],
    workers: Workers,
    wanted: asyncio.Event,
    pause: float = RESYNC_SECONDS,
) -> NoReturn:
    """List all resources every few minutes, and at once when it is wanted, until cancelled.

    Args:
        cluster: To list from.
        namespaces: To list in; None: everywhere.
        workers: Told of all of them.
        wanted: Set by whoever may have missed something.
        pause: Seconds between two lists, less or more.
    """
    while True:
        wanted.clear()
        try:
            found = [
                Key(one["metadata"]["namespace"], one["metadata"]["name"])
                for namespace in namespaces
                for one in await cluster.list(AGGREGATORS, namespace)
            ]
        except ClusterError as error:
            logger.info("resources cannot be listed now", extra={"reason": str(error)})
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        workers.list(found)
        spread = random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - spreads load, hides nothing
        try:
            async with asyncio.timeout(pause * spread):
                await wanted.wait()
        except TimeoutError:
            continue
