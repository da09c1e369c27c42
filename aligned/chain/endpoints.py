"""Edge: the chain through an ordered list of endpoints.

Every request goes to the first endpoint that is healthy; to the next one if that does not answer
or lags. An ejected one is asked only when nobody else answers, and delays nobody. Raw transactions
go to all; an ejected one gets what it missed when a probe brings it back.

What a node says about the request itself (a revert, a bad parameter) is final: another node would
say the same, and asking it would hide what is wrong.

::

    unverified ──right chain──▶ healthy ──no answer──▶ ejected ──probe──▶ healthy
        └─────other chain─────▶ foreign ──probe, every minute──▶ …
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from aligned.chain import jsonrpc
from aligned.chain.endpoint import Chain, Endpoint, EndpointFailed, Source, WrongChain
from aligned.chain.reverts import SendRefusal, send_refusal
from aligned.chain.rpc import BlockMissing, Broadcast, RpcError, Sent, Undecodable, to_int
from aligned.chain.transport import Http
from aligned.errors import BadConfiguration, ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aligned.chain.transport import Transport
    from aligned.model import BlockHash

__all__ = ["EndpointStatus", "Endpoints", "Limits", "Source"]

logger = logging.getLogger(__name__)

FIRST_BACK_OFF: Final = 1.0
"""Seconds until an ejected endpoint is probed; doubles up to ``LAST_BACK_OFF``."""
LAST_BACK_OFF: Final = 30.0
FOREIGN_BACK_OFF: Final = 60.0
PROBE_INTERVAL: Final = 15.0
"""Seconds between looks at the head of a healthy endpoint."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When an endpoint is passed over."""

    timeout_seconds: float = 3.0
    """For one exchange."""
    max_head_age_seconds: float = 60.0
    """Its head may be this much older than the best endpoint's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """An endpoint as ``/status`` shows it."""

    name: str
    host: str
    healthy: bool
    head: int | None
    lag: int | None
    """Blocks behind the best endpoint."""
    last_error: str


class Endpoints:
    """``Rpc`` over several endpoints, in order of preference.

    Resource handling: owns its HTTP session for as long as the ``async with``; the owner runs
    ``keep_probing`` beside it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        chain_id: int,
        *,
        limits: Limits | None = None,
        genesis_hash: BlockHash | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or Limits()
        http = Http()
        self._http = http if transport is None else None
        self._chain = Chain(chain_id, genesis_hash)
        self._max_head_age = limits.max_head_age_seconds
        self._clock = clock
        self._jitter = random.SystemRandom()
        self._endpoints = tuple(
            Endpoint(source, transport or http, self._chain, timeout_seconds=limits.timeout_seconds)
            for source in sources
        )

    async def __aenter__(self) -> Self:
        if self._http is not None:
            await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"Endpoints({', '.join(map(repr, self._endpoints))})"

    @property
    def genesis_hash(self) -> BlockHash | None:
        """Hash of block 0; None until the first endpoint told it."""
        return self._chain.genesis_hash

    async def check(self) -> None:
        """Look at every endpoint once, at start.

        An endpoint that does not answer may come back; one of another chain stays unused.

        Raises:
            BadConfiguration: All of them belong to other chains.
        """
        for endpoint in self._endpoints:  # in order: the first one that is right names the genesis
            await self._probe(endpoint)
            if endpoint.is_verified:
                break
        await self._probe_all([e for e in self._endpoints if not e.is_verified])
        if all(endpoint.is_foreign for endpoint in self._endpoints):
            raise BadConfiguration(
                tuple(
                    f"chain.endpoints[{i}].url: {endpoint.name} ({endpoint.host}) "
                    f"{endpoint.last_error}"
                    for i, endpoint in enumerate(self._endpoints)
                )
            )

    # Requests. The contracts are on ``Rpc``.

    async def call(
        self, method: str, params: Sequence[object], *, reaching: int | None = None
    ) -> Any:
        """See ``Rpc.call``."""
        (answer,) = await self._ask([(method, params)], reaching=reaching)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def call_many(
        self, calls: Sequence[tuple[str, Sequence[object]]]
    ) -> list[Any | RpcError]:
        """See ``Rpc.call_many``."""
        return await self._ask(calls) if calls else []

    async def find(self, method: str, params: Sequence[object]) -> Any:
        """See ``Rpc.find``."""
        (answer,) = await self._ask([(method, params)], accepts_null=False)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def maximum(self, method: str, params: Sequence[object]) -> int:
        """See ``Rpc.maximum``."""
        answers = await self._ask_everyone(method, params)
        numbers, refusals, reasons = [], [], []
        for endpoint, answer in answers:
            if isinstance(answer, EndpointFailed):
                reasons.append((endpoint.name, str(answer)))
            elif isinstance(answer, RpcError):
                refusals.append(answer)
            else:
                try:
                    numbers.append(to_int(answer))
                except Undecodable as error:
                    reasons.append((endpoint.name, str(error)))
        if numbers:
            return max(numbers)
        if refusals:
            raise refusals[0]
        raise self._unavailable(reasons)

    async def broadcast(self, raw: bytes) -> Broadcast:
        """See ``Rpc.broadcast``."""
        answers = await self._ask_everyone(*_send(raw))
        reached = {e.name for e, answer in answers if not isinstance(answer, EndpointFailed)}
        for endpoint in self._endpoints:
            if endpoint.name not in reached and not endpoint.is_foreign:
                endpoint.miss(raw)
        return Broadcast(tuple(_sent(endpoint.name, answer) for endpoint, answer in answers))

    async def _ask_everyone(
        self, method: str, params: Sequence[object]
    ) -> list[tuple[Endpoint, Any | RpcError | EndpointFailed]]:
        """Ask all healthy endpoints at once; the ejected ones only if none of those answers.

        An ejected endpoint that hangs would cost a whole deadline each time.
        """
        known = [endpoint for endpoint in self._endpoints if not endpoint.is_foreign]
        ejected = [endpoint for endpoint in known if endpoint.ejected_until is not None]
        answers: list[tuple[Endpoint, Any | RpcError | EndpointFailed]] = []
        for some in ([endpoint for endpoint in known if endpoint not in ejected], ejected):
            async with asyncio.TaskGroup() as group:
                tasks = [
                    (endpoint, group.create_task(self._ask_one(endpoint, method, params)))
                    for endpoint in some
                ]
            answers += [(endpoint, task.result()) for endpoint, task in tasks]
            if any(not isinstance(answer, EndpointFailed) for _, answer in answers):
                break
        return answers

    async def _ask_one(self, endpoint: Endpoint, method: str, params: Sequence[object]) -> Any:
        try:
            (answer,) = await endpoint.ask([(method, params)])
        except EndpointFailed as failure:
            self._eject(endpoint, failure)
            return failure
        self._heal(endpoint)
        return answer

    async def _ask(
        self,
        calls: Sequence[tuple[str, Sequence[object]]],
        *,
        accepts_null: bool = True,
        reaching: int | None = None,
    ) -> list[Any | RpcError]:
        reasons: list[tuple[str, str]] = []
        second_best: list[Any | RpcError] | None = None
        lagging = 0
        for endpoint in self._in_order():
            if (lagging or second_best) and endpoint.ejected_until is not None:
                continue  # the last resort where nobody answers, not a second opinion
            try:
                answers = await endpoint.ask(calls, reaching=reaching)
            except EndpointFailed as failure:
                self._eject(endpoint, failure)
                reasons.append((endpoint.name, str(failure)))
                continue
            self._heal(endpoint)
            verdict, refusal = jsonrpc.worst(answers)
            if verdict is jsonrpc.Verdict.LAGS:
                lagging += 1
                reasons.append((endpoint.name, f"lags or has pruned the block: {refusal}"))
            elif verdict is not None or (not accepts_null and answers == [None]):
                second_best = answers if second_best is None else second_best
            else:
                return answers
        if second_best is not None:
            return second_best
        # Whoever failed may have reached it: what was asked of it was perhaps too much.
        is_missing = lagging > 0 and (reaching is None or lagging == len(reasons))
        raise self._unavailable(reasons, someone_lags=is_missing)

    def _unavailable(
        self, reasons: list[tuple[str, str]], *, someone_lags: bool = False
    ) -> ChainUnavailable:
        known = dict(reasons)
        words = "; ".join(
            f"{endpoint.name} ({endpoint.host}): {known.get(endpoint.name, endpoint.last_error)}"
            for endpoint in self._endpoints
        )
        if someone_lags:
            return BlockMissing(f"no endpoint has the block: {words}")
        return ChainUnavailable(f"no endpoint answers: {words}")

    # Health.

    def _in_order(self) -> list[Endpoint]:
        """Healthy ones first, then those that lag, then ejected ones as the last resort."""
        newest = self._newest_timestamp()

        def rank(endpoint: Endpoint) -> int:
            if endpoint.ejected_until is not None:
                return 2
            return 1 if self._lags(endpoint, newest) else 0

        return sorted(self._endpoints, key=rank)

    def _newest_timestamp(self) -> int:
        return max((e.head_timestamp or 0 for e in self._endpoints if not e.is_foreign), default=0)

    def _lags(self, endpoint: Endpoint, newest: int) -> bool:
        timestamp = endpoint.head_timestamp
        return timestamp is not None and newest - timestamp > self._max_head_age

    async def keep_probing(self) -> NoReturn:
        """Look at healthy endpoints' heads and at ejected endpoints, until cancelled."""
        due = {endpoint.name: self._clock() + PROBE_INTERVAL for endpoint in self._endpoints}
        while True:
            await asyncio.sleep(FIRST_BACK_OFF * self._jitter.uniform(0.75, 1.25))
            now = self._clock()
            ready = [
                e
                for e in self._endpoints
                if now >= (due[e.name] if e.ejected_until is None else e.ejected_until)
            ]
            await self._probe_all(ready)
            due.update((e.name, self._clock() + PROBE_INTERVAL) for e in ready)

    async def _probe_all(self, endpoints: Sequence[Endpoint]) -> None:
        async with asyncio.TaskGroup() as group:
            for endpoint in endpoints:
                group.create_task(self._probe(endpoint), name=f"probe {endpoint.name}")

    async def _probe(self, endpoint: Endpoint) -> None:
        lagged = self._lags(endpoint, self._newest_timestamp())
        try:
            await endpoint.verify()
        except EndpointFailed as failure:
            self._eject(endpoint, failure)
            return
        self._heal(endpoint)
        await self._catch_up(endpoint)
        if self._lags(endpoint, self._newest_timestamp()) and not lagged:
            logger.warning(
                "endpoint lags and is passed over: see whether its node is in sync",
                extra={"endpoint": endpoint.name, "host": endpoint.host, "head": endpoint.head},
            )

    async def _catch_up(self, endpoint: Endpoint) -> None:
        """Send the transactions that a returned endpoint missed; what it says does not matter."""
        if not (missed := list(endpoint.missed)):
            return
        try:
            await endpoint.ask([_send(raw) for raw in missed])
        except EndpointFailed as failure:
            self._eject(endpoint, failure)
            return
        for raw in missed:
            endpoint.missed.pop(raw, None)

    def _eject(self, endpoint: Endpoint, failure: EndpointFailed) -> None:
        is_news = endpoint.ejected_until is None or (
            isinstance(failure, WrongChain) and endpoint.last_error != str(failure)
        )
        endpoint.last_error = str(failure)
        endpoint.failures += 1
        endpoint.doubt()
        if isinstance(failure, WrongChain):
            back_off = FOREIGN_BACK_OFF
        else:
            back_off = min(FIRST_BACK_OFF * 2 ** min(endpoint.failures - 1, 10), LAST_BACK_OFF)
        endpoint.ejected_until = self._clock() + back_off * self._jitter.uniform(0.5, 1.0)
        if not is_news:
            return
        facts = {"endpoint": endpoint.name, "host": endpoint.host, "reason": str(failure)}
        if isinstance(failure, WrongChain):
            logger.error("endpoint of another chain is not used: correct its URL", extra=facts)
        else:
            logger.warning(
                "endpoint ejected: the next one is asked. See the reason, then its node",
                extra=facts,
            )

    def _heal(self, endpoint: Endpoint) -> None:
        if endpoint.ejected_until is not None:
            logger.info("endpoint is back", extra={"endpoint": endpoint.name})
        endpoint.ejected_until = None
        endpoint.failures = 0
        endpoint.last_error = ""

    def status(self) -> tuple[EndpointStatus, ...]:
        """Return every endpoint as of now, in order of preference."""
        newest = self._newest_timestamp()
        best = max((e.head or 0 for e in self._endpoints if not e.is_foreign), default=0)
        return tuple(
            EndpointStatus(
                name=e.name,
                host=e.host,
                healthy=e.is_verified and e.ejected_until is None and not self._lags(e, newest),
                head=e.head,
                lag=None if e.head is None else best - e.head,
                last_error=e.last_error,
            )
            for e in self._endpoints
        )


def _send(raw: bytes) -> tuple[str, list[object]]:
    return "eth_sendRawTransaction", ["0x" + raw.hex()]


def _sent(name: str, answer: Any | RpcError | EndpointFailed) -> Sent:
    if isinstance(answer, EndpointFailed):
        return Sent(endpoint=name, accepted=False, reason=str(answer))
    if not isinstance(answer, RpcError):
        return Sent(endpoint=name, accepted=True)
    if send_refusal(answer) is SendRefusal.KNOWN:
        return Sent(endpoint=name, accepted=True)
    return Sent(endpoint=name, accepted=False, error=answer)
