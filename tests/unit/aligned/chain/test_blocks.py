from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from aligned.chain import blocks, deployment
from aligned.chain.endpoints import Endpoints, Source
from aligned.chain.rpc import BlockMissing, Undecodable
from aligned.errors import BadConfiguration, ChainUnavailable
from aligned.model import Address
from tests.fakes.ethereum import (
    AGGREGATOR,
    CHAIN_ID,
    CONTRACTS,
    SECONDS,
    FakeChain,
    FakeNet,
    FakeNode,
)


def chain_of(length: int) -> tuple[FakeChain, FakeNode, Endpoints]:
    chain = FakeChain()
    chain.mine_many(length)
    node = FakeNode(chain)
    source = Source(name="one", url="http://one")
    return chain, node, Endpoints([source], CHAIN_ID, transport=FakeNet({"http://one": node}))


async def test_the_head_is_read() -> None:
    chain, _, rpc = chain_of(3)
    head = await blocks.latest(rpc)
    assert (head.ref, head.parent) == (chain.head.ref, chain.blocks[2].hash)
    assert (head.timestamp, head.base_fee) == (chain.head.timestamp, 10**9)


async def test_the_finalized_block_is_named_or_not() -> None:
    chain, node, rpc = chain_of(70)
    final = await blocks.finalized(rpc)
    assert final is not None
    assert final.ref == chain.blocks[6].ref
    chain.finality = None
    assert await blocks.finalized(rpc) is None
    node.errors["eth_getBlockByNumber"] = (-32602, "invalid argument: finalized")
    assert await blocks.finalized(rpc) is None


async def test_headers_keep_the_order_asked_for() -> None:
    chain, _, rpc = chain_of(3)
    found = await blocks.headers(rpc, [3, 1])
    assert [header.ref for header in found] == [chain.blocks[3].ref, chain.blocks[1].ref]


async def test_a_block_that_is_not_there_is_missing() -> None:
    _, _, rpc = chain_of(3)
    with pytest.raises(BlockMissing, match="block 4"):
        await blocks.headers(rpc, [3, 4])


@pytest.mark.parametrize("block", [None, "0x1", {"number": "0x1"}], ids=repr)
def test_what_is_no_block_is_not_decoded(block: object) -> None:
    with pytest.raises(Undecodable):
        blocks.parse_header(block)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(-5, 50))
async def test_the_first_block_since_a_time_is_found(length: int, lowest: int, after: int) -> None:
    chain, _, rpc = chain_of(length)
    since = chain.blocks[0].timestamp + after * SECONDS - 1
    found = await blocks.first_since(rpc, since, lowest, await blocks.latest(rpc))
    young = [b.number for b in chain.blocks if b.timestamp >= since and b.number >= lowest]
    assert found == (young[0] if young else length)


async def test_a_deployment_is_completed_from_the_chain() -> None:
    _, _, rpc = chain_of(1)
    found = await deployment.resolve(
        rpc,
        service_manager=CONTRACTS.service_manager,
        registry_coordinator=CONTRACTS.registry_coordinator,
        operator_state_retriever=CONTRACTS.operator_state_retriever,
    )
    assert found == CONTRACTS
    assert await deployment.aggregator(rpc, CONTRACTS.service_manager) == AGGREGATOR


async def test_a_wrong_address_is_said_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    _, node, rpc = chain_of(1)
    monkeypatch.setattr(node, "_eth_call", lambda _request, _tag: "0x")
    nowhere = Address(b"\x01" * 20)
    with pytest.raises(BadConfiguration) as caught:
        await deployment.resolve(
            rpc,
            service_manager=nowhere,
            registry_coordinator=nowhere,
            operator_state_retriever=nowhere,
        )
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "network.contracts.service_manager",
        "network.contracts.registry_coordinator",
        "network.contracts.operator_state_retriever",
    ]


async def resolve(rpc: Endpoints, *, deployment_block: int = 0) -> None:
    await deployment.resolve(
        rpc,
        service_manager=CONTRACTS.service_manager,
        registry_coordinator=CONTRACTS.registry_coordinator,
        operator_state_retriever=CONTRACTS.operator_state_retriever,
        deployment_block=deployment_block,
    )


@pytest.mark.parametrize(
    ("lag", "says_syncing", "deployment_block"),
    [
        pytest.param(10, False, 0, id="at the genesis block, which a node may call in sync"),
        pytest.param(3, True, 0, id="on its way, and says so"),
        pytest.param(3, False, 8, id="before the configured block"),
    ],
)
async def test_an_endpoint_that_is_syncing_contradicts_no_address(
    lag: int, says_syncing: bool, deployment_block: int
) -> None:
    chain, node, rpc = chain_of(10)
    chain.deployment = 8
    node.lag, node.says_syncing = lag, says_syncing
    with pytest.raises(deployment.Behind, match=f"at block {10 - lag} .*its node is syncing"):
        await resolve(rpc, deployment_block=deployment_block)
    node.lag, node.says_syncing = 0, False
    await resolve(rpc, deployment_block=deployment_block)


async def test_an_endpoint_past_the_deployment_that_lacks_a_contract_is_right() -> None:
    chain, _, rpc = chain_of(10)
    chain.deployment = 11
    with pytest.raises(BadConfiguration):
        await resolve(rpc, deployment_block=8)


async def test_a_node_that_does_not_get_to_asking_a_contract_says_nothing_of_it() -> None:
    _, node, rpc = chain_of(10)
    node.errors["eth_call"] = (-32603, "internal error")
    with pytest.raises(ChainUnavailable, match="internal error"):
        await resolve(rpc)
    node.errors["eth_call"] = (3, "execution reverted")
    with pytest.raises(BadConfiguration, match="is no such contract"):
        await resolve(rpc)


@pytest.mark.parametrize("says_syncing", [False, True])
async def test_an_endpoint_that_is_syncing_is_not_a_chain_too_young(says_syncing: bool) -> None:
    chain, node, rpc = chain_of(10)
    chain.deployment = 0 if says_syncing else 8
    node.lag, node.says_syncing = 5, says_syncing
    with pytest.raises(deployment.Behind, match="at block 5 and has no block 8"):
        await deployment.identify(rpc, CONTRACTS.service_manager, 8)
    node.lag, node.says_syncing = 0, False
    identity = await deployment.identify(rpc, CONTRACTS.service_manager, 8)
    assert identity.deployment_hash == chain.blocks[8].hash


async def test_the_identity_names_chain_genesis_and_deployment_block() -> None:
    chain, _, rpc = chain_of(3)
    identity = await deployment.identify(rpc, CONTRACTS.service_manager, 2)
    assert identity.chain_id == CHAIN_ID
    assert identity.genesis_hash == chain.blocks[0].hash
    assert identity.deployment_hash == chain.blocks[2].hash


async def test_a_deployment_in_the_future_is_bad_configuration() -> None:
    _, _, rpc = chain_of(3)
    with pytest.raises(BadConfiguration, match="no block 4"):
        await deployment.identify(rpc, CONTRACTS.service_manager, 4)
