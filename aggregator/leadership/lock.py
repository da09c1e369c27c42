"""Port: the one record that replicas compete for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aligned.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aggregator.leadership.election import Record


class LockAway(Unavailable):
    """The lock cannot be reached, or does not answer, or does not let us: all the same to us."""


class LockTaken(Exception):
    """The lock has changed since it was read; read it again."""


@dataclass(frozen=True, slots=True)
class Held:
    """The record as it was read or written."""

    record: Record
    version: str
    """Another one after every change."""
    source: Any = None
    """What else the lock keeps with it, handed back at the next write."""


class Lock(Protocol):
    """One record with compare and swap.

    No call has a deadline of its own: the caller sets one, and cancelling a write leaves open
    whether it happened. For one event loop.
    """

    async def read(self) -> Held:
        """Return the record as it is now, not as it was.

        Raises:
            LockAway: It cannot be read, or does not exist.
        """

    async def write(self, seen: Held, record: Record) -> Held:
        """Replace the record, if it is still the one seen.

        Raises:
            LockTaken: It is another one. Nothing was written.
            LockAway: It cannot be written, or whether it was is not known.
        """

    def watch(self) -> AsyncGenerator[Held, None]:
        """Yield the record, and then each time it changed; ends or raises when that breaks.

        Changes may come late, and several as one.

        Raises:
            LockAway: It cannot be watched.
        """

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
