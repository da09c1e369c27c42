"""Two awaits at once with errors as if they were one, and other ways to wait for tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

A = TypeVar("A")
B = TypeVar("B")


async def together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Return both results. If one fails, the other is cancelled and the error raised as it is.

    A task group alone would wrap it, and every caller would have to unwrap it. A cancellation
    from outside wins over an error that comes at the same moment.

    Raises:
        CancelledError: The caller was cancelled.
    """
    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(first)
            # Both are awaited in the body: before Python 3.13 a group that fails with its body
            # finished leaves a stale cancellation behind.
            result = await second
            return await task, result
    except BaseExceptionGroup as group_failure:
        failure = group_failure.exceptions[0]
    # Before Python 3.13 a group that is cancelled and fails at once raises the failure alone.
    # Whoever caught that and went on could not be stopped any more.
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError from failure
    raise failure


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, A]) -> A | None:
    """Return the result of ``work``, or None if ``stop`` was set first."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name="start")
        stopping = group.create_task(stop.wait(), name="stop")
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        stopping.cancel()
    return None if task.cancelled() else task.result()


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel one after the other, each when the one before it has ended."""
    for task in tasks:
        task.cancel()
        await asyncio.wait({task})
