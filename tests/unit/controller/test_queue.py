from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from controller.queue import Backoff, WorkQueue
from tests.fakes.virtual_time import now, run

EXACT = Backoff(random=lambda: 0.0)


def a_queue(backoff: Backoff = EXACT) -> WorkQueue[str]:
    return WorkQueue(now, backoff)


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test in virtual time."""

    def test() -> None:
        run(story())

    return test


async def take(queue: WorkQueue[str], count: int) -> list[tuple[str, float]]:
    taken = []
    for _ in range(count):
        key = await queue.get()
        taken.append((key, round(now(), 6)))
        queue.done(key)
    return taken


async def is_empty(queue: WorkQueue[str]) -> bool:
    try:
        async with asyncio.timeout(0):
            await queue.get()
    except TimeoutError:
        return True
    return False


@told
async def test_keys_come_in_the_order_they_were_added() -> None:
    queue = a_queue()
    for key in "cab":
        queue.add(key)
    assert [key for key, _ in await take(queue, 3)] == list("cab")


@told
async def test_repeats_count_once() -> None:
    queue = a_queue()
    for _ in range(5):
        queue.add("a")
    assert queue.depth == 1
    await take(queue, 1)
    assert await is_empty(queue)


@told
async def test_a_worker_that_waits_gets_what_is_added() -> None:
    queue = a_queue()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(take(queue, 1))
        await asyncio.sleep(3)
        queue.add("a")
    assert waiting.result() == [("a", 3.0)]


@told
async def test_what_is_added_during_its_pass_comes_once_after_it() -> None:
    queue = a_queue()
    queue.add("a")
    assert await queue.get() == "a"
    for _ in range(3):
        queue.add("a")
    assert await is_empty(queue)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert await is_empty(queue)


@told
async def test_a_key_comes_when_it_is_due() -> None:
    queue = a_queue()
    queue.add_after("late", 7)
    queue.add_after("soon", 2)
    queue.add("now")
    assert queue.waiting == 2
    assert await take(queue, 3) == [("now", 0.0), ("soon", 2.0), ("late", 7.0)]


@told
async def test_the_earliest_time_counts() -> None:
    queue = a_queue()
    queue.add_after("a", 5)
    queue.add_after("a", 2)
    queue.add_after("a", 9)
    assert queue.waiting == 1
    assert await take(queue, 1) == [("a", 2.0)]
    await asyncio.sleep(20)
    assert await is_empty(queue)


@told
async def test_what_is_added_now_is_not_due_later_again() -> None:
    queue = a_queue()
    queue.add_after("a", 5)
    queue.add("a")
    queue.add_after("a", 5)
    assert await take(queue, 1) == [("a", 0.0)]
    await asyncio.sleep(20)
    assert await is_empty(queue)


@told
async def test_what_falls_due_during_its_pass_comes_after_it() -> None:
    queue = a_queue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add_after("a", 1)
    await asyncio.sleep(5)
    assert await is_empty(queue)
    queue.done("a")
    assert await queue.get() == "a"


@told
async def test_pauses_grow_up_to_a_cap_and_begin_anew_after_a_success() -> None:
    queue = a_queue(Backoff(base=0.2, cap=1.0, random=lambda: 0.0))
    pauses = []
    for _ in range(5):
        before = now()
        queue.add_rate_limited("a")
        await take(queue, 1)
        pauses.append(round(now() - before, 6))
    assert pauses == [0.2, 0.4, 0.8, 1.0, 1.0]
    assert queue.failing == 1
    queue.forget("a")
    assert queue.failing == 0
    before = now()
    queue.add_rate_limited("a")
    await take(queue, 1)
    assert round(now() - before, 6) == 0.2


@told
async def test_who_was_asked_to_wait_waits_at_least_so_long() -> None:
    queue = a_queue()
    queue.add_rate_limited("a", at_least=30)
    assert await take(queue, 1) == [("a", 30.0)]


@told
async def test_a_long_row_of_failures_pauses_for_five_minutes() -> None:
    queue = a_queue()
    for _ in range(5000):
        queue.add_rate_limited("a")
        await take(queue, 1)
    before = now()
    queue.add_rate_limited("a")
    await take(queue, 1)
    assert now() - before == pytest.approx(300.0)


def test_jitter_takes_a_fifth_at_most() -> None:
    assert Backoff(random=lambda: 0.0).pause(3) == pytest.approx(0.8)
    assert Backoff(random=lambda: 0.5).pause(3) == pytest.approx(0.72)
    assert Backoff(random=lambda: 1.0).pause(3) == pytest.approx(0.64)


@told
async def test_events_do_not_make_the_queue_longer_than_there_are_keys() -> None:
    queue = a_queue()
    for turn in range(10_000):
        queue.add_after(f"key {turn % 3}", 1000 - turn / 100)
    assert queue.waiting == 3
    assert len(queue._timetable) < 100
    assert [key for key, _ in await take(queue, 3)] == ["key 0", "key 2", "key 1"]


@told
async def test_a_worker_that_is_cancelled_loses_nothing() -> None:
    queue = a_queue()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(1)
        queue.add("a")
        for one in waiting:
            one.cancel()
    assert [one.result() for one in waiting if not one.cancelled()] in ([], ["a"])
    if all(one.cancelled() for one in waiting):
        assert await queue.get() == "a"


KEYS = st.sampled_from("abc")
SECONDS = st.floats(min_value=0, max_value=5)
EVENTS = st.lists(
    st.tuples(SECONDS, st.sampled_from(["add", "after", "limited"]), KEYS, SECONDS), max_size=30
)
WORK = st.lists(st.tuples(SECONDS, st.booleans()), min_size=1, max_size=10)


@settings(deadline=None, max_examples=200)
@given(events=EVENTS, work=WORK, workers=st.integers(1, 4))
def test_a_key_is_never_in_two_workers_and_no_event_is_lost(
    events: list[tuple[float, str, str, float]], work: list[tuple[float, bool]], workers: int
) -> None:
    run(_story(events, work, workers))


class Office:
    """Workers who note what they do."""

    def __init__(self, work: list[tuple[float, bool]]) -> None:
        self.queue = a_queue()
        self.plan = iter(work)
        self.held: Counter[str] = Counter()
        self.asked: dict[str, float] = {}
        """When a pass was last asked for."""
        self.began: dict[str, float] = {}

    async def work(self) -> None:
        while True:
            key = await self.queue.get()
            self.held[key] += 1
            assert self.held[key] == 1
            self.began[key] = now()
            seconds, fails = next(self.plan, (0.0, False))
            await asyncio.sleep(seconds)
            if fails:
                self.ask("limited", key, 0.0)
            else:
                self.queue.forget(key)
            self.held[key] -= 1
            self.queue.done(key)

    def ask(self, how: str, key: str, seconds: float) -> None:
        self.asked[key] = now()
        if how == "add":
            self.queue.add(key)
        elif how == "after":
            self.queue.add_after(key, seconds)
        else:
            self.queue.add_rate_limited(key)


async def _story(
    events: list[tuple[float, str, str, float]], work: list[tuple[float, bool]], workers: int
) -> None:
    office = Office(work)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(office.work()) for _ in range(workers)]
        for pause, how, key, seconds in events:
            await asyncio.sleep(pause)
            office.ask(how, key, seconds)
        await asyncio.sleep(1000)
        assert (office.queue.depth, office.queue.waiting, office.held.total()) == (0, 0, 0)
        assert all(office.began[key] >= office.asked[key] for key in office.asked)
        for one in running:
            one.cancel()
