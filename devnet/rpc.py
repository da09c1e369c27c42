"""A small JSON-RPC client for driving the chain; the product has its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 30.0


class CallFailed(Exception):
    """The node answered a call with an error.

    Attributes:
        error: As the node sent it.
        code: JSON-RPC error code.
        data: The error's data, e.g. revert bytes as hex.
    """

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        super().__init__(f"{method}: {error.get('message')}")
        self.error = error
        self.code: int = error.get("code", 0)
        self.data: Any = error.get("data")


class NodeAway(Exception):
    """The node does not answer."""


class Node:
    """A JSON-RPC endpoint over HTTP. Holds nothing open, so any event loop may use it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result of one call.

        Raises:
            CallFailed: The node answered with an error.
            NodeAway: No answer.
        """
        (result,) = await self.batch([(method, list(params))])
        return result

    async def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Return the results of calls sent as one request, in their order.

        Raises:
            CallFailed: The node answered one of them with an error; the others were made.
            NodeAway: No answer.
        """
        request = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": params}
            for index, (method, params) in enumerate(calls)
        ]
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self.url, json=request) as response,
            ):
                answers = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as away:
            raise NodeAway(f"{self.url}: {type(away).__name__} {away}") from away
        by_id = {answer["id"]: answer for answer in answers}
        results = []
        for index, (method, _) in enumerate(calls):
            if "error" in by_id[index]:
                raise CallFailed(method, by_id[index]["error"])
            results.append(by_id[index]["result"])
        return results
