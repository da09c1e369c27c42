"""Which contracts belong to a deployment, and which chain it is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligned.chain import blocks, calldata
from aligned.chain.jsonrpc import Verdict, judge
from aligned.chain.rpc import RpcError, Undecodable, eth_call, to_bytes
from aligned.errors import BadConfiguration, ChainUnavailable
from aligned.model import Identity

if TYPE_CHECKING:
    from aligned.chain.rpc import Rpc
    from aligned.model import Address


_PROGRESS: Final[tuple[tuple[str, list[object]], ...]] = (
    ("eth_syncing", []),
    ("eth_getBlockByNumber", ["latest", False]),
)
"""How far a node is; asked with each question, since another node may answer the next one."""


class Behind(ChainUnavailable):
    """The endpoint that answers is of this chain and knows it up to before the deployment only."""

    def __init__(self, head: object, lacks: str) -> None:
        super().__init__(
            f"the endpoint that answers is at block {blocks.parse_header(head).number} and "
            f"{lacks}: its node is syncing. Wait until it is done, or configure one in sync"
        )


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
    deployment_block: int = 0,
) -> Contracts:
    """Complete the configured addresses with those that the chain knows.

    Raises:
        BadConfiguration: A configured address is not what it should be on this chain.
        Behind: The endpoint that answers has not got to ``deployment_block`` yet.
        ChainUnavailable: No endpoint answers.
    """
    syncing, head, aligned_aggregator, apk_registry, stake_registry, code = await rpc.call_many(
        [
            *_PROGRESS,
            eth_call(service_manager, calldata.aligned_aggregator(), "latest"),
            eth_call(registry_coordinator, calldata.bls_apk_registry(), "latest"),
            eth_call(registry_coordinator, calldata.stake_registry(), "latest"),
            ("eth_getCode", ["0x" + operator_state_retriever.hex(), "latest"]),
        ]
    )
    problems = [
        f"network.contracts.{name}: 0x{address.hex()} is no such contract on this chain"
        for name, address, answer in (
            ("service_manager", service_manager, aligned_aggregator),
            ("registry_coordinator", registry_coordinator, apk_registry),
        )
        if not _is_address(answer)
    ]
    if not to_bytes(code):
        problems.append(
            "network.contracts.operator_state_retriever: "
            f"there is no contract at 0x{operator_state_retriever.hex()} on this chain"
        )
    if problems:
        if _is_behind(syncing, head, deployment_block):
            raise Behind(head, "has not got the contracts")
        raise BadConfiguration(tuple(problems))
    return Contracts(
        service_manager=service_manager,
        registry_coordinator=registry_coordinator,
        operator_state_retriever=operator_state_retriever,
        bls_apk_registry=_address(apk_registry),
        stake_registry=_address(stake_registry),
    )


async def identify(rpc: Rpc, service_manager: Address, deployment_block: int) -> Identity:
    """Return what tells this deployment from every other.

    Raises:
        BadConfiguration: The chain is younger than ``deployment_block``.
        Behind: The endpoint that answers has not got to ``deployment_block`` yet.
        ChainUnavailable: No endpoint answers.
    """
    chain_id = await _chain_id(rpc)
    syncing, head, genesis, deployment, contract = await rpc.call_many(
        [
            *_PROGRESS,
            ("eth_getBlockByNumber", ["0x0", False]),
            ("eth_getBlockByNumber", [hex(deployment_block), False]),
            eth_call(service_manager, calldata.aligned_aggregator(), "latest"),
        ]
    )
    if deployment is None:
        # The contract before the block that holds its deployment: then the number is wrong.
        if isinstance(syncing, dict) or not _is_address(contract):
            raise Behind(head, f"has no block {deployment_block} (chain.deployment_block) yet")
        problem = f"chain.deployment_block: the chain has no block {deployment_block} yet"
        raise BadConfiguration((problem,))
    return Identity(
        chain_id=chain_id,
        genesis_hash=blocks.parse_header(genesis).hash,
        service_manager=service_manager,
        deployment_hash=blocks.parse_header(deployment).hash,
    )


async def aggregator(rpc: Rpc, service_manager: Address) -> Address:
    """Return the one account whose answers the contract takes, as of the head.

    Raises:
        ChainUnavailable: No endpoint answers.
    """
    question = eth_call(service_manager, calldata.aligned_aggregator(), "latest")
    (answer,) = await rpc.call_many([question])
    return _address(answer)


async def _chain_id(rpc: Rpc) -> int:
    try:
        return await rpc.maximum("eth_chainId", [])
    except RpcError as refusal:
        msg = f"eth_chainId is refused: {refusal}"
        raise ChainUnavailable(msg) from refusal


def _is_behind(syncing: object, head: object, deployment_block: int) -> bool:
    """Tell whether a node's "no contract" says nothing: it is still on its way to the deployment.

    A node may deny that it is syncing when it is (geth without peers, Besu in a snap sync), so
    its head counts too.
    """
    number = blocks.parse_header(head).number
    return isinstance(syncing, dict) or number < max(deployment_block, 1)


def _is_address(answer: object) -> bool:
    try:
        _address(answer)
    except Undecodable:
        return False
    return True


def _address(answer: object) -> Address:
    """Return the address that a contract answered.

    Raises:
        Undecodable: It is no such contract.
        ChainUnavailable: The node did not get to asking it.
    """
    if isinstance(answer, RpcError):
        msg = f"the contract does not answer: {answer}"
        if judge(answer) is not Verdict.FINAL:
            raise ChainUnavailable(msg) from answer
        raise Undecodable(msg) from answer
    return calldata.parse_address(to_bytes(answer))
