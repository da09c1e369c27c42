from __future__ import annotations

import asyncio

from aggregator.telemetry.heartbeat import DEAD_AFTER, Heartbeat


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_beat_that_is_too_old_counts_as_dead() -> None:
    clock = Hand()
    heart = Heartbeat(clock, lambda _: None)
    clock.now += DEAD_AFTER - 0.1
    assert heart.is_alive
    clock.now += 0.2
    assert not heart.is_alive


async def test_beats_keep_it_alive_and_tell_how_late_they_are() -> None:
    clock = Hand()
    lags: list[float] = []
    enough = asyncio.Event()

    def observe(lag: float) -> None:
        lags.append(lag)
        clock.now += 7.0  # as if the loop had been blocked
        if len(lags) == 3:
            enough.set()

    heart = Heartbeat(clock, observe)
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(heart.run())
        await enough.wait()
        beating.cancel()
    assert lags == [0.0, 0.0, 0.0]
    assert heart.age == 7.0


async def test_a_late_beat_is_observed_as_late() -> None:
    clock = Hand()
    lags: list[float] = []
    enough = asyncio.Event()

    def observe(lag: float) -> None:
        lags.append(lag)
        enough.set()

    async with asyncio.TaskGroup() as group:
        beating = group.create_task(Heartbeat(clock, observe).run())
        await asyncio.sleep(0)
        clock.now += 3.25
        await enough.wait()
        beating.cancel()
    assert lags == [3.0]
