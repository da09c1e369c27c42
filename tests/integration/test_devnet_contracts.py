from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from py_ecc.fields import optimized_bn128_FQ2
from py_ecc.optimized_bn128 import optimized_curve as reference

from aligned.bls.curve import sum_g1
from aligned.chain import calldata
from aligned.chain.calldata import Certificate
from aligned.chain.reverts import RevertKind, classify
from aligned.model import BlockHash, BlockRef, G1Point, G2Point, Signature
from devnet.batcher import Batcher, Posted
from devnet.contracts import artifacts
from devnet.keys import sign_all
from devnet.network import AGGREGATOR, ETHER, Network, hexed
from devnet.rpc import CallFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devnet.keys import OperatorKey


@pytest.fixture
async def batch(chain: Network) -> Posted:
    return await Batcher(chain).post(value=ETHER)


def _sum_g2(keys: Sequence[OperatorKey]) -> G2Point:
    total = reference.multiply(reference.G2, 0)
    for key in keys:
        real_x, imaginary_x, real_y, imaginary_y = (
            int.from_bytes(key.g2[at : at + 32]) for at in range(0, 128, 32)
        )
        point = (
            optimized_bn128_FQ2((real_x, imaginary_x)),
            optimized_bn128_FQ2((real_y, imaginary_y)),
            optimized_bn128_FQ2.one(),
        )
        total = reference.add(total, point)
    x, y = reference.normalize(total)
    return G2Point(b"".join(int(part).to_bytes(32) for part in (*x.coeffs, *y.coeffs)))


async def _answer(
    network: Network, batch: Posted, signers: Sequence[int], members: Sequence[int] = range(4)
) -> bytes:
    """Return the call data of an answer with these signers."""
    keys = network.operators
    signed = tuple(keys[index] for index in signers)
    silent = sorted(
        (keys[index] for index in members if index not in signers), key=lambda key: key.operator_id
    )
    certificate = Certificate(
        merkle_root=batch.merkle_root,
        sender=batch.sender,
        batch_id=batch.batch_id,
        created=BlockRef(batch.created_block, BlockHash(bytes(32))),
        non_signers=tuple(key.operator_id for key in silent),
        non_signer_keys=tuple(key.g1 for key in silent),
        quorum_apk=sum_g1(keys[index].g1 for index in members),
        signers_apk_g1=sum_g1(key.g1 for key in signed),
        apk_g2=_sum_g2(signed),
        sigma=Signature(sum_g1(G1Point(item) for item in sign_all(signed, batch.batch_id))),
    )
    question = calldata.get_check_signatures_indices(
        network.deployment.registry_coordinator, batch.created_block, certificate.non_signers
    )
    call = {"to": hexed(network.deployment.operator_state_retriever), "data": hexed(question)}
    answer = await network.node.call("eth_call", call, "latest")
    indices = calldata.parse_check_signatures_indices(bytes.fromhex(answer[2:]))
    return calldata.respond_to_task(certificate, indices)


async def _send(network: Network, data: bytes, *, gas_price: int = 10**9) -> dict[str, str]:
    """Send as the aggregator; a revert is raised by the estimate."""
    request = {
        "from": hexed(AGGREGATOR),
        "to": hexed(network.deployment.service_manager),
        "data": hexed(data),
        "maxFeePerGas": hex(gas_price),
        "maxPriorityFeePerGas": hex(gas_price),
    }
    estimate = await network.node.call("eth_estimateGas", request, "pending")
    request["gas"] = hex(int(estimate, 16) * 11 // 10)
    sent = await network.node.call("eth_sendTransaction", request)
    await network.anvil.mine()
    receipt: dict[str, str] = await network.node.call("eth_getTransactionReceipt", sent)
    return receipt


async def _refusal(network: Network, data: bytes, **options: int) -> RevertKind:
    with pytest.raises(CallFailed) as caught:
        await _send(network, data, **options)
    return classify(caught.value.data, str(caught.value)).kind


@pytest.mark.parametrize(
    "signers", [pytest.param((0, 1, 2, 3), id="all"), pytest.param((3, 0, 2), id="three of four")]
)
async def test_two_thirds_of_the_stake_verify_a_batch_and_are_paid(
    chain: Network, batch: Posted, signers: tuple[int, ...]
) -> None:
    receipt = await _send(chain, await _answer(chain, batch, signers))
    assert receipt["status"] == "0x1"
    assert (await chain.batch(batch.batch_id)).responded
    assert await chain.answers(batch.merkle_root, batch.sender) == [receipt["transactionHash"]]
    paid = ETHER - await chain.balance(batch.sender)
    price = int(receipt["effectiveGasPrice"], 16)
    assert paid > int(receipt["gasUsed"], 16) * price - 10_000 * price
    assert paid < batch.fee_limit


async def test_half_of_the_stake_does_not(chain: Network, batch: Posted) -> None:
    data = await _answer(chain, batch, (0, 1))
    assert await _refusal(chain, data) is RevertKind.BELOW_THRESHOLD


async def test_a_batch_is_answered_once(chain: Network, batch: Posted) -> None:
    data = await _answer(chain, batch, (0, 1, 2, 3))
    await _send(chain, data)
    assert await _refusal(chain, data) is RevertKind.ALREADY_ANSWERED


async def test_the_members_of_the_batch_s_block_count(chain: Network, batch: Posted) -> None:
    await chain.deregister(chain.operators[0])
    await chain.set_stake(chain.operators[1], 1_000)
    receipt = await _send(chain, await _answer(chain, batch, (0, 2, 3)))
    assert receipt["status"] == "0x1"


async def test_an_operator_that_came_back_counts_again(chain: Network) -> None:
    await chain.deregister(chain.operators[0])
    await chain.rejoin(chain.operators[0], 100)
    batch = await Batcher(chain).post(value=ETHER)
    receipt = await _send(chain, await _answer(chain, batch, (1, 2, 3)))
    assert receipt["status"] == "0x1"


async def test_a_signature_of_something_else_is_refused(chain: Network, batch: Posted) -> None:
    other = await Batcher(chain).post(value=ETHER)
    data = await _answer(chain, batch, (0, 1, 2, 3))
    sigma = sum_g1(G1Point(item) for item in sign_all(chain.operators, batch.batch_id))
    wrong = sum_g1(G1Point(item) for item in sign_all(chain.operators, other.batch_id))
    assert data.count(sigma) == 1
    kind = await _refusal(chain, data.replace(sigma, wrong))
    assert kind is RevertKind.BAD_SIGNATURE


async def test_only_the_aggregator_answers(chain: Network, batch: Posted) -> None:
    data = await _answer(chain, batch, (0, 1, 2, 3))
    await chain.set_aggregator(batch.sender)
    assert await _refusal(chain, data) is RevertKind.NOT_AGGREGATOR


async def test_a_paused_contract_refuses_answers_until_it_goes_on(
    chain: Network, batch: Posted
) -> None:
    data = await _answer(chain, batch, (0, 1, 2, 3))
    await chain.pause(answers=True)
    assert await _refusal(chain, data) is RevertKind.PAUSED
    await chain.pause()
    assert (await _send(chain, data))["status"] == "0x1"


async def test_an_answer_dearer_than_the_limit_reverts_or_is_paid_up_to_it(chain: Network) -> None:
    batch = await Batcher(chain).post(value=ETHER, fee_limit=10**14)
    data = await _answer(chain, batch, (0, 1, 2, 3))
    assert await _refusal(chain, data, gas_price=10**9 * 5) is RevertKind.FEE_LIMIT
    await chain.cap_fees(on=True)
    receipt = await _send(chain, data, gas_price=10**9 * 5)
    assert receipt["status"] == "0x1"
    assert await chain.balance(batch.sender) == ETHER - 10**14


async def test_a_batcher_that_withdrew_is_not_answered(chain: Network, batch: Posted) -> None:
    data = await _answer(chain, batch, (0, 1, 2, 3))
    await Batcher(chain).withdraw(ETHER)
    assert await _refusal(chain, data) is RevertKind.BATCHER_FUNDS


async def test_anybody_may_check_a_certificate_for_nothing(chain: Network, batch: Posted) -> None:
    data = await _answer(chain, batch, (0, 1, 2))
    manager = artifacts.load().service_manager
    (name,) = (item for item in manager.selectors if item.startswith("checkSignatures"))
    head = batch.batch_id + batch.created_block.to_bytes(32)
    call = {
        "to": hexed(chain.deployment.service_manager),
        "data": hexed(manager.selectors[name] + head + data[4 + 64 :]),
    }
    answer = bytes.fromhex((await chain.node.call("eth_call", call, "pending"))[2:])
    (signed, total), _ = manager.result("checkSignatures", answer)
    assert (signed, total) == ((300,), (400,))
