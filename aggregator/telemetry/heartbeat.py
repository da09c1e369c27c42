"""Whether the event loop turns, and how late it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.ports import Clock

PERIOD = 0.25
"""Seconds between beats."""

DEAD_AFTER = 5.0
"""Seconds without a beat after which the loop counts as stuck."""


class Heartbeat:
    """Beats as long as the loop turns.

    ``/healthz`` is served by the same loop: while the loop is blocked nobody answers, and the
    prober's own deadline is the verdict. ``is_alive`` covers the rest: a loop that still answers
    sockets although its beat has died or is starved.

    Args:
        clock: Seconds.
        observe: Gets how much later than planned each beat came, in seconds.
    """

    def __init__(self, clock: Clock, observe: Callable[[float], None]) -> None:
        self._clock = clock
        self._observe = observe
        self._last = clock()

    async def run(self) -> NoReturn:
        """Beat until cancelled."""
        while True:
            planned = self._clock() + PERIOD
            await asyncio.sleep(PERIOD)
            self._last = self._clock()
            self._observe(max(0.0, self._last - planned))

    @property
    def age(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last

    @property
    def is_alive(self) -> bool:
        """Tell whether the last beat is young enough."""
        return self.age < DEAD_AFTER
