"""Stage: forget what the chain has settled, on every replica.

Nothing is forgotten by a clock: an answer must be final on chain, a batch older than the expiry
window of blocks, a signature without a batch some thousand blocks old.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from aligned.errors import StoreUnavailable
from aligned.model import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aggregator.batches import Batches, BatchState
    from aggregator.ports import Progress
    from aligned.model import BatchId

logger = logging.getLogger(__name__)

ORPHAN_BLOCKS = 1800
"""Blocks (six hours on Ethereum) that signatures wait for their batch to appear on chain."""


class Forgets(Protocol):
    """What sweeping needs of journal and store alike."""

    async def forget(self, batches: Sequence[BatchId]) -> None:
        """Delete every entry of ``batches``.

        Raises:
            StoreUnavailable: The store is away.
        """


class Disk(Forgets, Protocol):
    """The part of the journal that sweeping needs."""

    async def append(self, entries: Sequence[Entry], *, height: int) -> None:
        """Make ``entries`` durable on this machine."""


class Shared(Forgets, Protocol):
    """The part of the store that sweeping needs."""

    async def put(self, entries: Sequence[Entry]) -> None:
        """See ``Store.put``."""


class Watched(Protocol):
    """The part of the watcher that sweeping needs."""

    async def next_progress(self) -> Progress:
        """Wait for a new head once the whole expiry window was read, and return what is settled."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What may go. Disjoint."""

    final: tuple[BatchId, ...]
    expired: tuple[BatchId, ...]
    orphans: tuple[BatchId, ...]


def is_settled(state: BatchState, progress: Progress) -> bool:
    """Tell whether a batch needs no more attention. Pure."""
    if state.answered is not None:
        return state.answered.number <= progress.finalized
    if state.batch is not None:
        return state.batch.created.number < progress.oldest
    since = state.orphan_since
    return since is not None and 0 < since <= progress.height - ORPHAN_BLOCKS


def settled(batches: Batches, progress: Progress) -> Settled:
    """Return the batches that need no more attention. Pure."""
    gone = [state for state in batches if is_settled(state, progress)]
    return Settled(
        final=tuple(one.batch_id for one in gone if one.answered),
        expired=tuple(one.batch_id for one in gone if one.batch and not one.answered),
        orphans=tuple(one.batch_id for one in gone if not one.batch and not one.answered),
    )


class Sweeper:
    """Forgets at each new head."""

    def __init__(self, batches: Batches, journal: Disk, store: Shared, watched: Watched) -> None:
        self._batches = batches
        self._journal = journal
        self._store = store
        self._watched = watched

    async def run(self) -> NoReturn:
        """Sweep until cancelled. A store that is away is swept with the next batches."""
        while True:
            progress = await self._watched.next_progress()
            await self.sweep(progress)

    async def sweep(self, progress: Progress) -> None:
        """Forget what ``progress`` settles: store first, so that nothing comes back from there."""
        self._batches.date_orphans(progress.height)
        gone = settled(self._batches, progress)
        given_up = gone.expired + gone.orphans
        everything = gone.final + given_up
        if not everything:
            return
        before = {batch_id: self._size(batch_id) for batch_id in given_up}
        for batch_id in gone.expired:
            logger.error(
                "batch expired without an answer: it is given up. See docs/runbook.md, expired",
                extra={"batch": batch_id},
            )
        try:
            await self._store.forget(everything)
            await self._journal.forget(everything)
            revived = self._revived(before, progress)
            self._batches.finish(gone.final)
            self._batches.forget(each for each in given_up if each not in revived)
            await self._keep(revived.values(), progress.height)
        except StoreUnavailable as away:
            logger.info("sweep put off: the store is away", extra={"reason": str(away)})
            return
        await asyncio.sleep(0)

    def _size(self, batch_id: BatchId) -> int:
        state = self._batches.get(batch_id)
        return 0 if state is None else len(state.signatures)

    def _revived(
        self, before: Mapping[BatchId, int], progress: Progress
    ) -> dict[BatchId, BatchState]:
        """Return what of ``before`` got a signature or appeared on chain while it was forgotten."""
        gone = settled(self._batches, progress)
        still = {*gone.expired, *gone.orphans}
        return {
            state.batch_id: state
            for state in self._batches
            if state.batch_id in before
            and (state.batch_id not in still or len(state.signatures) > before[state.batch_id])
        }

    async def _keep(self, revived: Iterable[BatchState], height: int) -> None:
        """Write what memory holds of batches again: some of it was acknowledged meanwhile.

        All of it goes into the journal first: should the store be away, a union brings it what
        it lacks, but nothing would bring it back to this disk.
        """
        groups = [
            [Entry(state.batch_id, *pair) for pair in state.signatures.items()] for state in revived
        ]
        await self._journal.append([entry for group in groups for entry in group], height=height)
        for group in groups:
            await self._store.put(group)
