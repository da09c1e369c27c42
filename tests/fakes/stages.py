"""Fakes of what the receiving stages talk to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aggregator.ports import KnownOperator, ReplyCode, Standing
from aligned.errors import DiskRefused
from aligned.model import BlockRef, Entry, Operator, OperatorId, OperatorSet
from tests.fakes.builders import block, operator


class ManualClock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class RecordingCaller:
    """Remembers what it was told, in order."""

    def __init__(self, source: str = "192.0.2.1") -> None:
        self.standing = Standing()
        self.source = source
        self.replies: list[tuple[int, ReplyCode | str]] = []
        self.hung_up = False

    def answer(self, seq: int, code: ReplyCode) -> None:
        self.replies.append((seq, code))

    def fail(self, seq: int, error: str) -> None:
        self.replies.append((seq, error))

    def hang_up(self) -> None:
        self.hung_up = True


@dataclass
class Known:
    """A registered operator whose key is a plain object."""

    operator: Operator
    key: object = field(default_factory=object)


class DictRegistry:
    """Operators 1..n are registered; ``register`` adds one."""

    def __init__(self, *numbers: int) -> None:
        self.known: dict[OperatorId, KnownOperator] = {}
        self.synced: BlockRef | None = block(1)
        self.sets: dict[BlockRef, OperatorSet] = {}
        for number in numbers:
            self.register(number)

    def register(self, number: int) -> None:
        self.known[operator(number).operator_id] = Known(operator(number))

    def operator(self, operator_id: OperatorId) -> KnownOperator | None:
        return self.known.get(operator_id)

    async def operators_at(self, block: BlockRef) -> OperatorSet:
        return self.sets[block]


class ListJournal:
    """Appends wait while ``held``; ``broken`` makes them fail."""

    def __init__(self) -> None:
        self.groups: list[list[Entry]] = []
        self.free = asyncio.Event()
        self.free.set()
        self.entered = asyncio.Event()
        self.broken = False
        self.on_append: Callable[[], None] = lambda: None

    async def append(self, entries: Sequence[Entry], *, height: int) -> None:
        del height
        self.entered.set()
        await self.free.wait()
        self.on_append()
        if self.broken:
            msg = "disk full"
            raise DiskRefused(msg)
        self.groups.append(list(entries))
