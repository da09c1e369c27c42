"""Stage: bring what the chain tells into memory, on every replica.

::

    head ──▶ reorgs ──▶ events of the last blocks ──▶ Batches
                        whole expiry window (start, hourly, each term) ──▶ Batches
    Batches without operators ──▶ Registry.operators_at ──▶ Batches

Everything is level-triggered and repeated, so that nothing hangs on having seen one event: each
look reads the last blocks again, and the contract's storage is asked about all that is open.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from aggregator import ports
from aggregator.chain.heads import Heads, Tip
from aggregator.chain.outage import Outage
from aggregator.chain.window import Scope, Window
from aggregator.ports import Progress
from aligned.chain import blocks
from aligned.errors import ChainUnavailable
from aligned.model import BlockRef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aggregator.batches import Batches
    from aggregator.chain.heads import Step
    from aligned.chain.blocks import Header
    from aligned.chain.rpc import Rpc
    from aligned.model import Batch, BatchId

__all__ = ["Scope", "Tip", "Watch"]

logger = logging.getLogger(__name__)

RESCAN_INTERVAL: Final = 3600.0
"""Seconds."""
_SETS_AT_ONCE: Final = 8
_ORPHAN_PATIENCE: Final = 3
"""Blocks until the contract is asked about a batch that no event has shown."""
_ORPHANS_AT_ONCE: Final = 100


class Registry(ports.Registry, Protocol):
    """The registry, as the watcher drives it."""

    async def sync(self, head: BlockRef) -> None:
        """Read registrations up to ``head``.

        Raises:
            ChainUnavailable: No endpoint answers.
        """


class Watch:
    """Keeps ``Batches`` and the registry level with the chain.

    Error handling: an endpoint that fails only delays; the loops end by cancellation alone.
    """

    def __init__(
        self,
        rpc: Rpc,
        registry: Registry,
        batches: Batches,
        scope: Scope,
        *,
        poll_interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._rpc = rpc
        self._registry = registry
        self._batches = batches
        self._clock = clock
        self._heads = Heads(rpc)
        self._window = Window(rpc, batches, self._heads, scope, clock)
        self._poll_interval = poll_interval
        self._outage = Outage()
        self._tip: Tip | None = None
        self._looked_at: float | None = None
        self._finalized: BlockRef | None = None
        self._read: BlockRef | None = None
        """Head up to which events were read."""
        self._registry_head: BlockRef | None = None
        self._asked: set[BatchId] = set()
        self._new_head = asyncio.Event()
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()
        self._rescan_wanted = asyncio.Event()
        self._rescanning = asyncio.Lock()
        self._complete = asyncio.Event()
        batches.on_change(self._changed)

    # What others ask.

    @property
    def tip(self) -> Tip | None:
        """The newest block; None before the first look."""
        return self._tip

    @property
    def head(self) -> BlockRef | None:
        """Number and hash of ``tip``."""
        return None if self._tip is None else self._tip.header.ref

    @property
    def height(self) -> int:
        """From which block on what is kept without a batch ages; 0: no ``tip`` that is present."""
        return self._aging(self.head)

    def _aging(self, block: BlockRef | None) -> int:
        is_present = self._tip is not None and self._tip.is_present
        return block.number if block is not None and is_present else 0

    @property
    def finalized(self) -> BlockRef | None:
        """The finalized block; the one 64 under the head on chains that name none."""
        return self._finalized

    @property
    def looked_at(self) -> float | None:
        """When the chain last answered a look at its head, by the clock."""
        return self._looked_at

    @property
    def overdue(self) -> float:
        """Seconds by which an answer to a look at the head is late; infinite before the first."""
        if self._looked_at is None:
            return inf
        return max(0.0, self._clock() - self._looked_at - self._poll_interval)

    @property
    def failures(self) -> int:
        """Looks that failed, in a row."""
        return self._outage.failures.get("head", 0)

    @property
    def is_complete(self) -> bool:
        """Tell whether the whole expiry window and the state of all that is held were read."""
        return self._complete.is_set()

    @property
    def settled(self) -> BlockRef | None:
        """The block from which a later run may scan: what was created before it is settled.

        None before the first whole scan of batches and of registrations.
        """
        if not self.is_complete or self._finalized is None or self._registry.synced is None:
            return None
        waiting = [
            state.batch.created
            for state in self._batches
            if state.batch is not None
            and (state.answered is None or state.answered.number > self._finalized.number)
        ]
        return min([self._finalized, *waiting], key=lambda block: block.number)

    async def next_head(self) -> BlockRef:
        """Wait for another head than the present one."""
        return await self._head_other_than(self.head)

    async def _head_other_than(self, before: BlockRef | None) -> BlockRef:
        while True:
            head = self.head
            if head is not None and head != before:
                return head
            await self._new_head.wait()

    async def complete(self) -> None:
        """Wait until the whole expiry window and the state of all that is held were read."""
        await self._complete.wait()

    @property
    def progress(self) -> Progress | None:
        """What is settled; None until ``is_complete``.

        Its height is of the last block whose events were read: after hours without the chain the
        head is far above it, and batches between the two would pass for never created.
        """
        oldest = self._window.oldest if self.is_complete else None
        if oldest is None or self._finalized is None or self._read is None:
            return None
        return Progress(self._aging(self._read), self._finalized.number, oldest)

    async def next_progress(self) -> Progress:
        """See ``aggregator.sweep.Watched.next_progress``."""
        while True:
            await self.next_head()
            if (progress := self.progress) is not None:
                return progress

    def set_poll_interval(self, seconds: float) -> None:
        """Look this often from now on: standbys may look at the chain less often."""
        self._poll_interval = seconds
        self._hurry.set()

    def want_rescan(self) -> None:
        """Have the whole expiry window read again soon, as at the start of a term."""
        self._rescan_wanted.set()

    # Loops.

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as loops:
            for name, work, wait in (
                ("registry", self._sync_registry, self._registry_behind),
                ("operators", self.attach, self._news.wait),
                ("window", self.rescan, self._rescan_due),
            ):
                loops.create_task(self._repeat(name, work, wait), name=f"watch {name}")
            await self._repeat("head", self.poll, self._pause)

    async def _repeat(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        wait: Callable[[], Awaitable[object]],
    ) -> NoReturn:
        while True:
            try:
                await work()
            except ChainUnavailable as away:
                await asyncio.sleep(self._outage.failed(name, away))
            else:
                self._outage.worked(name)
                await wait()

    async def _pause(self) -> None:
        self._hurry.clear()
        await _wait(self._hurry, self._poll_interval)

    async def _rescan_due(self) -> None:
        await _wait(self._rescan_wanted, RESCAN_INTERVAL)

    async def _registry_behind(self) -> None:
        await self._head_other_than(self._registry_head)

    # One pass of each loop.

    async def poll(self) -> None:
        """Look at the head; if it is new, read the events of the last blocks.

        Raises:
            ChainUnavailable: No endpoint answers, or the chain moved meanwhile: call again.
        """
        step = await self._heads.advance()
        self._looked_at = self._clock()
        head = step.head
        if step.gone:
            self._retract(step)
        if self.head != head.ref:
            self._publish(head)
        if self._read != head.ref:
            final = await self._final(head)
            await self._window.read_recent(head, final)
            self._finalized = final
            self._read = head.ref

    def _retract(self, step: Step) -> None:
        logger.info(
            "chain reorganized",
            extra={
                "blocks": len(step.gone),
                "first": min(block.number for block in step.gone),
                "head": step.head.number,
            },
        )
        self._window.retract(step.gone, step.head.number)
        if step.is_deep:
            logger.error(
                "reorg deeper than finality: everything is read again. See whether the endpoints "
                "follow the right chain",
                extra={"head": step.head.number},
            )
            self.want_rescan()

    def _publish(self, head: Header) -> None:
        self._tip = Tip(head, self._clock())
        published, self._new_head = self._new_head, asyncio.Event()
        published.set()
        self._news.set()

    async def _final(self, head: Header) -> BlockRef:
        header = await blocks.finalized(self._rpc)
        if header is not None:
            return header.ref
        number = max(head.number - blocks.FINALITY_DEPTH, 0)
        known = self._heads.hash_at(number)
        if known is None:
            (header,) = await blocks.headers(self._rpc, [number])
            known = header.hash
        return BlockRef(number, known)

    async def _sync_registry(self) -> None:
        head = self.head or await self.next_head()
        await self._registry.sync(head)
        self._registry_head = head

    async def rescan(self) -> None:
        """Read the whole expiry window again; errors as for ``poll``.

        Raises:
            ChainUnavailable: No endpoint answers, or the chain moved meanwhile: call again.
        """
        async with self._rescanning:
            self._rescan_wanted.clear()
            if self._tip is None:
                await self.next_head()
            await self._read_window()

    async def _read_window(self) -> None:
        if self._tip is None:
            return
        head = self._tip.header
        final = await self._final(head)
        await self._window.read_whole(head, final)
        self._finalized = self._finalized or final
        self._complete.set()

    async def attach(self) -> None:
        """Read the operator sets of open batches that lack them, and ask about orphans.

        Raises:
            ChainUnavailable: Not all could be read: call again.
        """
        self._news.clear()
        lacking = [
            state.batch
            for state in self._batches
            if state.batch is not None and state.answered is None and state.operators is None
        ]
        turns = asyncio.Semaphore(_SETS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            reads = [
                group.create_task(self._attach_one(batch, turns), name="operators of a batch")
                for batch in lacking
            ]
        await self._ask_orphans()  # first: one set that cannot be read must not hide batches
        for read in reads:
            failure = read.result()
            if failure is not None:
                raise failure

    async def _attach_one(self, batch: Batch, turns: asyncio.Semaphore) -> ChainUnavailable | None:
        async with turns:
            try:
                operators = await self._registry.operators_at(batch.created)
            except ChainUnavailable as away:
                return away
        self._batches.set_operators(batch, operators)
        return None

    async def _ask_orphans(self) -> None:
        """Ask the contract about batches that signatures came for and no event has shown.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        head = self.head
        if head is None:
            return
        orphans = [s for s in self._batches if s.batch is None and s.answered is None]
        self._asked &= {state.batch_id for state in orphans}
        due = [
            state
            for state in orphans
            if state.batch_id not in self._asked
            and (state.orphan_since or 0) + _ORPHAN_PATIENCE <= head.number
        ][:_ORPHANS_AT_ONCE]
        if due:
            await self._window.ask(due, head)
            self._asked.update(state.batch_id for state in due)

    def _changed(self, batch_id: BatchId) -> None:
        state = self._batches.get(batch_id)
        if state is not None and state.is_open and state.operators is None:
            self._news.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
