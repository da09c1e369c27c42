from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from aligned.chain.endpoint import MISSED
from aligned.chain.endpoints import FIRST_BACK_OFF, FOREIGN_BACK_OFF, Endpoints, Limits, Source
from aligned.chain.rpc import BlockMissing, RpcError, eth_call, pinned
from aligned.errors import BadConfiguration, ChainUnavailable
from aligned.model import BlockHash
from tests.fakes.ethereum import CHAIN_ID, CONTRACTS, FakeChain, FakeNet, FakeNode, new_batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Call = tuple[str, list[object]]

KEY = "0123456789abcdef0123456789abcdef"


def url(name: str) -> str:
    return f"https://{name}.example:8443/v3/{KEY}"


class World:
    """A chain, two nodes on it, and endpoints to them."""

    def __init__(self) -> None:
        self.chain = FakeChain()
        self.chain.mine_many(10)
        self.first = FakeNode(self.chain)
        self.second = FakeNode(self.chain)
        self.net = FakeNet({url("first"): self.first, url("second"): self.second})
        self.now = 0.0
        self.endpoints = self.open("first", "second")

    def open(self, *names: str, **options: Any) -> Endpoints:
        sources = [Source(name=name, url=url(name)) for name in names]
        limits = Limits(timeout_seconds=0.02, max_head_age_seconds=60.0)
        return Endpoints(
            sources,
            CHAIN_ID,
            limits=limits,
            transport=self.net,
            clock=lambda: self.now,
            **options,
        )

    def forget(self) -> None:
        self.first.asked.clear()
        self.second.asked.clear()


@pytest.fixture
def world() -> World:
    return World()


def healthy(endpoints: Endpoints) -> list[bool]:
    return [status.healthy for status in endpoints.status()]


async def test_the_first_endpoint_is_asked_alone(world: World) -> None:
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"
    assert world.first.asked[-1] == "eth_blockNumber"
    assert world.second.asked == []


BREAK: dict[str, Callable[[FakeNode], None]] = {
    "down": lambda node: setattr(node, "is_down", True),
    "hanging": lambda node: setattr(node, "hangs", True),
    "HTTP 429": lambda node: setattr(node, "status", 429),
    "HTTP 503": lambda node: setattr(node, "status", 503),
    "HTTP 401": lambda node: setattr(node, "status", 401),
    "HTML": lambda node: setattr(node, "body", b"<html>maintenance</html>"),
    "truncated": lambda node: setattr(node, "body", b'{"jsonrpc": "2.0", "id": 0, "resu'),
    "rate limited": lambda node: node.errors.update(
        eth_blockNumber=(-32005, "request rate limited")
    ),
}


@pytest.mark.parametrize("fault", BREAK)
async def test_an_endpoint_that_gives_no_answer_is_left_for_the_next(
    world: World, fault: str
) -> None:
    await world.endpoints.check()
    BREAK[fault](world.first)
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"
    assert healthy(world.endpoints) == [False, True]
    world.forget()
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"
    assert world.first.asked == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(3, "execution reverted"), (-32000, "nonce too low"), (-32602, "invalid params")],
)
async def test_a_semantic_refusal_is_raised_and_not_tried_elsewhere(
    world: World, code: int, message: str
) -> None:
    await world.endpoints.check()
    world.first.errors["eth_call"] = (code, message)
    world.forget()
    with pytest.raises(RpcError) as caught:
        await world.endpoints.call("eth_call", [{"data": "0x"}, "latest"])
    assert (caught.value.code, caught.value.message) == (code, message)
    assert world.second.asked == []
    assert healthy(world.endpoints) == [True, True]


async def test_an_internal_error_is_tried_elsewhere(world: World) -> None:
    world.first.errors["eth_blockNumber"] = (-32603, "Internal error")
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"
    world.second.errors["eth_blockNumber"] = (-32603, "other error")
    with pytest.raises(RpcError, match="Internal error"):
        await world.endpoints.call("eth_blockNumber", [])


async def test_an_endpoint_that_lags_is_passed_over_for_a_pinned_block(world: World) -> None:
    head = world.chain.mine()
    world.first.lag = 1
    call = eth_call(CONTRACTS.service_manager, b"\xb0\x99\x62\x7e" + bytes(32), pinned(head.hash))
    assert await world.endpoints.call(*call) == "0x" + bytes(96).hex()
    assert healthy(world.endpoints) == [True, True]


async def test_a_block_that_nobody_has_is_missing(world: World) -> None:
    call = eth_call(CONTRACTS.service_manager, b"\xb0\x99\x62\x7e", pinned(BlockHash(b"\x99" * 32)))
    with pytest.raises(BlockMissing, match=r"first .*lags.*second .*lags"):
        await world.endpoints.call(*call)
    with pytest.raises(BlockMissing):
        await world.endpoints.call_many([("eth_blockNumber", []), call])


async def logs_up_to(world: World, number: int, *, reaching: bool = True) -> list[object]:
    wanted = {
        "address": "0x" + CONTRACTS.service_manager.hex(),
        "topics": [],
        "fromBlock": "0x0",
        "toBlock": hex(number),
    }
    answer = await world.endpoints.call(
        "eth_getLogs", [wanted], reaching=number if reaching else None
    )
    assert isinstance(answer, list)
    return answer


@pytest.mark.parametrize("refuses_batches", [False, True], ids=["batches", "one by one"])
async def test_an_endpoint_that_has_not_reached_the_block_is_passed_over(
    world: World, refuses_batches: bool
) -> None:
    world.chain.mine(new_batch(1))
    world.first.refuses_batches = refuses_batches
    await world.endpoints.check()
    world.first.lag = 1
    world.forget()
    assert await logs_up_to(world, 11, reaching=False) == []
    assert len(await logs_up_to(world, 11)) == 1
    assert healthy(world.endpoints) == [True, True]
    world.first.lag = 0
    assert len(await logs_up_to(world, 11)) == 1
    assert world.second.asked.count("eth_getLogs") == 1


async def test_reaching_a_block_costs_no_exchange_and_is_asked_first(world: World) -> None:
    await world.endpoints.check()
    world.forget()
    before = world.first.exchanges
    assert await logs_up_to(world, 10) == []
    assert world.first.exchanges == before + 1
    assert world.first.asked == ["eth_getBlockByNumber", "eth_getLogs"]


async def test_a_block_that_nobody_has_reached_is_missing(world: World) -> None:
    with pytest.raises(BlockMissing, match=r"first .*block 11 not found.*second .*block 11"):
        await logs_up_to(world, 11)


async def test_whoever_fails_may_have_reached_it(world: World) -> None:
    """So what was asked may have been too much, which fewer blocks at once may cure."""
    world.chain.mine()
    world.second.lag = 1
    await world.endpoints.check()
    world.first.hangs = True
    with pytest.raises(ChainUnavailable, match="no answer within") as caught:
        await logs_up_to(world, 11)
    assert not isinstance(caught.value, BlockMissing)
    with pytest.raises(BlockMissing):  # now it is left alone
        await logs_up_to(world, 11)


async def test_a_refusal_of_an_endpoint_that_has_reached_it_is_the_answer(world: World) -> None:
    world.first.log_range = 5
    with pytest.raises(RpcError, match="max block range"):
        await logs_up_to(world, 10)
    assert world.second.asked == []


async def test_a_head_too_old_is_passed_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.first.lag = 6  # 72 s
    await world.endpoints.check()
    world.forget()
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"
    assert world.first.asked == []
    assert [status.lag for status in world.endpoints.status()] == [6, 0]
    world.first.lag = 5
    await world.endpoints.check()
    assert await world.endpoints.call("eth_blockNumber", []) == "0x5"


async def test_when_all_fail_the_error_names_each_with_its_reason(world: World) -> None:
    world.first.is_down = True
    world.second.status = 429
    with pytest.raises(ChainUnavailable) as caught:
        await world.endpoints.call("eth_blockNumber", [])
    assert str(caught.value) == (
        "no endpoint answers: first (first.example:8443): no connection; "
        "second (second.example:8443): HTTP 429"
    )


async def test_an_ejected_endpoint_is_the_last_resort(world: World) -> None:
    world.first.is_down = True
    await world.endpoints.call("eth_blockNumber", [])
    world.first.is_down = False
    world.second.is_down = True
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"
    assert healthy(world.endpoints) == [True, False]


async def test_going_and_coming_back_is_one_line_each(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.endpoints.check()
    world.first.is_down = True
    world.second.is_down = True
    for _ in range(3):
        with pytest.raises(ChainUnavailable):
            await world.endpoints.call("eth_blockNumber", [])
    world.first.is_down = False
    await world.endpoints.check()
    about_first = [r.message for r in caplog.records if r.__dict__.get("endpoint") == "first"]
    assert about_first == [
        "endpoint ejected: the next one is asked. See the reason, then its node",
        "endpoint is back",
    ]


async def test_the_only_endpoint_of_another_chain_is_bad_configuration(world: World) -> None:
    world.first.chain_id = 5
    with pytest.raises(BadConfiguration) as caught:
        await world.open("first").check()
    assert caught.value.problems == (
        "chain.endpoints[0].url: first (first.example:8443) belongs to chain 5, not 31337",
    )


async def test_an_endpoint_of_another_chain_is_refused_with_an_alarm(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.first.chain_id = 5
    await world.endpoints.check()
    world.forget()
    await world.endpoints.call("eth_blockNumber", [])
    await world.endpoints.broadcast(b"\x01")
    assert world.first.asked == []
    alarms = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.__dict__["endpoint"] for r in alarms] == ["first"]


async def test_the_same_chain_id_with_another_genesis_is_another_chain(world: World) -> None:
    world.second.chain = FakeChain(genesis=b"other")
    await world.endpoints.check()
    assert healthy(world.endpoints) == [True, False]
    assert world.endpoints.genesis_hash == world.chain.blocks[0].hash


async def test_a_known_genesis_is_demanded_of_the_first_endpoint_too(world: World) -> None:
    endpoints = world.open("first", genesis_hash=BlockHash(b"\x01" * 32))
    with pytest.raises(BadConfiguration):
        await endpoints.check()


async def test_endpoints_that_are_down_at_start_may_come_back(world: World) -> None:
    world.first.is_down = world.second.is_down = True
    await world.endpoints.check()
    world.first.is_down = False
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"


async def test_an_endpoint_that_comes_back_as_another_chain_is_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.endpoints.check()
    world.first.is_down = True
    await world.endpoints.call("eth_blockNumber", [])
    world.first.is_down = False
    world.first.chain = FakeChain(genesis=b"other")
    world.second.is_down = True
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match=r"first .*another chain"):
            await world.endpoints.call("eth_blockNumber", [])
    told = [r for r in caplog.records if "endpoint of another chain is not used" in r.message]
    assert [(r.levelname, vars(r)["endpoint"]) for r in told] == [("ERROR", "first")]


async def test_a_raw_transaction_goes_to_all_and_one_is_enough(world: World) -> None:
    world.first.errors["eth_sendRawTransaction"] = (-32000, "txpool is full")
    result = await world.endpoints.broadcast(b"\x01\x02")
    assert [(sent.endpoint, sent.accepted) for sent in result.sent] == [
        ("first", False),
        ("second", True),
    ]
    assert result.is_accepted
    assert [refusal.message for refusal in result.refusals] == ["txpool is full"]
    assert world.chain.raw == [b"\x01\x02"]


async def test_a_known_transaction_counts_as_accepted(world: World) -> None:
    result = await world.endpoints.broadcast(b"\x01")  # the second node has it from the first
    assert [sent.accepted for sent in result.sent] == [True, True]


async def test_a_broadcast_into_the_void_says_why(world: World) -> None:
    world.first.is_down = True
    world.second.status = 500
    result = await world.endpoints.broadcast(b"\x01")
    assert not result.is_accepted
    assert [sent.reason for sent in result.sent] == ["no connection", "HTTP 500"]


async def test_the_greatest_nonce_wins(world: World) -> None:
    world.chain.raw += [b"a", b"b", b"c"]
    world.first.lag = 2
    assert await world.endpoints.maximum("eth_getTransactionCount", ["0x", "latest"]) == 3
    world.second.is_down = True
    assert await world.endpoints.maximum("eth_getTransactionCount", ["0x", "latest"]) == 1


HUNG_CALLS: dict[str, Callable[[Endpoints], Awaitable[object]]] = {
    "maximum": lambda e: e.maximum("eth_getTransactionCount", ["0x", "latest"]),
    "broadcast": lambda e: e.broadcast(b"\x01"),
    "find": lambda e: e.find("eth_getNothing", []),
}


@pytest.mark.parametrize("call", HUNG_CALLS)
async def test_an_ejected_endpoint_that_hangs_delays_nobody(world: World, call: str) -> None:
    await world.endpoints.check()
    world.first.errors["eth_getNothing"] = (-32601, "no such method")
    world.second.hangs = True
    await world.endpoints.broadcast(b"\x07")
    assert healthy(world.endpoints) == [True, False]
    before = world.second.exchanges
    if call == "find":
        with pytest.raises(RpcError):
            await HUNG_CALLS[call](world.endpoints)
    else:
        await HUNG_CALLS[call](world.endpoints)
    assert world.second.exchanges == before


async def test_an_endpoint_that_comes_back_gets_the_transactions_it_missed(world: World) -> None:
    await world.endpoints.check()
    world.second.hangs = True
    for number in range(MISSED + 2):
        await world.endpoints.broadcast(bytes([number]))
    world.second.hangs = False
    world.chain.raw.clear()
    (_, second) = world.endpoints._endpoints
    await world.endpoints._probe(second)
    assert world.second.asked.count("eth_sendRawTransaction") == MISSED
    assert set(world.chain.raw) == {bytes([number]) for number in range(2, MISSED + 2)}
    world.second.asked.clear()
    await world.endpoints._probe(second)
    assert "eth_sendRawTransaction" not in world.second.asked


async def test_many_callers_wait_for_one_check_of_an_endpoint_that_hangs(world: World) -> None:
    endpoints = world.open("first")
    world.first.hangs = True
    async with asyncio.TaskGroup() as group:
        sends = [group.create_task(endpoints.broadcast(bytes([n]))) for n in range(8)]
    assert {sent.result().sent[0].reason for sent in sends} == {"no answer within 0.02 s"}
    assert world.first.exchanges == 1


async def test_without_any_number_the_maximum_says_why(world: World) -> None:
    world.first.errors["eth_getTransactionCount"] = (-32602, "invalid params")
    world.second.is_down = True
    with pytest.raises(RpcError, match="invalid params"):
        await world.endpoints.maximum("eth_getTransactionCount", [])
    world.first.is_down = True
    with pytest.raises(ChainUnavailable):
        await world.endpoints.maximum("eth_getTransactionCount", [])


async def test_a_receipt_is_searched_at_every_endpoint(world: World) -> None:
    world.first.lag = 1
    assert await world.endpoints.find("eth_getTransactionReceipt", ["0x"]) == {"status": "0x1"}
    world.second.lag = 1
    assert await world.endpoints.find("eth_getTransactionReceipt", ["0x"]) is None


async def test_several_calls_are_one_exchange_with_answers_in_order(world: World) -> None:
    await world.endpoints.check()
    before = world.first.exchanges
    answers = await world.endpoints.call_many(
        [("eth_blockNumber", []), ("eth_nonsense", []), ("eth_chainId", [])]
    )
    assert (answers[0], answers[2]) == ("0xa", hex(CHAIN_ID))
    assert isinstance(answers[1], RpcError)
    assert world.first.exchanges == before + 1
    assert "eth_nonsense" not in world.second.asked


async def test_an_unknown_method_alone_is_tried_elsewhere(world: World) -> None:
    world.first.errors["eth_blockNumber"] = (-32601, "the method does not exist")
    assert await world.endpoints.call("eth_blockNumber", []) == "0xa"


async def test_an_endpoint_that_refuses_batches_is_asked_one_by_one(world: World) -> None:
    world.first.refuses_batches = True
    calls: list[Call] = [("eth_blockNumber", []), ("eth_chainId", [])]
    assert await world.endpoints.call_many(calls) == ["0xa", hex(CHAIN_ID)]
    assert healthy(world.endpoints)[0]
    assert world.second.exchanges == 0


async def test_many_calls_go_in_several_batches(world: World) -> None:
    await world.endpoints.check()
    before = world.first.exchanges
    calls: list[Call] = [("eth_getBlockByNumber", [hex(n % 11), False]) for n in range(120)]
    answers = await world.endpoints.call_many(calls)
    numbers = [None if isinstance(answer, RpcError) else answer["number"] for answer in answers]
    assert numbers == [hex(n % 11) for n in range(120)]
    assert world.first.exchanges == before + 3


async def test_no_calls_are_no_exchange(world: World) -> None:
    assert await world.endpoints.call_many([]) == []
    assert world.first.exchanges == 0


async def test_an_ejected_endpoint_is_probed_with_a_longer_wait_each_time(world: World) -> None:
    await world.endpoints.check()
    world.first.is_down = True
    waits = []
    (first, _) = world.endpoints._endpoints
    for _ in range(8):
        await world.endpoints._probe(first)
        assert first.ejected_until is not None
        waits.append(first.ejected_until - world.now)
    for count, wait in enumerate(waits):
        full = min(FIRST_BACK_OFF * 2**count, 30.0)
        assert full / 2 <= wait <= full
    world.first.is_down = False
    world.first.chain_id = 5
    await world.endpoints._probe(first)
    assert first.ejected_until is not None
    assert FOREIGN_BACK_OFF / 2 <= first.ejected_until <= FOREIGN_BACK_OFF


async def test_probing_brings_an_ejected_endpoint_back_and_watches_healthy_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligned.chain.endpoints.FIRST_BACK_OFF", 0.0)
    monkeypatch.setattr("aligned.chain.endpoints.PROBE_INTERVAL", 0.0)
    await world.endpoints.check()
    await world.endpoints.call("eth_blockNumber", [])
    world.first.is_down = True
    await world.endpoints.call("eth_blockNumber", [])
    assert healthy(world.endpoints) == [False, True]
    world.first.is_down = False
    looked = asyncio.Event()
    world.chain.mine_many(2)

    def look(_method: str, _params: list[Any]) -> None:
        if [status.head for status in world.endpoints.status()] == [12, 12]:
            looked.set()

    world.first.before = world.second.before = look
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        probing = group.create_task(world.endpoints.keep_probing())
        await looked.wait()
        probing.cancel()
    assert healthy(world.endpoints) == [True, True]


async def test_a_url_file_is_read_again_when_it_changes(world: World, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(url("first") + "\n")
    endpoints = Endpoints(
        [Source(name="only", url_file=file)], CHAIN_ID, transport=world.net, clock=lambda: 0.0
    )
    await endpoints.call("eth_blockNumber", [])
    file.write_text(url("second"))
    world.forget()
    await endpoints.call("eth_blockNumber", [])
    assert world.first.asked == []
    assert world.second.asked[0] == "eth_chainId"  # the new node proves its chain first
    file.unlink()
    assert await endpoints.call("eth_blockNumber", []) == "0xa"


async def test_another_url_may_take_batches_again(world: World, tmp_path: Path) -> None:
    world.first.refuses_batches = True
    file = tmp_path / "url"
    file.write_text(url("first"))
    endpoints = Endpoints([Source(name="only", url_file=file)], CHAIN_ID, transport=world.net)
    calls: list[Call] = [("eth_blockNumber", []), ("eth_chainId", [])]
    await endpoints.call_many(calls)
    file.write_text(url("second"))
    await endpoints.call_many(calls)
    assert world.second.exchanges == 2  # the proof of its chain, and the batch


async def test_a_url_file_that_is_not_there_is_said(world: World, tmp_path: Path) -> None:
    endpoints = Endpoints(
        [Source(name="only", url_file=tmp_path / "none")], CHAIN_ID, transport=world.net
    )
    with pytest.raises(ChainUnavailable, match="url_file cannot be read: FileNotFoundError"):
        await endpoints.call("eth_blockNumber", [])


async def test_keys_in_urls_are_shown_nowhere(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [repr(Source(name="first", url=url("first"))), repr(world.endpoints)]
    world.first.errors["eth_blockNumber"] = (-32005, f"rate limit of project {KEY}")
    world.second.errors["eth_blockNumber"] = (-32000, f"bad project {KEY} at {url('second')}")
    with pytest.raises(RpcError) as refused:
        await world.endpoints.call("eth_blockNumber", [])
    world.second.is_down = True
    with pytest.raises(ChainUnavailable) as away:
        await world.endpoints.call("eth_blockNumber", [])
    shown += [str(refused.value), str(away.value), repr(world.endpoints.status()), caplog.text]
    shown += [repr(record.__dict__) for record in caplog.records]
    assert [text for text in shown if KEY in text] == []
    assert all("first.example:8443" in text for text in (shown[1], shown[3]))
