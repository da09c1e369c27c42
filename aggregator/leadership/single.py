"""Leadership of a process that has no rivals."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from aligned.errors import Deposed
from aligned.model import Term

if TYPE_CHECKING:
    from collections.abc import Callable


class SingleLeadership:
    """``Leadership`` where this process always leads.

    A term is still a new one at every start: the journal's fence tells writes of this start from
    those of one before, and the first claim makes the new term durable.
    """

    def __init__(self, last_term: Callable[[], Term]) -> None:
        """Prepare a new holder.

        Args:
            last_term: The newest claimed term, 0 before the first.
        """
        self._last_term = last_term
        self._acquired = Term(0)
        self._holder = f"single-{secrets.token_hex(8)}"

    async def acquire(self) -> tuple[Term, str]:
        self._acquired = Term(max(self._acquired, self._last_term()) + 1)
        return self._acquired, self._holder

    async def keep(self, term: Term) -> None:
        await asyncio.Event().wait()

    def require(self, term: Term) -> None:
        if term != self._acquired:
            msg = f"term {term} is over: term {self._acquired} began"
            raise Deposed(msg)

    async def release(self, term: Term) -> None:
        """Do nothing: nobody waits for it."""
