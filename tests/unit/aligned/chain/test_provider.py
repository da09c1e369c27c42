from __future__ import annotations

from typing import Any

import pytest
from web3 import AsyncWeb3
from web3.exceptions import Web3RPCError

from aligned.chain.endpoints import Endpoints, Limits, Source
from aligned.chain.provider import EndpointsProvider
from aligned.errors import ChainUnavailable
from tests.fakes.ethereum import CHAIN_ID, FakeChain, FakeNet, FakeNode

RAW = b"\x02\x01"


@pytest.fixture
def chain() -> FakeChain:
    chain = FakeChain()
    chain.mine_many(7)
    return chain


@pytest.fixture
def nodes(chain: FakeChain) -> list[FakeNode]:
    return [FakeNode(chain), FakeNode(chain)]


@pytest.fixture
def w3(nodes: list[FakeNode]) -> AsyncWeb3[EndpointsProvider]:
    net = FakeNet({f"http://{i}": node for i, node in enumerate(nodes)})
    sources = [Source(name=str(i), url=url) for i, url in enumerate(net.nodes)]
    endpoints = Endpoints(sources, CHAIN_ID, limits=Limits(0.02), transport=net)
    return AsyncWeb3(EndpointsProvider(endpoints))


async def test_web3_works_on_it_and_survives_an_endpoint(
    w3: AsyncWeb3[EndpointsProvider], nodes: list[FakeNode]
) -> None:
    assert await w3.eth.block_number == 7
    nodes[0].is_down = True
    assert await w3.eth.chain_id == CHAIN_ID
    assert await w3.is_connected()


async def test_refusals_become_web3_errors(
    w3: AsyncWeb3[EndpointsProvider], nodes: list[FakeNode]
) -> None:
    nodes[0].errors["eth_chainId"] = (-32602, "invalid params")
    nodes[0].errors.clear()
    nodes[0].errors["eth_blockNumber"] = (-32602, "invalid params")
    with pytest.raises(Web3RPCError, match="invalid params"):
        await w3.eth.get_block_number()
    assert nodes[1].asked == []


async def test_transactions_go_to_all(
    w3: AsyncWeb3[EndpointsProvider], nodes: list[FakeNode], chain: FakeChain
) -> None:
    sent = await w3.eth.send_raw_transaction(RAW)
    assert bytes(sent) == bytes(w3.keccak(RAW))
    assert chain.raw == [RAW]
    assert all("eth_sendRawTransaction" in node.asked for node in nodes)


async def test_a_refused_transaction_is_an_error(
    w3: AsyncWeb3[EndpointsProvider], nodes: list[FakeNode]
) -> None:
    nodes[0].errors["eth_sendRawTransaction"] = (-32000, "who are you")
    nodes[1].errors["eth_sendRawTransaction"] = (-32000, "nonce too low")
    with pytest.raises(Web3RPCError, match="nonce too low"):
        await w3.eth.send_raw_transaction(RAW)


async def test_batches_work(w3: AsyncWeb3[EndpointsProvider]) -> None:
    async with w3.batch_requests() as batch:
        batch.add(w3.eth.get_block(2))
        batch.add(w3.eth.get_block(5))
        answers = await batch.async_execute()
    blocks: list[Any] = list(answers)
    assert [block["number"] for block in blocks] == [2, 5]


async def test_without_endpoints_the_chain_is_unavailable(
    w3: AsyncWeb3[EndpointsProvider], nodes: list[FakeNode]
) -> None:
    for node in nodes:
        node.is_down = True
    assert not await w3.is_connected()
    with pytest.raises(ChainUnavailable):
        await w3.eth.send_raw_transaction(RAW)
