from __future__ import annotations

import pytest

from aggregator.chain.nonces import Fate
from aggregator.parking import Reason
from aligned.bls import choose
from aligned.bls.backend import Backend
from devnet.batcher import ACCOUNTS, Batcher, verified
from devnet.keys import keys
from devnet.network import Network
from tests.fakes.store import MemoryStore
from tests.integration.submitting import Options, replica, until


@pytest.fixture(scope="session")
def backend() -> Backend:
    return choose.choose("auto")


@pytest.fixture(autouse=True)
async def _calm_market(chain: Network) -> None:
    """A base fee in a round figure."""
    await chain.anvil.set_base_fee(10**9)
    await chain.anvil.mine()


@pytest.mark.parametrize("silent", [0, 1], ids=["everybody", "one-non-signer"])
async def test_a_quorum_becomes_a_verified_batch(
    chain: Network, backend: Backend, silent: int
) -> None:
    batcher = Batcher(chain)
    await batcher.deposit()
    async with replica(chain, MemoryStore(), backend) as leader:
        posted = await batcher.post()
        await leader.sign(posted, chain.operators[silent:])
        assert len(await verified(chain, posted)) == 1
        await leader.fate(posted, Fate.MINED)
    assert leader.transactor.counters.sent == 1


@pytest.mark.parametrize("silent", range(4))
async def test_a_non_signer_in_any_position_is_proven(
    chain: Network, backend: Backend, silent: int
) -> None:
    batcher = Batcher(chain)
    await batcher.deposit()
    posted = await batcher.post()
    signers = [key for at, key in enumerate(chain.operators) if at != silent]
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(posted, signers)
        assert len(await verified(chain, posted)) == 1


async def test_a_third_of_two_hundred_may_be_silent(chain: Network, backend: Backend) -> None:
    everybody = keys(200)
    await chain.register(everybody[4:], [100] * 196)
    batcher = Batcher(chain)
    await batcher.deposit()
    posted = await batcher.post(fee_limit=10**17)
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(posted, everybody[66:])
        assert len(await verified(chain, posted)) == 1


async def test_many_batches_are_answered_each_once(chain: Network, backend: Backend) -> None:
    batchers = [Batcher(chain, account) for account in ACCOUNTS[:3]]
    posted = []
    for batcher in batchers:
        await batcher.deposit()
        posted += [await batcher.post() for _ in range(4)]
    store = MemoryStore()
    async with replica(chain, store, backend) as leader:
        for one in posted:
            await leader.sign(one, chain.operators)
        for one in posted:
            assert len(await verified(chain, one)) == 1
    assert leader.transactor.counters.sent == len(posted)
    nonces = [nonce for _, nonce, _ in store.rows]
    assert sorted(nonces) == list(range(min(nonces), min(nonces) + len(posted)))


async def test_a_batch_without_a_quorum_is_left_alone(chain: Network, backend: Backend) -> None:
    batcher = Batcher(chain)
    await batcher.deposit()
    one, other = await batcher.post(), await batcher.post()
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(one, chain.operators[:2])
        await leader.sign(other, chain.operators[:3])
        assert len(await verified(chain, other)) == 1
        assert leader.milestones.quorums == [other.batch_id]
    assert not (await chain.batch(one.batch_id)).responded


async def test_observing_simulates_and_sends_nothing(chain: Network, backend: Backend) -> None:
    batcher = Batcher(chain)
    await batcher.deposit()
    good, poor = await batcher.post(), await batcher.post(fee_limit=1)
    store = MemoryStore()
    async with replica(chain, store, backend, Options(signer=None)) as leader:
        await leader.sign(good, chain.operators)
        await leader.sign(poor, chain.operators)
        await leader.parked(poor, Reason.FEE_LIMIT)
        await until(lambda: good.batch_id in leader.submitter.observed)
    assert not store.rows
    assert not (await chain.batch(good.batch_id)).responded
