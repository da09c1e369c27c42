"""The tip of the chain as linked headers, and the reorgs that shows.

A reorg is proven by hashes, never by an event's absence: a node that lags or has not indexed yet
leaves events out without a word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligned.chain import blocks
from aligned.chain.rpc import BlockMissing
from aligned.errors import ChainUnavailable
from aligned.model import BlockRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.chain.blocks import Header
    from aligned.chain.rpc import Rpc
    from aligned.model import BlockHash

KEPT: Final = 128
"""Blocks whose hashes are remembered; finality is 64 to 96 deep."""
STALE_SECONDS: Final = 3600.0
"""A head that is older is of a node that catches up. In an hour fewer blocks come than let a
signature without a batch go."""
_SLICE: Final = 50
"""Headers asked for at once over a gap."""
_STEP: Final = 8
"""Headers asked for at once when looking for the root of a fork."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest block, and when it was first seen."""

    header: Header
    seen_at: float
    """By the clock."""

    @property
    def is_present(self) -> bool:
        """Tell whether blocks pass as time does, by the block's own time.

        A node that catches up goes through hours in minutes, and batches that operators sign now
        would pass for never created before it comes to their blocks.
        """
        return self.header.timestamp > time.time() - STALE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one look at the chain showed."""

    head: Header
    gone: tuple[BlockRef, ...] = ()
    """Blocks that were in the chain and are no longer."""
    is_deep: bool = False
    """The fork is older than what is remembered: nothing derived from the chain is certain."""


class Heads:
    """Follows the chain's tip."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._head: Header | None = None
        self._hashes: dict[int, BlockHash] = {}
        """By number; consecutive."""

    @property
    def head(self) -> Header | None:
        """The newest block that is linked; None before the first look."""
        return self._head

    def hash_at(self, number: int) -> BlockHash | None:
        """Return the hash of one of the last blocks; None if it is not remembered."""
        return self._hashes.get(number)

    async def advance(self) -> Step:
        """Look at the head, link it to what is known, and return what changed.

        A head that is an ancestor of the known one comes from a node that lags: it changes
        nothing.

        Raises:
            BlockMissing: The chain moved while it was read: look again.
            ChainUnavailable: No endpoint answers.
        """
        head = await blocks.latest(self._rpc)
        known = self._head
        if known is None:
            await self._link(head)
            return Step(head=head)
        lowest = min(self._hashes)
        if head.number < lowest or self._hashes.get(head.number) == head.hash:
            return Step(head=known)
        if head.number - known.number >= KEPT:
            return await self._leap(head, known)
        return await self._link(head)

    async def _leap(self, head: Header, known: Header) -> Step:
        """Go on after a time without the chain, too long to link.

        Raises:
            ChainUnavailable: As for ``_link``; nothing has changed then.
        """
        (then,) = await blocks.headers(self._rpc, [known.number])
        before, self._hashes = self._hashes, {}
        try:
            await self._link(head)
        except ChainUnavailable:
            self._hashes = before
            raise
        moved = then.hash != known.hash
        gone = tuple(BlockRef(*block) for block in before.items()) if moved else ()
        return Step(head=head, gone=gone, is_deep=moved)

    async def _link(self, head: Header) -> Step:
        """Read down from ``head`` until its chain meets the known one.

        Raises:
            BlockMissing: The chain moved meanwhile.
            ChainUnavailable: No endpoint answers.
        """
        branch = [head]
        lowest = max(head.number - KEPT + 1, 0)
        while branch[-1].number > lowest and not self._meets(branch[-1]):
            wanted = self._next_slice(branch[-1].number, lowest)
            for header in await blocks.headers(self._rpc, wanted):
                if header.hash != branch[-1].parent:
                    msg = f"the chain moved while block {header.number} was read"
                    raise BlockMissing(msg)
                branch.append(header)
                if self._meets(header):
                    break
        is_deep = bool(self._hashes) and not self._meets(branch[-1])
        return self._adopt(head, branch, is_deep=is_deep)

    def _meets(self, header: Header) -> bool:
        return self._hashes.get(header.number - 1) == header.parent

    def _next_slice(self, above: int, lowest: int) -> Sequence[int]:
        top = max(self._hashes, default=-1)
        gap = above - 1 - top
        size = min(gap, _SLICE) if gap > 0 else _STEP
        return range(above - 1, max(above - 1 - size, lowest - 1), -1)

    def _adopt(self, head: Header, branch: Sequence[Header], *, is_deep: bool) -> Step:
        new = {header.number: header.hash for header in branch}
        root = branch[-1].number
        gone = tuple(
            BlockRef(number, old)
            for number, old in self._hashes.items()
            if is_deep or (number >= root and new.get(number) != old)
        )
        kept = {} if is_deep else {n: h for n, h in self._hashes.items() if n < root}
        self._hashes = dict(sorted((kept | new).items())[-KEPT:])
        self._head = head
        return Step(head=head, gone=gone, is_deep=is_deep)
