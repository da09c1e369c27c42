"""Scope: leader's work lives exactly as long as its term and carries the term's number."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from aggregator.ports import End, RowTaken, TermOver
from aligned.errors import AlignedError, Deposed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aggregator.ports import Leadership
    from aligned.model import Term

logger = logging.getLogger(__name__)

_TOLD = {
    End.LOST: (
        logging.WARNING,
        "the term is over: another replica leads; this one goes on collecting. If often, see why",
    ),
    End.SUSPENDED: (
        logging.WARNING,
        "the term's work is suspended until the store confirms the term. Check store and lock",
    ),
    End.UNFIT: (
        logging.WARNING,
        "the term is over: this replica cannot do the work, another takes over. Mend the reason",
    ),
    End.ASKED: (logging.INFO, "the term is over: this replica was asked to give it up"),
}


async def while_leading(
    leadership: Leadership, work: Callable[[Term, str], Awaitable[NoReturn]]
) -> NoReturn:
    """Run ``work(term, holder)`` in every term this replica leads.

    The end of a term cancels ``work``; the next term starts it afresh. An outbox that holds what
    the term did not know ends it too: the next claim reads it. Any other failure of ``work``
    propagates. Cancelling stops the work first and releases the term then.

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
        except* (Deposed, RowTaken) as ended:
            _tell(term, list(_leaves(ended)))
        finally:
            await leadership.release(term)
        # Before Python 3.13 a group that is cancelled and fails at once raises the failure alone.
        # Going on to the next term would ignore the cancellation.
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise asyncio.CancelledError


async def _end_with(leadership: Leadership, term: Term) -> NoReturn:
    await leadership.keep(term)
    raise TermOver(End.ASKED, f"term {term} ended")


def _leaves(group: BaseExceptionGroup[AlignedError]) -> Iterator[AlignedError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _tell(term: Term, reasons: list[AlignedError]) -> None:
    """Say how the work ended: by the election's word, if it has one."""
    reason = next((each for each in reasons if isinstance(each, TermOver)), reasons[0])
    facts = {"term": term, "reason": str(reason)}
    if isinstance(reason, RowTaken):
        logger.error(
            "the term is given up and begun anew: the shared outbox holds a transaction that it "
            "did not know, which now counts. If this happens again, find out who else signs with "
            "this key or writes to this store",
            extra=facts,
        )
        return
    level, told = _TOLD[reason.end if isinstance(reason, TermOver) else End.LOST]
    logger.log(level, told, extra=facts)
