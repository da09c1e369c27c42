"""Edge: what the chain says of batches, brought into ``Batches``.

Two sources that cover for each other: events (cheap, over ranges) and the contract's storage
(certain, one batch at a time).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligned.chain import blocks, calldata, history
from aligned.chain.logs import Logs
from aligned.chain.rpc import BlockMissing, RpcError, eth_call, pinned, to_bytes
from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aggregator.batches import Batches, BatchState
    from aggregator.chain.heads import Heads
    from aligned.chain.blocks import Header
    from aligned.chain.calldata import BatchRecord
    from aligned.chain.events import Answered
    from aligned.chain.rpc import Rpc
    from aligned.model import Address, Batch, BatchId, BlockRef

REREAD: Final = 64
"""Blocks under the head that each look reads again."""
_ASKED_AT_ONCE: Final = 200
"""Batches looked up in one exchange."""
_TURN: Final = 200
"""Batches handled before others get a turn of the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is watched."""

    service_manager: Address
    deployment_block: int
    expiry: float
    """Seconds; older batches are not looked for."""
    start: BlockRef | None = None
    """``Watch.settled`` of an earlier run: where the first scan may begin."""


class Window:
    """Brings events and storage of the expiry window into ``batches``.

    Only what is in the chain that ``heads`` knows is taken.
    """

    def __init__(
        self,
        rpc: Rpc,
        batches: Batches,
        heads: Heads,
        scope: Scope,
        clock: Callable[[], float],
    ) -> None:
        self._rpc = rpc
        self._batches = batches
        self._heads = heads
        self._scope = scope
        self._logs = Logs(rpc, clock)
        self._start = scope.start
        self._read_to: int | None = None
        self.oldest: int | None = None
        """First block of the window, as of the last whole scan; None before the first."""

    def retract(self, gone: Sequence[BlockRef], height: int) -> None:
        """Undo what these blocks told."""
        self._batches.retract([block.hash for block in gone], height=height)
        if self._read_to is not None:
            self._read_to = min(self._read_to, *(block.number - 1 for block in gone))

    async def read_recent(self, head: Header, finalized: BlockRef) -> None:
        """Read the events since the last look, and those of ``REREAD`` blocks before.

        Raises:
            BlockMissing: The events are of another branch: look again.
            ChainUnavailable: No endpoint answers.
        """
        read_to = head.number if self._read_to is None else self._read_to
        first = max(read_to + 1 - REREAD, self._scope.deployment_block)
        async for part in self._history(first, head.number):
            await self._take(part.batches, part.answered, finalized)
        self._read_to = head.number

    async def read_whole(self, head: Header, finalized: BlockRef) -> None:
        """Read the whole expiry window's events, then ask storage about all that is not answered.

        Raises:
            BlockMissing: The chain moved meanwhile: do it again.
            ChainUnavailable: No endpoint answers.
        """
        lowest = self._scope.deployment_block
        since = head.timestamp - int(self._scope.expiry)
        oldest = await blocks.first_since(self._rpc, since, lowest, head)
        batches: dict[BatchId, Batch] = {}
        answered: dict[BatchId, Answered] = {}
        async for part in self._history(await self._from(oldest), head.number):
            batches.update((batch.batch_id, batch) for batch in part.batches)
            for answer in part.answered:
                if self._is_settled(answer, finalized):
                    batches.pop(answer.batch_id, None)
                else:
                    answered[answer.batch_id] = answer
            await asyncio.sleep(0)
        await self._take(batches.values(), answered.values(), finalized)
        self._start = None
        self.oldest = oldest
        # A long scan outlasts what most nodes keep of states, some 25 minutes: not as of ``head``.
        newest = self._heads.head or head
        await self.ask([state for state in self._batches if state.answered is None], newest.ref)

    async def _from(self, oldest: int) -> int:
        """Return where the scan begins: later than ``oldest`` if an earlier run settled the rest.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        start = self._start
        if start is None or start.number <= oldest:
            return oldest
        try:
            (header,) = await blocks.headers(self._rpc, [start.number])
        except BlockMissing:
            return oldest
        return start.number if header.hash == start.hash else oldest

    def _history(self, first: int, last: int) -> history.Histories:
        return history.scan(self._logs, self._scope.service_manager, first, last)

    def _is_settled(self, answer: Answered, finalized: BlockRef) -> bool:
        """Tell whether an answer is final, and nothing of its batch is held here."""
        return answer.block.number <= finalized.number and not self._batches.get(answer.batch_id)

    async def _take(
        self, batches: Iterable[Batch], answered: Iterable[Answered], finalized: BlockRef
    ) -> None:
        answers = {answer.batch_id: answer for answer in answered}
        for position, batch in enumerate(batches):
            self._check(batch.created)
            answer = answers.get(batch.batch_id)
            settled = answer is not None and self._is_settled(answer, finalized)
            if not settled and not self._batches.is_final(batch.batch_id):
                self._batches.open(batch)
            if position % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        for answer in answers.values():
            self._check(answer.block)
            self._batches.answer(answer.batch_id, answer.block)

    def _check(self, block: BlockRef) -> None:
        known = self._heads.hash_at(block.number)
        if known is not None and known != block.hash:
            msg = f"events of block {block.number} are of another branch"
            raise BlockMissing(msg)

    async def ask(self, states: Sequence[BatchState], head: BlockRef) -> None:
        """Ask the contract's storage, as of ``head``, about batches; correct what is wrong.

        Raises:
            BlockMissing: The chain moved meanwhile: do it again.
            ChainUnavailable: No endpoint answers.
        """
        unseen: set[int] = set()
        for start in range(0, len(states), _ASKED_AT_ONCE):
            part = states[start : start + _ASKED_AT_ONCE]
            records = await self._records([state.batch_id for state in part], head)
            self._check(head)
            for state, record in zip(part, records, strict=True):
                if self._correct(state, record, head):
                    unseen.add(record.created_block)
        for number in sorted(unseen):
            async for part_history in self._history(number, number):
                await self._take(part_history.batches, (), head)

    def _correct(self, state: BatchState, record: BatchRecord, head: BlockRef) -> bool:
        """Return whether the batch is in a block whose event is not in memory."""
        if record.responded:
            if state.answered is None:
                self._batches.answer(state.batch_id, head)
            return False
        batch = state.batch
        if batch is not None:
            is_newer = batch.created.number > head.number
            if is_newer or batch.created.number == record.created_block:
                return False
            self._batches.retract([batch.created.hash], height=head.number)
        return record.created_block >= max(self.oldest or 0, 1)

    async def _records(self, ids: Sequence[BatchId], head: BlockRef) -> list[BatchRecord]:
        contract, block = self._scope.service_manager, pinned(head.hash)
        answers = await self._rpc.call_many(
            [eth_call(contract, calldata.batches_state(batch_id), block) for batch_id in ids]
        )
        records = []
        for answer in answers:
            if isinstance(answer, RpcError):
                msg = f"the service manager refuses to read a batch: {answer}"
                raise ChainUnavailable(msg) from answer
            records.append(calldata.parse_batches_state(to_bytes(answer)))
        return records
