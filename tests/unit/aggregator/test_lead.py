from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from aggregator.lead import while_leading
from aligned.errors import Deposed
from aligned.model import Term


class ScriptedLeadership:
    """Terms 1, 2, ...; ``end`` ends the one under way. Records what happens, in order."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.term = 0
        self.ended = asyncio.Event()

    async def acquire(self) -> tuple[Term, str]:
        self.term += 1
        self.ended = asyncio.Event()
        self.log.append(f"acquired {self.term}")
        return Term(self.term), "me"

    async def keep(self, term: Term) -> None:
        del term
        await self.ended.wait()

    async def release(self, term: Term) -> None:
        self.log.append(f"released {term}")


async def test_work_ends_with_its_term_and_starts_afresh_in_the_next() -> None:
    log: list[str] = []
    leadership = ScriptedLeadership(log)
    third = asyncio.Event()

    async def work(term: Term, holder: str) -> NoReturn:
        log.append(f"work {term} by {holder}")
        try:
            if term == 3:
                third.set()
            else:
                leadership.ended.set()
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            log.append(f"stopped {term}")

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(while_leading(leadership, work))
        await third.wait()
        running.cancel()
    assert log == [
        f"{what}{number}{by}"
        for number in (1, 2, 3)
        for what, by in (
            ("acquired ", ""),
            ("work ", " by me"),
            ("stopped ", ""),
            ("released ", ""),
        )
    ]


async def test_a_refused_write_ends_the_term() -> None:
    log: list[str] = []
    leadership = ScriptedLeadership(log)
    second = asyncio.Event()

    async def work(term: Term, holder: str) -> NoReturn:
        del holder
        if term == 1:
            msg = "the fence is 2"
            raise Deposed(msg)
        second.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(while_leading(leadership, work))
        await second.wait()
        running.cancel()
    assert log == ["acquired 1", "released 1", "acquired 2", "released 2"]


async def test_a_bug_in_the_work_is_not_hidden() -> None:
    log: list[str] = []

    async def work(term: Term, holder: str) -> NoReturn:
        msg = f"bug in {term} of {holder}"
        raise ZeroDivisionError(msg)

    with pytest.raises(ExceptionGroup) as failure:
        await while_leading(ScriptedLeadership(log), work)
    assert failure.group_contains(ZeroDivisionError)
    assert log == ["acquired 1", "released 1"]


async def test_a_stop_at_the_moment_the_term_ends_is_a_stop() -> None:
    log: list[str] = []
    leadership = ScriptedLeadership(log)
    running = asyncio.Event()

    async def work(term: Term, holder: str) -> NoReturn:
        del term, holder
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        leading = group.create_task(while_leading(leadership, work))
        await running.wait()
        leadership.ended.set()
        leading.cancel()
    assert log == ["acquired 1", "released 1"]
