"""Election by the lock alone, for work that no store fences off, such as a controller's.

Whoever holds the lock leads, and stops when it cannot renew: there is nobody else whose word would
let it go on. Terms are the lock's, rising by one. Its effects have to be harmless when they come
late: a process that was paused between asking ``require`` and acting acts all the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aggregator.leadership.elected import ElectedLeadership, Health
from aggregator.leadership.elector import boottime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.leadership.claims import Peer
    from aggregator.leadership.election import Candidate
    from aggregator.leadership.lock import Lock
    from aligned.model import Term


class _Nobody:
    """A beat that nobody else hears."""

    members: Sequence[Peer] = ()


class Unfenced:
    """Implements ``Claims`` where there is no store: nothing is refused, nobody is heard of."""

    known_fence = (0, "")
    is_outbox_readable = True

    async def beat(self, pod: str, facts: bytes) -> _Nobody:
        del pod, facts
        return _Nobody()

    async def claim(self, term: Term, holder: str) -> object:
        del term, holder
        return None

    async def confirm(self, term: Term, holder: str) -> None:
        del term, holder


def unfenced(
    candidate: Candidate, lock: Callable[[], Lock], *, clock: Callable[[], float] = boottime
) -> ElectedLeadership:
    """Return leadership by the lock alone; ``run`` it beside its users.

    A handover asked for by annotation is declined, since no candidate knows of another.

    Args:
        candidate: Who we are.
        lock: Makes the lock, in the elector's loop.
        clock: Seconds; the same in all threads.
    """
    health = Health(
        head_age=lambda: 0.0, signs=lambda: True, operators=lambda: True, window=lambda: True
    )
    alone = replace(candidate, fenced=False)
    return ElectedLeadership(alone, lock, Unfenced(), health, clock=clock)
