from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aggregator.chain.facts import SIMULATED_GAS, Node
from aggregator.chain.fees import Offer
from aligned.chain.reverts import RevertKind
from aligned.chain.rpc import RpcError
from aligned.model import Address, BlockRef, Wei
from tests.fakes.builders import block

ACCOUNT = Address(b"\x0a" * 20)
OFFER = Offer(Wei(100), Wei(2))


class Heads:
    head: BlockRef | None = block(41)
    finalized: BlockRef | None = None

    async def next_head(self) -> BlockRef:
        return block(42)


class ScriptedRpc:
    """Answers each method with what it was given; records the calls."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[tuple[str, Any]] = []

    async def call(self, method: str, params: Sequence[object]) -> Any:
        self.calls.append((method, params))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer


def simulated(**result: object) -> list[dict[str, object]]:
    return [{"calls": [result]}]


def node(rpc: ScriptedRpc) -> Node:
    return Node(rpc, Address(b"\x0c" * 20), None, Heads())  # type: ignore[arg-type]  # calls alone


async def gas(reader: Node) -> int:
    return await reader.estimate(ACCOUNT, b"\x01", OFFER, base_fee=Wei(50))


async def test_an_answer_is_simulated_once_in_the_next_block_at_its_price() -> None:
    rpc = ScriptedRpc(eth_simulateV1=simulated(status="0x1", gasUsed="0x5208"))
    assert await gas(node(rpc)) == 21_000
    ((_, (arguments, tag)),) = rpc.calls
    (state,) = arguments["blockStateCalls"]
    assert tag == "latest"
    assert state["blockOverrides"] == {"number": hex(42), "baseFeePerGas": hex(50)}
    (call,) = state["calls"]
    assert (call["maxFeePerGas"], call["maxPriorityFeePerGas"]) == (hex(100), hex(2))
    assert call["gas"] == hex(SIMULATED_GAS)  # or geth wants the money for a whole block


async def test_a_node_without_it_is_asked_for_an_estimate_from_then_on() -> None:
    missing = RpcError(-32601, "the method eth_simulateV1 does not exist")
    rpc = ScriptedRpc(eth_simulateV1=missing, eth_estimateGas="0x10")
    reader = node(rpc)
    assert [await gas(reader), await gas(reader)] == [16, 16]
    methods = [method for method, _ in rpc.calls]
    assert methods == ["eth_simulateV1", "eth_estimateGas", "eth_estimateGas"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(RpcError(-38020, "block numbers must be in order"), id="refused"),
        pytest.param([], id="empty"),
        pytest.param([{"calls": [{"status": "0x1"}]}], id="without-gas"),
        pytest.param({"calls": []}, id="another-shape"),
        pytest.param(simulated(status="0x0", gasUsed=hex(SIMULATED_GAS)), id="out-of-gas"),
    ],
)
async def test_a_simulation_that_tells_nothing_is_followed_by_an_estimate(answer: object) -> None:
    rpc = ScriptedRpc(eth_simulateV1=answer, eth_estimateGas="0x10")
    reader = node(rpc)
    assert [await gas(reader), await gas(reader)] == [16, 16]
    assert [method for method, _ in rpc.calls].count("eth_simulateV1") == 2


async def test_a_revert_comes_out_with_its_data() -> None:
    result = {
        "status": "0x0",
        "gasUsed": "0x1",
        "returnData": "0x9cf1aff2",
        "error": {"code": 3, "message": "execution reverted"},
    }
    rpc = ScriptedRpc(eth_simulateV1=simulated(**result))
    with pytest.raises(RpcError) as refusal:
        await gas(node(rpc))
    assert refusal.value.data == "0x9cf1aff2"
    assert [method for method, _ in rpc.calls] == ["eth_simulateV1"]


async def test_a_call_that_tells_why_has_a_gas_limit() -> None:
    rpc = ScriptedRpc(eth_call=RpcError(3, "execution reverted", "0x9cf1aff2"))
    revert = await node(rpc).simulate(ACCOUNT, b"\x01", Wei(100), Wei(2))
    assert revert.kind is RevertKind.ALREADY_ANSWERED
    ((_, (call, _)),) = rpc.calls
    assert call["gas"] == hex(SIMULATED_GAS)
