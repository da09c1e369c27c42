"""Stage: who sent a call and is not known yet is looked for; the call is held meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn, Protocol

from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aggregator.ports import Clock
    from aggregator.receive import Intake
    from aligned.model import OperatorId

LOOK_SECONDS = 1.1
"""Between looks at the calls that are held."""


class Registry(Protocol):
    """The part of the registry that is asked."""

    async def look_up(self, ids: Iterable[OperatorId]) -> Sequence[OperatorId]:
        """Search the chain for operators; return who was searched for.

        Raises:
            ChainUnavailable: No endpoint answers.
        """


class Search:
    """Looks for operators whose calls are held.

    Error handling: while the chain is away calls go on being held; the watcher tells of it.

    Args:
        intake: Holds the calls.
        registry: Is asked.
        clock: Seconds; the same as the intake's.
    """

    def __init__(self, intake: Intake, registry: Registry, clock: Clock) -> None:
        self._intake = intake
        self._registry = registry
        self._clock = clock

    async def run(self) -> NoReturn:
        """Search until cancelled."""
        async with asyncio.TaskGroup() as loops:
            # A search may scan the whole chain: calls are not held for as long as that takes.
            loops.create_task(self._recheck(), name="held calls")
            await self._look()

    async def _recheck(self) -> NoReturn:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._intake.recheck((), self._clock())

    async def _look(self) -> NoReturn:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            wanted = self._intake.held_operators
            if wanted:
                began = self._clock()
                self._intake.recheck(await self._look_up(wanted), began)

    async def _look_up(self, wanted: Sequence[OperatorId]) -> Sequence[OperatorId]:
        try:
            return await self._registry.look_up(wanted)
        except ChainUnavailable:
            return ()
