"""Says once that the chain is away, and once that it is back."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aligned.errors import ChainUnavailable

logger = logging.getLogger(__name__)

_FIRST_BACK_OFF: Final = 0.25
"""Seconds; doubles with each failure up to ``_LAST_BACK_OFF``."""
_LAST_BACK_OFF: Final = 10.0
_AWAY_AFTER: Final = 3
"""Failures in a row that are worth a line: one may be a reorg in the middle of a look."""


class Outage:
    """Failures of loops that read the chain, and how long each waits before it tries again."""

    def __init__(self) -> None:
        self.failures: dict[str, int] = {}
        """In a row, by loop; without those that work."""
        self._told = False
        self._jitter = random.SystemRandom()

    def failed(self, name: str, away: ChainUnavailable) -> float:
        """Count a failure and return the seconds to wait."""
        count = self.failures[name] = self.failures.get(name, 0) + 1
        if count >= _AWAY_AFTER and not self._told:
            self._told = True
            logger.warning(
                "chain away: responses are still taken, nothing new is seen or answered. See the "
                "reason, then the endpoints",
                extra={"reading": name, "reason": str(away)},
            )
        back_off = min(_FIRST_BACK_OFF * (1 << min(count - 1, 10)), _LAST_BACK_OFF)
        return back_off * self._jitter.uniform(0.5, 1.0)

    def worked(self, name: str) -> None:
        """Take note of a success."""
        self.failures.pop(name, None)
        if self._told and not self.failures:
            self._told = False
            logger.info("chain is back")
