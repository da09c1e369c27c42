from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from aggregator.batches import Batches
from aggregator.certificate import assemble
from aggregator.chain.registry import Known, Registry
from aggregator.watch import Scope, Watch
from aligned.bls.choose import choose
from aligned.chain import calldata, deployment
from aligned.chain.endpoints import Endpoints, Limits, Source
from aligned.chain.rpc import BlockMissing
from aligned.errors import BadConfiguration
from devnet.anvil import CHAIN_ID
from devnet.batcher import Batcher, Posted
from devnet.faults import LogLimit
from devnet.keys import keys
from devnet.network import AGGREGATOR, Network, mined, transaction
from devnet.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from aligned.bls.backend import Backend
    from aligned.model import BatchId, BlockRef, Operator

_GAS = 5_000_000


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    chosen = choose("auto")
    yield chosen
    chosen.close()


@dataclass(kw_only=True)
class Reader:
    """The reading side of a replica, pass by pass."""

    network: Network
    rpc: Endpoints
    batcher: Batcher
    batches: Batches
    registry: Registry
    watch: Watch
    saved: list[Operator]

    async def look(self) -> BlockRef:
        """Read everything there is, and return the head."""
        await self.watch.poll()
        head = self.watch.head
        assert head is not None
        await self.registry.sync(head)
        await self.watch.attach()
        return head

    def opened(self) -> set[BatchId]:
        return {state.batch_id for state in self.batches if state.is_open}

    async def answer(self, posted: Posted, backend: Backend, silent: int = 0) -> None:
        """Answer a batch with what was read, signed by all but the first ``silent`` operators."""
        state = self.batches.get(posted.batch_id)
        assert state is not None
        assert state.batch is not None
        assert state.operators is not None
        assert self.watch.head is not None
        signers = self.network.operators[silent:]
        certificate = assemble(
            state.batch,
            state.operators,
            {signer.operator_id: signer.sign(posted.batch_id) for signer in signers},
            self.registry.operator,
            backend,
        )
        indices = await self.registry.indices(
            state.batch.created, certificate.non_signers, at=self.watch.head
        )
        data = calldata.respond_to_task(certificate, indices)
        manager = self.network.deployment.service_manager
        request = transaction(AGGREGATOR, manager, data, gas=_GAS)
        await mined(self.network.anvil, [request])


@asynccontextmanager
async def reading(
    network: Network, backend: Backend, *urls: str, known: Known | None = None
) -> AsyncIterator[Reader]:
    sources = [Source(name=str(n), url=url) for n, url in enumerate(urls or (network.anvil.url,))]
    where = network.deployment
    saved: list[Operator] = []

    async def save(operators: Sequence[Operator], _progress: BlockRef) -> None:
        saved.extend(operators)

    async with Endpoints(sources, CHAIN_ID, limits=Limits(timeout_seconds=10.0)) as rpc:
        await rpc.check()
        contracts = await deployment.resolve(
            rpc,
            service_manager=where.service_manager,
            registry_coordinator=where.registry_coordinator,
            operator_state_retriever=where.operator_state_retriever,
        )
        batches = Batches()
        registry = Registry(
            rpc, contracts, backend, save, deployment_block=where.block, clock=lambda: 0.0
        )
        if known is not None:
            await registry.restore(known)
        scope = Scope(
            service_manager=where.service_manager, deployment_block=where.block, expiry=1e6
        )
        batcher = Batcher(network)
        await batcher.deposit()
        yield Reader(
            network=network,
            rpc=rpc,
            batcher=batcher,
            batches=batches,
            registry=registry,
            watch=Watch(rpc, registry, batches, scope, poll_interval=0.1, clock=lambda: 0.0),
            saved=saved,
        )


@asynccontextmanager
async def proxies(network: Network, count: int) -> AsyncIterator[list[Proxy]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Proxy(network.anvil.url)) for _ in range(count)]


@pytest.mark.parametrize("silent", [0, 1], ids=["all sign", "one does not"])
async def test_what_was_read_is_enough_to_answer(
    chain: Network, backend: Backend, silent: int
) -> None:
    async with reading(chain, backend) as reader:
        posted = await reader.batcher.post()
        await reader.look()
        assert reader.opened() == {posted.batch_id}
        await reader.answer(posted, backend, silent)
        await reader.look()
        state = reader.batches.get(posted.batch_id)
        assert state is not None
        assert state.answered == reader.watch.head


async def test_a_batch_reorged_into_another_block_is_answered_there(
    own_chain: Network, backend: Backend
) -> None:
    async with reading(own_chain, backend) as reader:
        await own_chain.anvil.mine(3)
        posted = await reader.batcher.post()
        await reader.look()
        await own_chain.anvil.reorg(1)
        await reader.look()
        assert reader.opened() == set()
        await own_chain.anvil.mine()
        again = await reader.batcher.post(posted.merkle_root)
        assert again.created_block != posted.created_block
        await reader.look()
        assert reader.opened() == {posted.batch_id}
        await reader.answer(again, backend)
        await reader.look()
        assert reader.opened() == set()


async def test_a_reorged_answer_is_open_again_and_can_be_given_again(
    own_chain: Network, backend: Backend
) -> None:
    async with reading(own_chain, backend) as reader:
        posted = await reader.batcher.post()
        await reader.look()
        await reader.answer(posted, backend)
        await reader.look()
        assert reader.opened() == set()
        await own_chain.anvil.reorg(1)
        await reader.look()
        assert reader.opened() == {posted.batch_id}
        await reader.answer(posted, backend)
        await reader.look()
        assert reader.opened() == set()


async def test_an_endpoint_that_lags_never_tells_an_older_state(
    chain: Network, backend: Backend
) -> None:
    async with proxies(chain, 1) as (lagging,):
        async with reading(chain, backend, lagging.url) as reader:
            await chain.set_stake(chain.operators[0], 900)
            posted = await reader.batcher.post()
            await reader.look()
            state = reader.batches.get(posted.batch_id)
            assert state is not None
            assert state.batch is not None
            lagging.faults.lag_blocks = 2
            fresh = Registry(
                reader.rpc,
                reader.registry._contracts,
                backend,
                _forget,
                deployment_block=0,
                clock=lambda: 0.0,
            )
            with pytest.raises(BlockMissing):
                await fresh.operators_at(state.batch.created)
        async with reading(chain, backend, lagging.url, chain.anvil.url) as reader:
            members = await reader.registry.operators_at(state.batch.created)
            assert members.total == 1200
            healthy = [status.healthy for status in reader.rpc.status()]
            assert healthy == [True, True]


async def _forget(_operators: Sequence[Operator], _progress: BlockRef) -> None:
    return


async def test_a_log_range_limit_slows_and_hides_nothing(chain: Network, backend: Backend) -> None:
    async with proxies(chain, 1) as (limited,), reading(chain, backend, limited.url) as reader:
        first = await reader.batcher.post()
        await chain.anvil.mine(40)
        second = await reader.batcher.post()
        limited.faults.log_limit = LogLimit(5)
        await reader.look()
        await reader.watch.rescan()
        assert reader.opened() == {first.batch_id, second.batch_id}
        assert len(reader.saved) == 4


async def test_an_endpoint_of_another_chain_is_never_believed(
    chain: Network, backend: Backend
) -> None:
    async with proxies(chain, 2) as (foreign, right):
        foreign.faults.chain_id = 5
        async with reading(chain, backend, foreign.url, right.url) as reader:
            posted = await reader.batcher.post()
            await reader.look()
            assert reader.opened() == {posted.batch_id}
            assert [status.healthy for status in reader.rpc.status()] == [False, True]
            assert foreign.counts["eth_getLogs"] == foreign.counts["eth_call"] == 0
        with pytest.raises(BadConfiguration, match="belongs to chain 5, not 31337"):
            async with reading(chain, backend, foreign.url):
                pass


async def test_a_cold_start_finds_every_open_batch_and_no_settled_one(
    chain: Network, backend: Backend
) -> None:
    async with reading(chain, backend) as before:
        settled = await before.batcher.post()
        await before.look()
        await before.answer(settled, backend)
        posted = [await before.batcher.post() for _ in range(40)]
        await chain.anvil.mine(100)
        posted.append(await before.batcher.post())
        await before.look()
        known = Known(tuple(before.saved), before.registry.synced)
    async with reading(chain, backend, known=known) as reader:
        await reader.watch.poll()
        await reader.watch.rescan()
        await reader.watch.attach()
        assert reader.opened() == {batch.batch_id for batch in posted}
        assert len(reader.batches) == len(posted)
        assert all(state.operators is not None for state in reader.batches)
        assert len(reader.registry) == 4


async def test_an_operator_registered_one_block_ago_is_found(
    chain: Network, backend: Backend
) -> None:
    async with reading(chain, backend) as reader:
        before = await reader.batcher.post()
        await reader.look()
        newcomer = keys(5)[4]
        await chain.register([newcomer], [100])
        assert reader.registry.operator(newcomer.operator_id) is None
        await reader.registry.look_up([newcomer.operator_id])
        found = reader.registry.operator(newcomer.operator_id)
        assert found is not None
        assert (found.operator.g1, found.operator.g2) == (newcomer.g1, newcomer.g2)
        after = await reader.batcher.post()
        await reader.look()
        totals = {}
        for posted in (before, after):
            state = reader.batches.get(posted.batch_id)
            assert state is not None
            assert state.operators is not None
            totals[posted.batch_id] = state.operators.total
        assert totals == {before.batch_id: 400, after.batch_id: 500}


async def test_an_operator_that_left_and_came_back_has_later_indices(
    chain: Network, backend: Backend
) -> None:
    leaver = chain.operators[0]
    async with reading(chain, backend) as reader:
        first = await reader.batcher.post()
        await chain.deregister(leaver)
        absent = await reader.batcher.post()
        await chain.rejoin(leaver, 30)
        back = await reader.batcher.post()
        head = await reader.look()
        stakes, bitmaps = [], []
        for posted in (first, absent, back):
            state = reader.batches.get(posted.batch_id)
            assert state is not None
            assert state.batch is not None
            assert state.operators is not None
            stakes.append((state.operators.stakes.get(leaver.operator_id), state.operators.total))
            indices = await reader.registry.indices(
                state.batch.created, [leaver.operator_id], at=head
            )
            bitmaps.append((indices.non_signer_bitmap, indices.non_signer_stake))
        assert stakes == [(100, 400), (None, 300), (30, 330)]
        assert bitmaps == [((0,), ((0,),)), ((1,), ((1,),)), ((2,), ((2,),))]
        await reader.answer(back, backend, silent=1)
        await reader.look()
        assert reader.opened() == {first.batch_id, absent.batch_id}


async def test_the_identity_follows_the_chain(chain: Network, backend: Backend) -> None:
    async with reading(chain, backend) as reader:
        where = chain.deployment
        identity = await deployment.identify(reader.rpc, where.service_manager, where.block)
        assert identity.chain_id == CHAIN_ID
        assert identity.genesis_hash == reader.rpc.genesis_hash
        assert await deployment.aggregator(reader.rpc, where.service_manager) == AGGREGATOR
