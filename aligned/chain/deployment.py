"""Which contracts belong to a deployment, and which chain it is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligned.chain import blocks, calldata
from aligned.chain.rpc import BlockMissing, RpcError, Undecodable, eth_call, to_bytes
from aligned.errors import BadConfiguration, ChainUnavailable
from aligned.model import Identity

if TYPE_CHECKING:
    from aligned.chain.rpc import Rpc
    from aligned.model import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Contracts:
    """Addresses of a deployment."""

    service_manager: Address
    registry_coordinator: Address
    operator_state_retriever: Address
    bls_apk_registry: Address
    stake_registry: Address


async def resolve(
    rpc: Rpc,
    *,
    service_manager: Address,
    registry_coordinator: Address,
    operator_state_retriever: Address,
) -> Contracts:
    """Complete the configured addresses with those that the chain knows.

    Raises:
        BadConfiguration: A configured address is not what it should be on this chain.
        ChainUnavailable: No endpoint answers.
    """
    paths = {
        "service_manager": (service_manager, calldata.aligned_aggregator()),
        "registry_coordinator": (registry_coordinator, calldata.bls_apk_registry()),
    }
    problems = []
    found = {}
    for name, (address, question) in paths.items():
        try:
            found[name] = await _ask_address(rpc, address, question)
        except Undecodable:
            problems.append(
                f"network.contracts.{name}: 0x{address.hex()} is no such contract on this chain"
            )
    code = await rpc.call("eth_getCode", ["0x" + operator_state_retriever.hex(), "latest"])
    if not to_bytes(code):
        problems.append(
            "network.contracts.operator_state_retriever: "
            f"there is no contract at 0x{operator_state_retriever.hex()} on this chain"
        )
    if problems:
        raise BadConfiguration(tuple(problems))
    return Contracts(
        service_manager=service_manager,
        registry_coordinator=registry_coordinator,
        operator_state_retriever=operator_state_retriever,
        bls_apk_registry=found["registry_coordinator"],
        stake_registry=await _ask_address(rpc, registry_coordinator, calldata.stake_registry()),
    )


async def identify(rpc: Rpc, service_manager: Address, deployment_block: int) -> Identity:
    """Return what tells this deployment from every other.

    Raises:
        BadConfiguration: The chain is younger than ``deployment_block``.
        ChainUnavailable: No endpoint answers.
    """
    chain_id = await _chain_id(rpc)
    (genesis,) = await blocks.headers(rpc, [0])
    try:
        (deployment,) = await blocks.headers(rpc, [deployment_block])
    except BlockMissing as missing:
        problem = f"chain.deployment_block: the chain has no block {deployment_block} yet"
        raise BadConfiguration((problem,)) from missing
    return Identity(
        chain_id=chain_id,
        genesis_hash=genesis.hash,
        service_manager=service_manager,
        deployment_hash=deployment.hash,
    )


async def aggregator(rpc: Rpc, service_manager: Address) -> Address:
    """Return the one account whose answers the contract takes, as of the head.

    Raises:
        ChainUnavailable: No endpoint answers.
    """
    return await _ask_address(rpc, service_manager, calldata.aligned_aggregator())


async def _chain_id(rpc: Rpc) -> int:
    try:
        return await rpc.maximum("eth_chainId", [])
    except RpcError as refusal:
        msg = f"eth_chainId is refused: {refusal}"
        raise ChainUnavailable(msg) from refusal


async def _ask_address(rpc: Rpc, contract: Address, question: bytes) -> Address:
    try:
        answer = await rpc.call(*eth_call(contract, question, "latest"))
    except RpcError as refusal:
        msg = f"0x{contract.hex()} does not answer: {refusal}"
        raise Undecodable(msg) from refusal
    return calldata.parse_address(to_bytes(answer))
