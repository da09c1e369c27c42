from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from aggregator.chain.registry import Registry
from aligned.chain import abi, blocks, calldata, deployment, history
from aligned.chain.endpoints import Endpoints, Source
from aligned.chain.logs import Filter, Logs
from aligned.chain.rpc import BlockMissing, RpcError, eth_call, pinned, to_bytes
from aligned.model import (
    Address,
    BatchId,
    BlockHash,
    BlockRef,
    Operator,
    OperatorId,
    Wei,
    batch_id,
)
from devnet import anvil
from devnet.anvil import Anvil
from devnet.batcher import FEE_LIMIT, Batcher
from devnet.network import Network
from tests.fakes.bls import FakeBackend
from tests.fakes.builders import SENDER, operator, root
from tests.fakes.ethereum import (
    CHAIN_ID,
    CONTRACTS,
    FakeChain,
    FakeNet,
    FakeNode,
    new_batch,
    registration,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from aligned.chain.deployment import Contracts


class Subject(Protocol):
    """A chain with two operators of stake 100 each."""

    rpc: Endpoints
    contracts: Contracts

    @property
    def sender(self) -> Address: ...

    async def post(self, number: int) -> None: ...

    async def mine(self) -> None: ...

    async def reorg(self, depth: int) -> None: ...


@dataclass
class Fake:
    chain: FakeChain
    rpc: Endpoints
    contracts: Contracts = CONTRACTS
    sender: Address = SENDER

    async def post(self, number: int) -> None:
        self.chain.mine(new_batch(number, fee_limit=FEE_LIMIT))

    async def mine(self) -> None:
        self.chain.mine()

    async def reorg(self, depth: int) -> None:
        self.chain.drop(depth)
        self.chain.mine_many(depth)


@dataclass
class Real:
    network: Network
    batcher: Batcher
    rpc: Endpoints
    contracts: Contracts

    @property
    def sender(self) -> Address:
        return self.batcher.account

    async def post(self, number: int) -> None:
        await self.batcher.post(root(number))

    async def mine(self) -> None:
        await self.network.anvil.mine()

    async def reorg(self, depth: int) -> None:
        await self.network.anvil.reorg(depth)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Network | None]:
    if anvil.find() is None:
        yield None
        return
    with Anvil() as running, asyncio.Runner() as runner:
        yield runner.run(Network.deploy(running, stakes=(100, 100)))


@pytest.fixture(params=["fake", "anvil"])
async def subject(
    request: pytest.FixtureRequest, deployed: Network | None
) -> AsyncIterator[Subject]:
    if request.param == "fake":
        yield _fake()
        return
    if deployed is None:
        pytest.skip("anvil is not installed: python -m devnet.node.install")
    async with _real(deployed) as real:
        yield real


def _fake() -> Fake:
    chain = FakeChain()
    net = FakeNet({"http://one": FakeNode(chain)})
    two = [operator(1), operator(2)]
    stakes = {item.operator_id: 100 for item in two}
    chain.mine(*(registration(item) for item in two), stakes=stakes)
    return Fake(chain, Endpoints([Source(name="one", url="http://one")], CHAIN_ID, transport=net))


@asynccontextmanager
async def _real(network: Network) -> AsyncIterator[Real]:
    snapshot = await network.anvil.snapshot()
    batcher = Batcher(network)
    await batcher.deposit()
    async with Endpoints([Source(name="one", url=network.anvil.url)], CHAIN_ID) as rpc:
        where = network.deployment
        contracts = await deployment.resolve(
            rpc,
            service_manager=where.service_manager,
            registry_coordinator=where.registry_coordinator,
            operator_state_retriever=where.operator_state_retriever,
        )
        yield Real(network, batcher, rpc, contracts)
    await network.anvil.revert(snapshot)


async def head_of(subject: Subject) -> BlockRef:
    return (await blocks.latest(subject.rpc)).ref


async def record(subject: Subject, identifier: BatchId, block: object) -> calldata.BatchRecord:
    assert isinstance(block, str | dict)
    question = calldata.batches_state(identifier)
    call = eth_call(subject.contracts.service_manager, question, block)
    return calldata.parse_batches_state(to_bytes(await subject.rpc.call(*call)))


async def test_a_batch_is_in_the_events_and_in_storage(subject: Subject) -> None:
    await subject.post(1)
    head = await head_of(subject)
    logs = Logs(subject.rpc, clock=lambda: 0.0)
    manager = subject.contracts.service_manager
    batches = [b async for h in history.scan(logs, manager, 0, head.number) for b in h.batches]
    assert [(b.merkle_root, b.sender, b.created) for b in batches] == [
        (root(1), subject.sender, head)
    ]
    assert await record(subject, batches[0].batch_id, pinned(head.hash)) == calldata.BatchRecord(
        created_block=head.number, responded=False, fee_limit=Wei(FEE_LIMIT)
    )


async def test_storage_knows_no_batch_that_was_not_posted(subject: Subject) -> None:
    found = await record(subject, batch_id(root(9), subject.sender), "latest")
    assert found.created_block == 0


async def test_an_older_block_is_read_as_it_was(subject: Subject) -> None:
    before = await head_of(subject)
    await subject.post(1)
    identifier = batch_id(root(1), subject.sender)
    assert (await record(subject, identifier, pinned(before.hash))).created_block == 0
    assert (await record(subject, identifier, "latest")).created_block == before.number + 1


async def test_a_block_nobody_has_is_missing(subject: Subject) -> None:
    identifier = batch_id(root(1), subject.sender)
    with pytest.raises(BlockMissing):
        await record(subject, identifier, pinned(BlockHash(b"\x77" * 32)))
    head = await head_of(subject)
    with pytest.raises(BlockMissing):
        await blocks.headers(subject.rpc, [head.number, head.number + 1])


async def test_a_block_of_another_branch_is_missing(subject: Subject) -> None:
    await subject.post(1)
    before = await head_of(subject)
    await subject.reorg(1)
    assert (await head_of(subject)).number == before.number
    with pytest.raises(BlockMissing):
        await record(subject, batch_id(root(1), subject.sender), pinned(before.hash))
    (header,) = await blocks.headers(subject.rpc, [before.number])
    assert header.hash != before.hash


async def test_logs_that_reach_beyond_the_head_are_no_answer(subject: Subject) -> None:
    await subject.post(1)
    head = await head_of(subject)
    wanted = Filter(subject.contracts.service_manager, ((abi.NEW_BATCH_V3,),))
    logs = Logs(subject.rpc, clock=lambda: 0.0)
    assert [log.block for log in await logs.read(wanted, 0, head.number)] == [head]
    with pytest.raises(BlockMissing):
        await logs.read(wanted, 0, head.number + 1)
    # alone, the question gets what there is: only its company tells that it is not all
    question = [wanted.request(0, head.number + 1)]
    assert len(await subject.rpc.call("eth_getLogs", question)) == 1


async def test_a_node_at_the_tip_is_not_syncing(subject: Subject) -> None:
    assert await subject.rpc.call("eth_syncing", []) is False


async def test_headers_are_linked(subject: Subject) -> None:
    await subject.mine()
    head = await blocks.latest(subject.rpc)
    parent, again = await blocks.headers(subject.rpc, [head.number - 1, head.number])
    assert (again, head.parent) == (head, parent.hash)
    assert parent.timestamp <= head.timestamp
    final = await blocks.finalized(subject.rpc)
    assert final is not None
    assert final.number < head.number


async def test_the_registry_shows_members_keys_and_the_total(subject: Subject) -> None:
    saved: list[Operator] = []

    async def save(operators: Sequence[Operator], _progress: BlockRef) -> None:
        saved.extend(operators)

    registry = Registry(
        subject.rpc,
        subject.contracts,
        FakeBackend(),
        save,
        deployment_block=0,
        clock=lambda: 0.0,
    )
    head = await head_of(subject)
    await registry.sync(head)
    members = await registry.operators_at(head)
    if isinstance(subject, Real):
        assert set(members.stakes) == {known.operator_id for known in saved}
        keys = {key.operator_id: (key.g1, key.g2) for key in subject.network.operators}
        assert {known.operator_id: (known.g1, known.g2) for known in saved} == keys
    assert (len(saved), sorted(members.stakes.values()), members.total) == (2, [100, 100], 200)


async def test_an_unknown_operator_is_nobody(subject: Subject) -> None:
    question = calldata.get_operator_from_pubkey_hash(OperatorId(b"\x05" * 32))
    call = eth_call(subject.contracts.bls_apk_registry, question, "latest")
    assert not any(calldata.parse_address(to_bytes(await subject.rpc.call(*call))))


async def test_an_unknown_method_is_refused(subject: Subject) -> None:
    with pytest.raises(RpcError):
        await subject.rpc.call("eth_nonsense", [])


async def test_several_calls_keep_their_order(subject: Subject) -> None:
    head = await head_of(subject)
    answers = await subject.rpc.call_many(
        [("eth_blockNumber", []), ("eth_nonsense", []), ("eth_chainId", [])]
    )
    assert (answers[0], answers[2]) == (hex(head.number), hex(CHAIN_ID))
    assert isinstance(answers[1], RpcError)
