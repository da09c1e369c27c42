from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from eth_account import Account

from devnet.batcher import Batcher
from devnet.faults import EVERY_METHOD, LogLimit, RpcError
from devnet.network import AGGREGATOR_KEY, ETHER, NEW_BATCH_V3, OWNER, hexed, transaction
from devnet.proxy import Proxy
from devnet.rpc import CallFailed, Node, NodeAway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devnet.network import Network

_GWEI = 10**9


@pytest.fixture
async def proxy(chain: Network) -> AsyncIterator[Proxy]:
    async with Proxy(chain.anvil.url) as running:
        yield running


@pytest.fixture
def node(proxy: Proxy) -> Node:
    return Node(proxy.url)


def _raw(*, max_fee: int = 10 * _GWEI, tip: int = _GWEI, nonce: int = 0) -> str:
    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": 31337,
            "nonce": nonce,
            "to": OWNER,
            "value": 1,
            "gas": 21_000,
            "maxFeePerGas": max_fee,
            "maxPriorityFeePerGas": tip,
        },
        AGGREGATOR_KEY,
    )
    return hexed(bytes(signed.raw_transaction))


async def test_without_faults_answers_are_those_of_the_chain(chain: Network, node: Node) -> None:
    await chain.anvil.mine(3)
    for method, params in (
        ("eth_chainId", []),
        ("eth_blockNumber", []),
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_getLogs", [{"fromBlock": "0x0"}]),
    ):
        assert await node.call(method, *params) == await chain.node.call(method, *params)


async def test_requests_may_come_in_batches_and_are_counted(proxy: Proxy, node: Node) -> None:
    assert await node.batch([("eth_chainId", []), ("net_version", [])]) == ["0x7a69", "31337"]
    await node.call("eth_chainId")
    assert proxy.counts == {"eth_chainId": 2, "net_version": 1}


async def test_a_single_request_gets_a_single_answer(proxy: Proxy) -> None:
    question = {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId"}
    async with aiohttp.ClientSession() as session, session.post(proxy.url, json=question) as got:
        assert await got.json() == {"jsonrpc": "2.0", "id": 7, "result": "0x7a69"}


async def test_errors_of_the_chain_pass_with_their_data(chain: Network, node: Node) -> None:
    call = {"to": hexed(chain.deployment.service_manager), "data": "0x12345678"}
    with pytest.raises(CallFailed) as direct:
        await chain.node.call("eth_call", call, "latest")
    with pytest.raises(CallFailed) as through:
        await node.call("eth_call", call, "latest")
    assert through.value.error == direct.value.error


async def test_a_hanging_endpoint_answers_when_it_no_longer_hangs(proxy: Proxy, node: Node) -> None:
    proxy.faults.hang = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await node.call("eth_chainId")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(node.call("eth_chainId"))
        await asyncio.sleep(0)
        proxy.faults.hang = False
    assert waiting.result() == "0x7a69"


async def test_one_method_may_hang_and_is_not_forwarded(
    chain: Network, proxy: Proxy, node: Node
) -> None:
    proxy.faults.hanging.add("anvil_mine")
    async with asyncio.TaskGroup() as group:
        held = group.create_task(node.call("anvil_mine"))
        await proxy.held()
        head = await node.call("eth_blockNumber")
        assert await chain.node.call("eth_blockNumber") == head
        proxy.faults.hanging.clear()
    assert held.done()
    assert await chain.anvil.head() == int(head, 16) + 1


async def test_a_slow_endpoint_answers(proxy: Proxy, node: Node) -> None:
    proxy.faults.delay_seconds = 0.05
    clock = asyncio.get_running_loop().time
    started = clock()
    assert await node.call("eth_chainId") == "0x7a69"
    assert clock() - started >= 0.05


async def test_an_endpoint_that_refuses_connections_comes_back_on_its_port(
    proxy: Proxy, node: Node
) -> None:
    await proxy.refuse()
    with pytest.raises(NodeAway):
        await node.call("eth_chainId")
    await proxy.accept()
    assert await node.call("eth_chainId") == "0x7a69"


@pytest.mark.parametrize("status", [429, 503])
async def test_an_http_status_is_answered_and_counted(proxy: Proxy, status: int) -> None:
    proxy.faults.status = status
    question = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    async with aiohttp.ClientSession() as session, session.post(proxy.url, json=question) as got:
        assert got.status == status
    assert proxy.counts["eth_chainId"] == 1


async def test_errors_are_for_one_method_or_for_all(proxy: Proxy, node: Node) -> None:
    proxy.faults.errors["eth_getLogs"] = RpcError(-32603, "internal")
    with pytest.raises(CallFailed, match="internal") as failed:
        await node.call("eth_getLogs", {})
    assert failed.value.code == -32603
    assert await node.call("eth_chainId") == "0x7a69"
    proxy.faults.errors[EVERY_METHOD] = RpcError(-32001, "busy")
    with pytest.raises(CallFailed, match="busy"):
        await node.call("eth_chainId")


async def test_an_endpoint_may_be_on_another_chain(proxy: Proxy, node: Node) -> None:
    proxy.faults.chain_id = 5
    assert await node.batch([("eth_chainId", []), ("net_version", [])]) == ["0x5", "5"]


async def test_a_swallowed_transaction_has_a_hash_and_no_trace(
    chain: Network, proxy: Proxy, node: Node
) -> None:
    await chain.anvil.automine(on=False)
    proxy.faults.swallow_sends = True
    sent = await node.call("eth_sendRawTransaction", _raw())
    assert await chain.anvil.pool() == []
    proxy.faults.swallow_sends = False
    assert await node.call("eth_sendRawTransaction", proxy.swallowed[0]) == sent
    assert [waiting["hash"] for waiting in await chain.anvil.pool()] == [sent]


@pytest.mark.parametrize(
    ("question", "refused"),
    [
        pytest.param({"fromBlock": "0x1", "toBlock": "0x5"}, False, id="as many as allowed"),
        pytest.param({"fromBlock": "0x1", "toBlock": "0x6"}, True, id="one more"),
        pytest.param({"fromBlock": "0x1"}, True, id="up to the head"),
        pytest.param({}, False, id="the head alone"),
    ],
)
async def test_too_wide_a_range_of_logs_is_refused(
    chain: Network, proxy: Proxy, node: Node, question: dict[str, Any], refused: bool
) -> None:
    await chain.anvil.mine(10)
    proxy.faults.log_limit = LogLimit(5, RpcError(-32602, "range"))
    if refused:
        with pytest.raises(CallFailed, match="range") as failed:
            await node.call("eth_getLogs", question)
        assert failed.value.code == -32602
    else:
        assert isinstance(await node.call("eth_getLogs", question), list)


@pytest.mark.parametrize(
    ("max_fee", "tip", "taken"),
    [
        pytest.param(11 * _GWEI, _GWEI, False, id="tip too low"),
        pytest.param(10 * _GWEI, 2 * _GWEI, False, id="cap too low"),
        pytest.param(11 * _GWEI - 1, 2 * _GWEI, False, id="a wei short"),
        pytest.param(11 * _GWEI, 11 * _GWEI // 10, True, id="ten percent exactly"),
    ],
)
async def test_a_replacement_raises_both_fees_by_ten_percent(
    chain: Network, proxy: Proxy, node: Node, max_fee: int, tip: int, taken: bool
) -> None:
    await chain.anvil.automine(on=False)
    proxy.faults.strict_replacement = True
    await node.call("eth_sendRawTransaction", _raw())
    replacement = _raw(max_fee=max_fee, tip=tip)
    if taken:
        await node.call("eth_sendRawTransaction", replacement)
    else:
        with pytest.raises(CallFailed, match="replacement transaction underpriced"):
            await node.call("eth_sendRawTransaction", replacement)


async def test_the_same_transaction_again_is_known(
    chain: Network, proxy: Proxy, node: Node
) -> None:
    await chain.anvil.automine(on=False)
    proxy.faults.strict_replacement = True
    await node.call("eth_sendRawTransaction", _raw())
    with pytest.raises(CallFailed, match="already known"):
        await node.call("eth_sendRawTransaction", _raw())


class TestLag:
    """The chain has a batch in its head block; the endpoint is one block behind."""

    @pytest.fixture(autouse=True)
    async def _lag(self, chain: Network, proxy: Proxy) -> None:
        await chain.anvil.mine(70)
        self.batch = await Batcher(chain).post(value=ETHER)
        self.logs = {
            "address": hexed(chain.deployment.service_manager),
            "topics": [hexed(NEW_BATCH_V3)],
            "fromBlock": "0x0",
        }
        self.head = await chain.anvil.head()
        self.block = await chain.node.call("eth_getBlockByNumber", "latest", False)
        proxy.faults.lag_blocks = 1

    async def test_the_head_is_older(self, node: Node) -> None:
        assert int(await node.call("eth_blockNumber"), 16) == self.head - 1
        latest = await node.call("eth_getBlockByNumber", "latest", False)
        assert int(latest["number"], 16) == self.head - 1

    async def test_finalized_is_older_too(self, chain: Network, node: Node) -> None:
        real = await chain.node.call("eth_getBlockByNumber", "finalized", False)
        lagging = await node.call("eth_getBlockByNumber", "finalized", False)
        assert int(lagging["number"], 16) == int(real["number"], 16) - 1

    @pytest.mark.parametrize("tag", ["finalized", "safe"])
    async def test_calls_at_its_finalized_block_are_answered(self, node: Node, tag: str) -> None:
        count = await node.call("eth_getTransactionCount", hexed(self.batch.sender), tag)
        assert int(count, 16) == 0

    async def test_the_newest_block_is_not_there(self, node: Node) -> None:
        assert await node.call("eth_getBlockByNumber", hex(self.head), False) is None
        assert await node.call("eth_getBlockByHash", self.block["hash"], False) is None

    @pytest.mark.parametrize("beyond", [False, True])
    async def test_logs_end_at_its_head(self, node: Node, beyond: bool) -> None:
        last = {"toBlock": hex(self.head)} if beyond else {}
        assert await node.call("eth_getLogs", {**self.logs, **last}) == []
        assert await node.call("eth_getLogs", {**self.logs, "fromBlock": hex(self.head)}) == []

    async def test_logs_of_a_block_it_lacks_are_an_error(self, node: Node) -> None:
        question = {"address": self.logs["address"], "blockHash": self.block["hash"]}
        with pytest.raises(CallFailed, match="header for hash not found"):
            await node.call("eth_getLogs", question)

    async def test_calls_see_the_older_state(self, chain: Network, node: Node) -> None:
        call = {
            "to": hexed(chain.deployment.service_manager),
            "data": "0xb099627e" + self.batch.batch_id.hex(),
        }
        for block in ("latest", "pending"):
            assert int(await node.call("eth_call", call, block), 16) == 0
        assert int((await chain.node.call("eth_call", call, "latest"))[:66], 16) == self.head
        count = await node.call("eth_getTransactionCount", hexed(self.batch.sender))
        assert int(count, 16) == 0

    @pytest.mark.parametrize("by", ["number", "hash"])
    async def test_calls_at_a_block_it_lacks_are_an_error(self, node: Node, by: str) -> None:
        block = hex(self.head) if by == "number" else {"blockHash": self.block["hash"]}
        with pytest.raises(CallFailed, match="not found"):
            await node.call("eth_call", {"to": self.logs["address"]}, block)

    async def test_receipts_are_not_there_yet(self, chain: Network, node: Node) -> None:
        for transaction_hash in self.block["transactions"]:
            assert await node.call("eth_getTransactionReceipt", transaction_hash) is None
        await chain.anvil.mine()
        receipt = await node.call("eth_getTransactionReceipt", self.block["transactions"][0])
        assert int(receipt["blockNumber"], 16) == self.head

    async def test_it_still_sends(self, chain: Network, node: Node) -> None:
        await chain.anvil.automine(on=False)
        sent = await node.call("eth_sendRawTransaction", _raw())
        assert [waiting["hash"] for waiting in await chain.anvil.pool()] == [sent]


async def test_a_held_request_does_not_hold_up_the_end(chain: Network) -> None:
    async with asyncio.TaskGroup() as group, Proxy(chain.anvil.url) as proxy:
        proxy.faults.hang = True
        waiting = group.create_task(_fails(Node(proxy.url)))
        await proxy.held()
    assert waiting.result()


async def _fails(node: Node) -> bool:
    with pytest.raises(NodeAway):
        await node.call("eth_chainId")
    return True


async def test_transactions_of_the_chains_own_accounts_pass(chain: Network, node: Node) -> None:
    await chain.anvil.automine(on=False)
    sent = await node.call("eth_sendTransaction", transaction(OWNER, OWNER, b"", gas=21_000))
    assert [waiting["hash"] for waiting in await chain.anvil.pool()] == [sent]
