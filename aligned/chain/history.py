"""What happened to batches over a range of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligned.chain import abi, events
from aligned.chain.logs import Filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aligned.chain.events import Answered
    from aligned.chain.logs import Bite, Logs
    from aligned.model import Address, Batch

    Histories = AsyncIterator["History"]


@dataclass(frozen=True, slots=True)
class History:
    """Events of some blocks, both ends included, in chain order."""

    first: int
    last: int
    batches: tuple[Batch, ...]
    answered: tuple[Answered, ...]


async def scan(logs: Logs, service_manager: Address, first: int, last: int) -> Histories:
    """Yield the range part by part, ascending.

    Raises:
        ChainUnavailable: No endpoint answers.
    """
    wanted = Filter(service_manager, ((abi.NEW_BATCH_V3, abi.BATCH_VERIFIED),))
    async for bite in logs.scan(wanted, first, last):
        yield _history(bite)


def _history(bite: Bite) -> History:
    batches, answered = [], []
    for log in bite.logs:
        if log.topics[0] == abi.NEW_BATCH_V3:
            batches.append(events.new_batch(log))
        else:
            answered.append(events.batch_verified(log))
    return History(bite.first, bite.last, tuple(batches), tuple(answered))
