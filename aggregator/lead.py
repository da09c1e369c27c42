"""Scope: leader's work lives exactly as long as its term and carries the term's number."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from aligned.errors import Deposed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aggregator.ports import Leadership
    from aligned.model import Term

logger = logging.getLogger(__name__)


async def while_leading(
    leadership: Leadership, work: Callable[[Term, str], Awaitable[NoReturn]]
) -> NoReturn:
    """Run ``work(term, holder)`` in every term this replica leads.

    The end of a term cancels ``work``; the next term starts it afresh. Any other failure of
    ``work`` propagates. Cancelling stops the work first and releases the term then.

    Raises:
        CancelledError: Cancelled.
    """
    while True:
        term, holder = await leadership.acquire()
        logger.info("leading", extra={"term": term, "holder": holder})
        try:
            async with asyncio.TaskGroup() as scope:
                scope.create_task(_end_with(leadership, term), name="term")
                # In the body, not as a task: before Python 3.13 a group that fails with its body
                # finished leaves a stale cancellation behind.
                await work(term, holder)
        except* Deposed as deposed:
            logger.warning(
                "the term is over: another replica leads; this one goes on collecting",
                extra={"term": term, "reason": str(deposed.exceptions[0])},
            )
        finally:
            await leadership.release(term)
        # Before Python 3.13 a group that is cancelled and fails at once raises the failure alone.
        # Going on to the next term would ignore the cancellation.
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise asyncio.CancelledError


async def _end_with(leadership: Leadership, term: Term) -> NoReturn:
    await leadership.keep(term)
    msg = f"term {term} ended"
    raise Deposed(msg)
