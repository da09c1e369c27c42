from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from aligned.chain import abi
from aligned.chain.logs import FIRST_SPAN, Filter, Logs
from aligned.chain.rpc import BlockMissing, Broadcast, RpcError, Undecodable
from aligned.errors import ChainUnavailable
from tests.fakes.ethereum import CONTRACTS

if TYPE_CHECKING:
    from collections.abc import Sequence

WANTED = Filter(CONTRACTS.service_manager, ((abi.NEW_BATCH_V3,),))


def entry(block: int, position: int = 0, **more: object) -> dict[str, object]:
    return {
        "address": "0x" + CONTRACTS.service_manager.hex(),
        "topics": ["0x" + abi.NEW_BATCH_V3.hex()],
        "data": "0x",
        "blockNumber": hex(block),
        "blockHash": "0x" + block.to_bytes(32, "big").hex(),
        "logIndex": hex(position),
    } | more


class FakeProvider:
    """Answers ranges up to ``limit`` blocks with ``entries``."""

    def __init__(self, entries: Sequence[dict[str, object]], limit: int = 10**9) -> None:
        self.entries = entries
        self.limit = limit
        self.head = 10**9
        self.away = 0
        """Requests that fail before one is answered."""
        self.ranges: list[tuple[int, int]] = []
        self.requests: list[dict[str, Any]] = []

    async def call(
        self, method: str, params: Sequence[object], *, reaching: int | None = None
    ) -> Any:
        assert method == "eth_getLogs"
        (wanted,) = params
        assert isinstance(wanted, dict)
        self.requests.append(wanted)
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        assert reaching == last
        if last > self.head:
            raise BlockMissing("no endpoint has the block")
        if self.away:
            self.away -= 1
            raise ChainUnavailable("away")
        if last - first + 1 > self.limit:
            raise RpcError(-32005, "range too large")
        self.ranges.append((first, last))
        return [e for e in self.entries if first <= int(str(e["blockNumber"]), 16) <= last]

    async def call_many(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        raise NotImplementedError

    async def find(self, method: str, params: Sequence[object]) -> Any:
        raise NotImplementedError

    async def maximum(self, method: str, params: Sequence[object]) -> int:
        raise NotImplementedError

    async def broadcast(self, raw: bytes) -> Broadcast:
        raise NotImplementedError


def logs(provider: FakeProvider) -> Logs:
    return Logs(provider, clock=lambda: 0.0)


async def test_a_range_is_covered_once_in_growing_bites() -> None:
    provider = FakeProvider([])
    await logs(provider).read(WANTED, 5, 10_000)
    assert provider.ranges == [(5, 2004), (2005, 5004), (5005, 9504), (9505, 10_000)]


async def test_a_refused_bite_is_halved_until_it_is_taken() -> None:
    provider = FakeProvider([entry(7)], limit=300)
    found = await logs(provider).read(WANTED, 0, 999)
    assert provider.ranges[0] == (0, 249)  # 1,000, 500, 250
    assert [log.block.number for log in found] == [7]


async def test_a_limit_that_was_found_is_respected_for_a_while() -> None:
    provider = FakeProvider([], limit=2000)
    await logs(provider).read(WANTED, 0, 19_999)
    sizes = [last - first + 1 for first, last in provider.ranges]
    assert sizes == [2000, 1500, *[2000] * 8, 500]
    assert len(provider.requests) == len(sizes) + 1


async def test_a_limit_is_tried_again_after_a_while() -> None:
    provider = FakeProvider([], limit=2000)
    reader = logs(provider)
    await reader.read(WANTED, 0, 39_999)
    provider.limit = 10**9
    provider.ranges.clear()
    await reader.read(WANTED, 0, 39_999)
    assert max(last - first + 1 for first, last in provider.ranges) > 2000


async def test_small_ranges_say_nothing_of_larger_ones() -> None:
    provider = FakeProvider([])
    reader = logs(provider)
    for number in range(5):
        await reader.read(WANTED, number, number)
    await reader.read(WANTED, 5, 10_000)
    assert provider.ranges[5] == (5, 4 + FIRST_SPAN)


async def test_denser_blocks_after_a_large_bite_are_read_in_smaller_ones() -> None:
    provider = FakeProvider([])
    reader = logs(provider)
    await reader.read(WANTED, 0, FIRST_SPAN - 1)
    provider.limit = 300
    provider.requests.clear()
    provider.ranges.clear()
    await reader.read(WANTED, FIRST_SPAN, 10 * FIRST_SPAN)
    assert len(provider.requests) - len(provider.ranges) <= 12  # 4 to find it, then now and then


async def test_one_block_that_is_refused_is_the_end() -> None:
    with pytest.raises(ChainUnavailable, match="no log entries of block 0"):
        await logs(FakeProvider([], limit=0)).read(WANTED, 0, 5)


async def test_a_timeout_is_tried_smaller_and_then_given_up() -> None:
    provider = FakeProvider([])
    provider.away = 2
    await logs(provider).read(WANTED, 0, FIRST_SPAN - 1)
    assert provider.ranges[0] == (0, FIRST_SPAN // 4 - 1)
    provider = FakeProvider([])
    provider.away = 100
    with pytest.raises(ChainUnavailable):
        await logs(provider).read(WANTED, 0, FIRST_SPAN - 1)
    assert len(provider.requests) == 3


async def test_a_bite_beyond_the_head_is_not_tried_smaller() -> None:
    provider = FakeProvider([])
    reader = logs(provider)
    provider.head = 4999
    with pytest.raises(BlockMissing):
        await reader.read(WANTED, 0, 5000)
    provider.head = 5000
    await reader.read(WANTED, 5000, 5000)
    await reader.read(WANTED, 0, 4999)
    assert provider.ranges == [(0, 1999), (2000, 4999), (5000, 5000), (0, 4499), (4500, 4999)]


async def test_entries_come_in_chain_order_each_once_without_removed_ones() -> None:
    provider = FakeProvider(
        [entry(3, 1), entry(2), entry(3, 1), entry(3, 0), entry(1, removed=True)]
    )
    found = await logs(provider).read(WANTED, 0, 9)
    assert [(log.block.number, log.position) for log in found] == [(2, 0), (3, 0), (3, 1)]


async def test_address_and_topics_are_asked_for() -> None:
    provider = FakeProvider([])
    wanted = Filter(CONTRACTS.service_manager, ((b"\x01", b"\x02"), (b"\x03",)))
    await logs(provider).read(wanted, 16, 17)
    assert provider.requests == [
        {
            "address": "0x" + "a1" * 20,
            "topics": [["0x01", "0x02"], ["0x03"]],
            "fromBlock": "0x10",
            "toBlock": "0x11",
        }
    ]


@pytest.mark.parametrize("answer", [None, "0x", {}, ["x"]], ids=repr)
async def test_what_are_no_entries_is_no_answer(answer: object) -> None:
    class Nonsense(FakeProvider):
        async def call(
            self, method: str, params: Sequence[object], *, reaching: int | None = None
        ) -> Any:
            self.requests.append({})
            return answer

    with pytest.raises(Undecodable):
        await logs(Nonsense([])).read(WANTED, 0, 0)


async def test_a_long_scan_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ticks = itertools.count(step=3.0)
    reader = Logs(FakeProvider([], limit=10), clock=lambda: next(ticks))
    await reader.read(WANTED, 0, 99)
    lines = [r for r in caplog.records if r.message == "scanning log entries"]
    assert 1 < len(lines) < 10
    assert lines[0].__dict__["last"] == 99


async def test_an_empty_range_asks_nothing() -> None:
    provider = FakeProvider([])
    assert await logs(provider).read(WANTED, 5, 4) == []
    assert provider.requests == []


@settings(deadline=None)
@given(
    st.integers(1, 5000),
    st.integers(0, 9000),
    st.lists(st.integers(0, 9000), max_size=20, unique=True),
)
async def test_every_block_is_read_exactly_once_under_any_limit(
    limit: int, last: int, wanted_blocks: list[int]
) -> None:
    provider = FakeProvider([entry(number) for number in wanted_blocks], limit=limit)
    found = await logs(provider).read(WANTED, 0, last)
    assert [log.block.number for log in found] == sorted(n for n in wanted_blocks if n <= last)
    edges = [first for first, _ in provider.ranges]
    assert edges == [0, *[end + 1 for _, end in provider.ranges[:-1]]]
    assert provider.ranges[-1][1] == last
