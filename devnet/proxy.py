"""A JSON-RPC proxy in front of the chain whose faults are switched while it runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from devnet.faults import (
    Faults,
    Lagging,
    check_log_range,
    check_replacement,
    refusal,
    transaction_hash,
)
from devnet.rpc import CallFailed, Node, NodeAway

if TYPE_CHECKING:
    from types import TracebackType

_POLL_SECONDS = 0.01
_END_SECONDS = 0.01  # aiohttp takes 0 for no limit
_MAX_BYTES = 64 * 1024 * 1024


class Proxy:
    """One endpoint in front of a node.

    Resource handling: an async context manager; requests that are held are dropped at its end.
    """

    def __init__(self, upstream: str) -> None:
        self.faults = Faults()
        """Set these at any time."""
        self.counts: Counter[str] = Counter()
        """Calls by method, also those that were refused."""
        self.swallowed: list[str] = []
        """Raw transactions that were not forwarded."""
        self.port = 0
        """Chosen at the start and kept."""
        self._holding = asyncio.Event()
        self._node = Node(upstream)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        """HTTP address."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=_MAX_BYTES)
        application.router.add_post("/", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=_END_SECONDS
        )
        await self._runner.setup()
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def refuse(self) -> None:
        """Refuse new connections and end those there are."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        if self._runner is not None and self._runner.server is not None:
            await self._runner.server.shutdown(_END_SECONDS)

    async def accept(self) -> None:
        """Accept connections (again).

        Raises:
            OSError: The port was taken meanwhile.
        """
        if self._site is None and self._runner is not None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
            await self._site.start()
            self.port = self._runner.addresses[0][1]

    async def held(self) -> None:
        """Wait until a request or call has been held, now or before."""
        await self._holding.wait()

    async def _handle(self, request: web.Request) -> web.Response:
        calls = await request.json()
        while self.faults.hang:
            self._holding.set()
            await asyncio.sleep(_POLL_SECONDS)
        await asyncio.sleep(self.faults.delay_seconds)
        if self.faults.status is not None:
            self._count(calls)
            return web.Response(status=self.faults.status, text="refused by the fault proxy")
        if isinstance(calls, list):
            return web.json_response([await self._answer(call) for call in calls])
        return web.json_response(await self._answer(calls))

    def _count(self, calls: Any) -> None:
        for call in calls if isinstance(calls, list) else [calls]:
            self.counts[call["method"]] += 1

    async def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        self._count(call)
        answer = {"jsonrpc": "2.0", "id": call.get("id")}
        while call["method"] in self.faults.hanging:
            self._holding.set()
            await asyncio.sleep(_POLL_SECONDS)
        try:
            result = await self._result(call["method"], call.get("params", []))
        except CallFailed as failed:
            return {**answer, "error": failed.error}
        except NodeAway as away:
            return {**answer, "error": {"code": -32603, "message": str(away)}}
        return {**answer, "result": result}

    async def _result(self, method: str, params: list[Any]) -> Any:
        faults = self.faults
        if (error := refusal(faults, method)) is not None:
            raise error.failure(method)
        if faults.chain_id is not None and method in {"eth_chainId", "net_version"}:
            return hex(faults.chain_id) if method == "eth_chainId" else str(faults.chain_id)
        if method == "eth_sendRawTransaction":
            return await self._send(params)
        if method == "eth_getLogs" and faults.log_limit is not None:
            await check_log_range(faults.log_limit, params, self._forward)
        if faults.lag_blocks:
            return await Lagging(faults.lag_blocks, self._forward).call(method, params)
        return await self._forward(method, params)

    async def _send(self, params: list[Any]) -> Any:
        raw = params[0]
        if self.faults.strict_replacement:
            await check_replacement(raw, self._forward)
        if self.faults.swallow_sends:
            self.swallowed.append(raw)
            return transaction_hash(raw)
        return await self._forward("eth_sendRawTransaction", params)

    async def _forward(self, method: str, params: list[Any]) -> Any:
        return await self._node.call(method, *params)
