"""Tells Aligned's telemetry service what happens to a batch, as the Go aggregator does.

Nobody waits for it: calls are queued, the oldest are dropped when it does not keep up, and
nothing that happens to it reaches the stages.

Source: ``aggregator/pkg/telemetry.go`` of aligned_layer: paths, bodies, the 10 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

if TYPE_CHECKING:
    from aggregator.ports import Clock
    from aligned.model import OperatorId, TransactionHash, Wei

logger = logging.getLogger(__name__)

QUEUE = 256
"""Calls that wait; the oldest is dropped for a new one."""

TIMEOUT = 2.0
"""Seconds per call."""

FINISH_AFTER = 10.0
"""Seconds between the end of a batch and its last call, for responses that are still coming."""

_PATH = "/api/"


class Call(NamedTuple):
    """One HTTP POST."""

    due: float
    name: str
    body: dict[str, str]


class UpstreamTelemetry:
    """Queues and sends.

    The methods return at once and never raise; without ``url`` they do nothing.

    Args:
        url: Base URL of the service, or None.
        clock: Seconds.
        finish_after: Delay of ``finish_task`` in seconds.
    """

    def __init__(
        self, url: str | None, clock: Clock, *, finish_after: float = FINISH_AFTER
    ) -> None:
        self._url = None if url is None else url.rstrip("/") + _PATH
        self._clock = clock
        self._finish_after = finish_after
        self._calls: deque[Call] = deque(maxlen=QUEUE)
        self._finished: deque[Call] = deque(maxlen=QUEUE)
        self._queued = asyncio.Event()
        self._failing = False
        self.sent = 0
        self.dropped = 0
        """Never sent, or not taken by the service."""

    @property
    def is_told(self) -> bool:
        """Whether there is a service to tell."""
        return self._url is not None

    def init_task(self, merkle_root: bytes) -> None:
        """Tell that a batch was seen on chain."""
        self._add("initTaskTrace", {"merkle_root": _hex(merkle_root)})

    def operator_response(self, merkle_root: bytes, operator_id: OperatorId) -> None:
        """Tell that an operator's response arrived."""
        body = {"merkle_root": _hex(merkle_root), "operator_id": _hex(operator_id)}
        self._add("operatorResponse", body)

    def quorum_reached(self, merkle_root: bytes) -> None:
        """Tell that enough stake has signed."""
        self._add("quorumReached", {"merkle_root": _hex(merkle_root)})

    def task_error(self, merkle_root: bytes, error: str) -> None:
        """Tell that a batch cannot be answered now."""
        self._add("taskError", {"merkle_root": _hex(merkle_root), "error": error})

    def gas_price(self, merkle_root: bytes, fee: Wei) -> None:
        """Tell the fee per gas that the answer offers."""
        body = {"merkle_root": _hex(merkle_root), "gas_price": str(fee)}
        self._add("aggregatorTaskSetGasPrice", body)

    def task_sent(self, merkle_root: bytes, transaction: TransactionHash | None, fee: Wei) -> None:
        """Tell the mined answer and what it paid per gas; None where the answer is not ours."""
        body = {
            "merkle_root": _hex(merkle_root),
            "tx_hash": "Unknown" if transaction is None else _hex(transaction),
            "effective_gas_price": str(fee),
        }
        self._add("aggregatorTaskSent", body)

    def finish_task(self, merkle_root: bytes) -> None:
        """Tell, some seconds later, that the batch is done."""
        self._add("finishTaskTrace", {"merkle_root": _hex(merkle_root)}, self._finish_after)

    async def run(self) -> None:
        """Send until cancelled; return at once without ``url``."""
        if self._url is None:
            return
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                call = await self._next()
                self._judge(await self._send(session, call))

    def _add(self, name: str, body: dict[str, str], delay: float = 0.0) -> None:
        if self._url is None:
            return
        queue = self._finished if delay else self._calls
        self.dropped += len(queue) == QUEUE
        queue.append(Call(self._clock() + delay, name, body))
        self._queued.set()

    async def _next(self) -> Call:
        """Return the next call when it is due; what must wait lets the others pass."""
        while True:
            self._queued.clear()
            wait: float | None = None
            if self._finished:
                wait = self._finished[0].due - self._clock()
                if wait <= 0:
                    return self._finished.popleft()
            if self._calls:
                return self._calls.popleft()
            try:
                async with asyncio.timeout(wait):
                    await self._queued.wait()
            except TimeoutError:
                continue

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> str | None:
        """Return what went wrong, or None."""
        url = f"{self._url}{call.name}"
        try:
            async with session.post(url, json=call.body, allow_redirects=False) as response:
                return None if response.ok else f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__

    def _judge(self, problem: str | None) -> None:
        """Count, and say it once when the service goes and when it is back."""
        if problem is None:
            self.sent += 1
            if self._failing:
                logger.info("upstream telemetry is back", extra={"dropped": self.dropped})
            self._failing = False
            return
        self.dropped += 1
        if not self._failing:
            logger.warning(
                "upstream telemetry does not answer; batches go on without it; check"
                " telemetry.upstream_url",
                extra={"problem": problem},
            )
        self._failing = True


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
