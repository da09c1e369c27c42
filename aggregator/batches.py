"""The replica's memory: batches that are not final yet, and every signature held for them.

A grow-only set beside what the chain told. No I/O, no clock: times are handed in, heights come
from the chain, so two replicas with the same inputs hold the same state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aligned.model import (
        Batch,
        BatchId,
        BlockHash,
        BlockRef,
        Entry,
        OperatorId,
        OperatorSet,
        Signature,
    )

ORPHAN_QUOTA = 256
"""Batches not on chain that one operator may have signatures for."""

FINAL_MEMORY = 8192
"""Answered and finalized batches that are remembered, so that late signatures cost nothing."""


@dataclass(slots=True)
class BatchState:
    """Everything known of one batch id."""

    batch_id: BatchId
    batch: Batch | None = None
    """None while the chain does not show it: early signatures, invented or reorged-away batches."""
    operators: OperatorSet | None = None
    """Quorum 0 at the batch's block; None until read, and again after a reorg moved the batch."""
    signatures: dict[OperatorId, Signature] = field(default_factory=dict)
    """Each one verified."""
    orphan_since: int | None = None
    """Chain height since which the batch has been held without being on chain."""
    answered: BlockRef | None = None
    """The block with its ``BatchVerified``, as long as that block is in the chain."""

    @property
    def is_open(self) -> bool:
        """On chain and not answered there."""
        return self.batch is not None and self.answered is None


class Batches:
    """Unresolved batches by id.

    ``on_change`` callbacks get the id of a batch whenever something about it may let it be
    answered, or shows that it was.
    """

    def __init__(self) -> None:
        self._states: dict[BatchId, BatchState] = {}
        self._orphans_of: Counter[OperatorId] = Counter()
        self._refuted: dict[BatchId, set[tuple[OperatorId, Signature]]] = {}
        self._final: dict[BatchId, None] = {}
        self._listeners: list[Callable[[BatchId], None]] = []

    def on_change(self, listener: Callable[[BatchId], None]) -> None:
        """Call ``listener`` at each change from now on, in the thread of the loop, at once."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[BatchState]:
        return iter(list(self._states.values()))

    def __len__(self) -> int:
        return len(self._states)

    def get(self, batch_id: BatchId) -> BatchState | None:
        """Return what is known of a batch."""
        return self._states.get(batch_id)

    def signature(self, batch_id: BatchId, operator_id: OperatorId) -> Signature | None:
        """Return the verified signature held for this pair."""
        state = self._states.get(batch_id)
        return None if state is None else state.signatures.get(operator_id)

    def is_final(self, batch_id: BatchId) -> bool:
        """Tell whether the chain has finalized this batch's answer (of the last few thousand)."""
        return batch_id in self._final

    # What operators brought.

    def has_room(self, batch_id: BatchId, operator_id: OperatorId) -> bool:
        """Tell whether a signature for this pair may be kept.

        Always for batches on chain, up to ``ORPHAN_QUOTA`` others per operator.
        """
        state = self._states.get(batch_id)
        if state is not None and (state.batch is not None or operator_id in state.signatures):
            return True
        return self._orphans_of[operator_id] < ORPHAN_QUOTA

    def keep(self, entries: Iterable[Entry], *, height: int) -> list[Entry]:
        """Add verified entries; ``height`` is the chain's. Return those that were new.

        Entries that were refuted before are left out.
        """
        new = []
        changed: dict[BatchId, None] = {}
        for entry in entries:
            batch_id, operator_id, signature = entry
            if (operator_id, signature) in self._refuted.get(batch_id, ()):
                continue
            state = self._states.get(batch_id)
            if state is None:
                state = self._states[batch_id] = BatchState(batch_id, orphan_since=height)
            if operator_id in state.signatures:
                continue
            state.signatures[operator_id] = signature
            if state.batch is None:
                self._orphans_of[operator_id] += 1
            new.append(entry)
            changed[batch_id] = None
        for batch_id in changed:
            self._tell(batch_id)
        return new

    def evict(self, entries: Iterable[Entry]) -> None:
        """Remove entries found bad after all and never take them again while the batch lives."""
        for batch_id, operator_id, signature in entries:
            self._refuted.setdefault(batch_id, set()).add((operator_id, signature))
            state = self._states.get(batch_id)
            if state is not None and state.signatures.get(operator_id) == signature:
                del state.signatures[operator_id]
                if state.batch is None:
                    self._orphans_of[operator_id] -= 1
                self._tell(batch_id)

    def date_orphans(self, height: int) -> None:
        """Let signatures without a batch that came before any head was seen age from ``height``."""
        for state in self._states.values():
            if state.batch is None and not state.orphan_since:
                state.orphan_since = height

    # What the chain told.

    def open(self, batch: Batch) -> None:
        """Record a batch seen on chain.

        Repeats change nothing; another block replaces the first and what was derived from it.
        """
        state = self._states.get(batch.batch_id)
        if state is None:
            state = self._states[batch.batch_id] = BatchState(batch.batch_id)
        if state.batch == batch:
            return
        if state.batch is None:
            self._orphans_of.subtract(state.signatures.keys())
        state.batch = batch
        state.operators = None
        state.orphan_since = None
        self._tell(batch.batch_id)

    def set_operators(self, batch: Batch, operators: OperatorSet) -> None:
        """Attach the operator set of ``batch``; ignored if the batch has moved since."""
        state = self._states.get(batch.batch_id)
        if state is not None and state.batch == batch:
            state.operators = operators
            self._tell(batch.batch_id)

    def answer(self, batch_id: BatchId, block: BlockRef) -> None:
        """Record that the chain shows ``batch_id`` as answered in ``block``."""
        state = self._states.get(batch_id)
        if state is not None and state.answered != block:
            state.answered = block
            self._tell(batch_id)

    def retract(self, hashes: Iterable[BlockHash], *, height: int) -> None:
        """Undo what blocks told that are no longer in the chain; their signatures stay."""
        gone = set(hashes)
        for state in self:
            changed = False
            if state.answered is not None and state.answered.hash in gone:
                state.answered = None
                changed = True
            if state.batch is not None and state.batch.created.hash in gone:
                state.batch = None
                state.operators = None
                state.answered = None
                state.orphan_since = height
                self._orphans_of.update(state.signatures.keys())
                changed = True
            if changed:
                self._tell(state.batch_id)

    def finish(self, batch_ids: Iterable[BatchId]) -> None:
        """Drop batches whose answer is final."""
        for batch_id in batch_ids:
            self._final[batch_id] = None
            self._drop(batch_id)
        while len(self._final) > FINAL_MEMORY:
            del self._final[next(iter(self._final))]

    def forget(self, batch_ids: Iterable[BatchId]) -> None:
        """Drop batches that are given up, with all their signatures."""
        for batch_id in batch_ids:
            self._drop(batch_id)

    def _drop(self, batch_id: BatchId) -> None:
        self._refuted.pop(batch_id, None)
        state = self._states.pop(batch_id, None)
        if state is None:
            return
        if state.batch is None:
            self._orphans_of.subtract(state.signatures.keys())
        self._tell(batch_id)

    def _tell(self, batch_id: BatchId) -> None:
        for listener in self._listeners:
            listener(batch_id)
