"""What all connections of one ingress have in common."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aggregator.ingress.statistics import Statistics
from aligned.wire.compiled import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.ingress.census import Census
    from aggregator.ingress.proxy import Trust
    from aggregator.ingress.statistics import Ending
    from aggregator.ports import Clock, Receiver
    from aggregator.settings import Listen

_LOG_LINES_PER_SWEEP = 10


class Flow(Protocol):
    """A connection as all are steered; hashed by identity."""

    def flush(self) -> None:
        """Write what is to be sent, go on with what was held back."""

    def proceed(self) -> None:
        """Take calls again."""

    def sweep(self, now: float) -> None:
        """End if a deadline is over."""

    def finish(self, ending: Ending) -> None:
        """Write what was answered and close."""

    def abort(self, ending: Ending) -> None:
        """Close without writing anything."""


@dataclass(slots=True)
class Shared:
    """Settings, counters and the steering of traffic between connections."""

    listen: Listen
    receiver: Receiver
    clock: Clock
    trust: Trust
    census: Census
    call_soon: Callable[..., object]
    """Of the event loop."""
    statistics: Statistics = field(default_factory=Statistics)
    memory: Memory = field(default_factory=Memory)
    connections: set[Flow] = field(default_factory=set)
    """All, until their sockets are closed."""
    active: int = 0
    """Those of them that were not ended from this side."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection ended or is gone."""
    draining: bool = False
    """No connection takes another call."""
    paused: bool = False
    """No connection takes another call for now."""
    _held: dict[Flow, None] = field(default_factory=dict)
    _unflushed: list[Flow] = field(default_factory=list)
    _log_lines: int = _LOG_LINES_PER_SWEEP

    def connected(self, connection: Flow) -> None:
        """Count ``connection`` in."""
        self.connections.add(connection)
        self.active += 1
        self.statistics.connections_opened += 1
        self.statistics.connections_open += 1

    def ended(self, ending: Ending) -> None:
        """Count a connection as ended; its socket may stay open for a moment."""
        self.active -= 1
        self.statistics.connections_ended[ending] += 1
        self.changed.set()

    def disconnected(self, connection: Flow) -> None:
        """Count ``connection`` out."""
        self.connections.discard(connection)
        self._held.pop(connection, None)
        self.statistics.connections_open -= 1
        self.changed.set()

    def flush_soon(self, connection: Flow) -> None:
        """Flush ``connection`` in the next round of the loop, with all others: one write each."""
        if not self._unflushed:
            self.call_soon(self._flush)
        self._unflushed.append(connection)

    def _flush(self) -> None:
        connections, self._unflushed = self._unflushed, []
        for connection in connections:
            connection.flush()

    def hold(self, connection: Flow) -> None:
        """Let ``connection`` proceed when the pause is over."""
        self._held[connection] = None

    def resume(self) -> None:
        """End the pause: those held back proceed in their order, until there is another pause."""
        self.paused = False
        for connection in list(self._held):
            if self.paused:
                return
            del self._held[connection]
            connection.proceed()

    def may_log(self) -> bool:
        """Tell whether strangers have not caused too many lines since the last sweep."""
        self._log_lines -= 1
        return self._log_lines >= 0

    def allow_logs(self) -> None:
        """Begin to count lines anew."""
        self._log_lines = _LOG_LINES_PER_SWEEP
