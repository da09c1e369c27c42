from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from aggregator.lead import while_leading
from aggregator.ports import End, RowTaken, TermOver
from aligned.errors import AlignedError, Deposed
from aligned.model import Term


class ScriptedLeadership:
    """Terms 1, 2, ...; ``end`` ends the one under way. Records what happens, in order."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.over: TermOver | None = None
        """What ``keep`` raises at the end of a term."""
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
        if self.over is not None:
            raise self.over

    def require(self, term: Term) -> None:
        del term

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


async def second_term(leadership: ScriptedLeadership, error: AlignedError | None = None) -> None:
    """Lead a term that ends: by ``error`` from within its work, or as its keeper says."""
    second = asyncio.Event()

    async def work(term: Term, holder: str) -> NoReturn:
        del holder
        if term == 2:
            second.set()
        elif error is not None:
            async with asyncio.TaskGroup():  # as the submitting side has it
                raise error
        else:
            leadership.ended.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(while_leading(leadership, work))
        await second.wait()
        running.cancel()


@pytest.mark.parametrize(
    ("over", "level", "words"),
    [
        (TermOver(End.LOST, "held by pod-1"), "WARNING", "another replica leads"),
        (TermOver(End.SUSPENDED, "no answer"), "WARNING", "until the store confirms the term"),
        (TermOver(End.UNFIT, "its loop hangs"), "WARNING", "cannot do the work"),
        (TermOver(End.ASKED, "to pod-1"), "INFO", "was asked to give it up"),
    ],
    ids=lambda one: one.end.value if isinstance(one, TermOver) else "",
)
async def test_the_log_says_how_a_term_ended(
    over: TermOver, level: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    leadership = ScriptedLeadership([])
    leadership.over = over
    await second_term(leadership)
    [line] = [one for one in caplog.records if "term is over" in one.msg or "work is" in one.msg]
    assert (line.levelname, words in line.msg, vars(line)["reason"]) == (level, True, str(over))


async def test_the_log_names_the_store_that_refused_from_within_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await second_term(ScriptedLeadership([]), Deposed("the fence is at term 2, held by pod-1"))
    [line] = [one for one in caplog.records if "another replica leads" in one.msg]
    assert vars(line)["reason"] == "the fence is at term 2, held by pod-1"


async def test_an_outbox_that_holds_what_the_term_did_not_know_begins_a_new_term(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leadership = ScriptedLeadership([])
    await second_term(leadership, RowTaken("another transaction"))
    assert leadership.log == ["acquired 1", "released 1", "acquired 2", "released 2"]
    [line] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "begun anew" in line.msg
