"""Patience of tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

SECONDS = 60.0
"""Much longer than anything takes, also on a machine that is busy with other tests."""


async def until(
    holds: Callable[[], bool | Awaitable[bool]], what: str, *, seconds: float = SECONDS
) -> None:
    """Wait until ``holds``, which is asked again and again."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = holds()
                if await answer if inspect.isawaitable(answer) else answer:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
