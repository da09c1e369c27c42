"""Log entries over any range of blocks, in bites that the endpoint accepts.

Providers limit a request by blocks, by results or by time, each with its own error; so any
refusal halves the bite, and success lets it grow again. Only an endpoint that has a bite's last
block is believed: "none" from one that lags would pass for blocks without entries.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligned.chain.events import Log, parse_log
from aligned.chain.rpc import BlockMissing, RpcError, Undecodable
from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aligned.chain.rpc import Rpc
    from aligned.model import Address

logger = logging.getLogger(__name__)

FIRST_SPAN: Final = 2000
"""Blocks; what the stricter providers allow."""
LAST_SPAN: Final = 50_000
_SPANS_UNTIL_RETRY: Final = 16
"""Successes after which a size that was refused is tried again."""
_TIMEOUTS: Final = 3
"""In a row, each at half the size: then the chain is away."""
_REPORT_INTERVAL: Final = 5.0
"""Seconds between progress lines of a long scan."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which log entries."""

    address: Address
    topics: tuple[tuple[bytes, ...], ...]
    """Alternatives by position."""

    def request(self, first: int, last: int) -> dict[str, object]:
        """Return the parameter of ``eth_getLogs``; both ends included."""
        return {
            "address": "0x" + self.address.hex(),
            "topics": [["0x" + topic.hex() for topic in choice] for choice in self.topics],
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }


@dataclass(frozen=True, slots=True)
class Bite:
    """The log entries of some blocks, both ends included, in chain order, each once."""

    first: int
    last: int
    logs: tuple[Log, ...]


class Logs:
    """Reads log entries; remembers which size of request is accepted."""

    def __init__(self, rpc: Rpc, clock: Callable[[], float]) -> None:
        self._rpc = rpc
        self._clock = clock
        self._span = FIRST_SPAN
        self._ceiling = LAST_SPAN
        """What was accepted, once something larger was refused."""
        self._accepted = 1
        self._successes = 0

    async def read(self, wanted: Filter, first: int, last: int) -> list[Log]:
        """Return all entries of the range, both ends included.

        Raises:
            BlockMissing: The endpoints that answer have not got as far as ``last``.
            ChainUnavailable: No endpoint answers.
        """
        return [log async for bite in self.scan(wanted, first, last) for log in bite.logs]

    async def scan(self, wanted: Filter, first: int, last: int) -> AsyncIterator[Bite]:
        """Yield the range bite by bite, ascending; says how far it is when it takes long.

        An entry of the last bites may be of a block that is reorged away meanwhile: compare
        block hashes.

        Raises:
            BlockMissing: The endpoints that answer have not got as far as ``last``.
            ChainUnavailable: No endpoint answers.
        """
        reported = self._clock()
        start = first
        while start <= last:
            bite = await self._bite(wanted, start, last)
            yield bite
            start = bite.last + 1
            if start <= last and self._clock() - reported > _REPORT_INTERVAL:
                reported = self._clock()
                logger.info(
                    "scanning log entries",
                    extra={"first": first, "at": bite.last, "last": last, "span": self._span},
                )

    async def _bite(self, wanted: Filter, start: int, last: int) -> Bite:
        timeouts = 0
        while True:
            end = min(start + self._span - 1, last)
            size = end - start + 1
            try:
                question = [wanted.request(start, end)]
                answer = await self._rpc.call("eth_getLogs", question, reaching=end)
                bite = Bite(start, end, _parse(answer))
            except RpcError as refusal:
                if size == 1:
                    msg = f"no log entries of block {start}: {refusal}"
                    raise ChainUnavailable(msg) from refusal
            except BlockMissing:
                raise  # fewer blocks at once do not make an endpoint catch up
            except ChainUnavailable:
                timeouts += 1
                if size == 1 or timeouts == _TIMEOUTS:
                    raise
            else:
                self._grow(size)
                return bite
            self._halve(size)

    def _halve(self, size: int) -> None:
        self._successes = 0
        self._span = max(size // 2, 1)
        if self._accepted >= size:  # here there is more in a block than where it was accepted
            self._accepted = 1
        self._ceiling = max(self._accepted, self._span)

    def _grow(self, size: int) -> None:
        if size < self._span:
            return  # the rest of a range says nothing of what is allowed
        self._accepted = max(self._accepted, size)
        self._successes += 1
        if self._successes >= _SPANS_UNTIL_RETRY:
            self._successes = 0
            self._ceiling = LAST_SPAN
        self._span = min(self._span + (self._span + 1) // 2, self._ceiling)


def _parse(answer: object) -> tuple[Log, ...]:
    if not isinstance(answer, list):
        msg = f"eth_getLogs answered {answer!r:.80}"
        raise Undecodable(msg)
    logs = {}
    for entry in answer:
        if not isinstance(entry, dict):
            msg = f"eth_getLogs answered an entry {entry!r:.80}"
            raise Undecodable(msg)
        if not entry.get("removed"):
            log = parse_log(entry)
            logs[log.block.hash, log.position] = log
    return tuple(sorted(logs.values(), key=lambda log: (log.block.number, log.position)))
