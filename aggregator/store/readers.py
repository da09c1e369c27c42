"""The format that all replicas read, if that has been so for long: pure.

A raised format shuts releases that do not read it out for good. A replica that we hear nothing of
is not gone: it may be cut off for a while, or the primary may just have forgotten everybody.
"""

from __future__ import annotations

STEADY_SECONDS = 300.0
"""For all replicas heard of to read a format, in one lineage of the primary, before it counts."""


class Readers:
    """What replicas said they read.

    Args:
        steady: Seconds that all have to read a format.
    """

    def __init__(self, steady: float = STEADY_SECONDS) -> None:
        self._steady = steady
        self._seen = (0, "")
        self._since = 0.0

    def see(self, reads: int, lineage: str, *, now: float) -> None:
        """Note what all replicas read that the primary of ``lineage`` names; 0: it names none."""
        if (reads, lineage) != self._seen:
            self._seen, self._since = (reads, lineage), now

    def agreed(self, *, now: float) -> int:
        """Return the highest format that all have read for long enough; 0: there is none."""
        reads, _ = self._seen
        return reads if now >= self._since + self._steady else 0
