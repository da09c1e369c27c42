from __future__ import annotations

import asyncio

import pytest

from aggregator.together import together


async def give(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fail(error: Exception) -> int:
    await asyncio.sleep(0)
    raise error


async def hang() -> int:
    await asyncio.Event().wait()
    return 0


async def test_both_results_come_in_order() -> None:
    assert await together(give(1), give(2)) == (1, 2)


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
async def test_an_error_of_either_comes_as_it_is_and_ends_the_other(first: bool) -> None:
    error = ValueError("so")
    work = (fail(error), hang()) if first else (hang(), fail(error))
    with pytest.raises(ValueError, match="so") as raised:
        await together(*work)
    assert raised.value is error


@pytest.mark.parametrize("failing", ["first", "second", "neither"])
async def test_a_cancellation_wins_over_an_error_of_the_same_moment(failing: str) -> None:
    moment = asyncio.Event()

    async def fail_then() -> int:
        await moment.wait()
        raise ValueError("at the same moment")

    async def go_on_after_errors() -> str:
        first = fail_then() if failing == "first" else hang()
        second = fail_then() if failing == "second" else hang()
        try:
            await together(first, second)
        except ValueError:
            return "went on"
        return "returned"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(go_on_after_errors())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        moment.set()
        task.cancel()
    assert task.cancelled()


async def test_a_deadline_outside_stays_a_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await together(hang(), hang())
