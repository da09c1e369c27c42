"""Asks Ethereum endpoints which chain they serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import aiohttp

from aligned.chain import transport
from aligned.chain.transport import TransportFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 3.0
"""Seconds for all endpoints together."""

_MAX_REPLY = 65536


async def chain_id(urls: Sequence[str]) -> int | None:
    """Return the chain id of the first of ``urls`` that answers; None when none does in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as session:
            for url in urls:
                found = await _ask(session, url)
                if found is not None:
                    return found
    return None


async def _ask(session: aiohttp.ClientSession, url: str) -> int | None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    try:
        async with session.post(url, json=call) as reply:
            answer = json.loads(await transport.read(reply, _MAX_REPLY))
        return int(answer["result"], 16)
    except (aiohttp.ClientError, TransportFailed, OSError, ValueError, TypeError, KeyError):
        return None
