from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

import pytest

from aggregator.batches import Batches
from aggregator.ports import ReplyCode
from aggregator.receive import HOLD_SECONDS, UNKNOWN_OPERATOR, Intake, Neighbours
from aggregator.search import LOOK_SECONDS, Search
from aligned.errors import ChainUnavailable
from aligned.model import OperatorId
from tests.fakes import virtual_time
from tests.fakes.builders import response
from tests.fakes.stages import DictRegistry, RecordingCaller

ACCEPTED = ReplyCode.ACCEPTED


class Searched(DictRegistry):
    """Nobody is known at first. ``registered`` are found by a search of so many ``seconds``."""

    def __init__(self, *registered: int, seconds: float = 0.5) -> None:
        super().__init__()
        self.registered = registered
        self.seconds = seconds
        self.away = False

    async def look_up(self, ids: Iterable[OperatorId]) -> Sequence[OperatorId]:
        await asyncio.sleep(self.seconds)
        if self.away:
            raise ChainUnavailable("no endpoint")
        for number in self.registered:
            self.register(number)
        return list(ids)


class World:
    """One call of operator 9, from 0 s on; what verifies is accepted at once."""

    def __init__(self, registry: Searched) -> None:
        self.registry = registry
        self.caller = RecordingCaller()

    async def after(self, seconds: float) -> list[tuple[int, ReplyCode | str]]:
        """Search for so long; return what the caller was told."""
        intake = Intake(
            Batches(),
            self.registry,
            Neighbours(
                check=lambda incoming: intake.judge([(incoming, True)]),
                commit=lambda incoming: incoming.answer(ACCEPTED),
                pause=lambda: None,
                resume=lambda: None,
                measure=lambda commit: None,
            ),
            virtual_time.now,
        )
        intake.receive(response(by=9), self.caller, 1)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await Search(intake, self.registry, virtual_time.now).run()
        return self.caller.replies


def told(registry: Searched, *, after: float) -> list[tuple[int, ReplyCode | str]]:
    return virtual_time.run(World(registry).after(after))


def test_an_operator_that_is_found_is_answered() -> None:
    assert told(Searched(9), after=LOOK_SECONDS + 0.6) == [(1, ACCEPTED)]


def test_an_operator_that_is_not_on_chain_gets_an_error() -> None:
    assert told(Searched(8), after=LOOK_SECONDS + 0.6) == [(1, UNKNOWN_OPERATOR)]


@pytest.mark.parametrize("seconds", [0.5, 3600.0], ids=["refused", "slow"])
def test_a_call_is_held_no_longer_than_promised_whatever_the_search_does(seconds: float) -> None:
    registry = Searched(9, seconds=seconds)
    registry.away = True
    assert told(registry, after=HOLD_SECONDS - 0.1) == []
    assert told(registry, after=HOLD_SECONDS + LOOK_SECONDS + 0.1) == [(1, UNKNOWN_OPERATOR)]


def test_an_operator_that_a_scan_shows_meanwhile_does_not_wait_for_the_search() -> None:
    registry = Searched(seconds=3600.0)

    async def scan() -> list[tuple[int, ReplyCode | str]]:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(World(registry).after(20.0))
            await asyncio.sleep(10.0)
            registry.register(9)
        return telling.result()

    assert virtual_time.run(scan()) == [(1, ACCEPTED)]
