from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aggregator.chain.fees import Policy
from aggregator.chain.nonces import Fate
from aggregator.parking import Reason
from aligned.bls import choose
from aligned.bls.backend import Backend
from aligned.model import Wei
from devnet.anvil import Anvil
from devnet.batcher import ACCOUNTS, Batcher, Posted, verified
from devnet.network import AGGREGATOR, ETHER, OWNER, Network, hexed, transaction
from devnet.proxy import Proxy
from tests.fakes.store import MemoryStore
from tests.integration.submitting import Options, Replica, replica, until

GWEI = 10**9


@pytest.fixture(scope="session")
def backend() -> Backend:
    return choose.choose("auto")


@pytest.fixture(autouse=True)
async def _calm_market(chain: Network) -> None:
    """A base fee in a round figure."""
    await mine_at(chain, GWEI)


@pytest.fixture
async def batcher(chain: Network) -> Batcher:
    batcher = Batcher(chain)
    await batcher.deposit()
    return batcher


@pytest.fixture
async def proxy(chain: Network) -> AsyncIterator[Proxy]:
    async with Proxy(chain.anvil.url) as proxy:
        yield proxy


async def mine_at(chain: Network, base_fee: int, blocks: int = 1) -> None:
    """Mine blocks with this base fee; without it, empty blocks let it fall."""
    for _ in range(blocks):
        await chain.anvil.set_base_fee(base_fee)
        await chain.anvil.mine()


async def mine_until_verified(chain: Network, leader: Replica, posted: Posted) -> None:
    for _ in range(30):
        await leader.see(chain.anvil.mine())
        if await chain.answers(posted.merkle_root, posted.sender):
            return
    pytest.fail("not verified after 30 blocks")


# What a person has to mend: parked, told, tried again.


async def test_an_account_without_funds_is_named_and_funded(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await chain.anvil.set_balance(hexed(AGGREGATOR), 1000)
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.OWN_FUNDS)
        assert hexed(AGGREGATOR) in leader.submitter.parked[0].detail
        await chain.anvil.set_balance(hexed(AGGREGATOR), ETHER)
        leader.skip(60)
        assert len(await verified(chain, posted)) == 1


async def test_a_batcher_that_withdrew_is_waited_for(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await batcher.withdraw(ETHER)
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.BATCHER_FUNDS)
        await batcher.deposit()
        leader.skip(60)
        assert len(await verified(chain, posted)) == 1


async def test_a_deposit_is_not_spent_twice(chain: Network, backend: Backend) -> None:
    batcher = Batcher(chain)
    await batcher.deposit(ETHER // 10)
    posted = [await batcher.post(fee_limit=ETHER // 12) for _ in range(2)]
    await chain.anvil.automine(on=False)
    async with replica(chain, MemoryStore(), backend, Options(policy=Policy())) as leader:
        # the first answer may cost 200 gwei x 300,000 gas: too much beside the second one's limit
        await mine_at(chain, 100 * GWEI)
        for one in posted:
            await leader.sign(one, chain.operators)
        await until(lambda: any(p.reason is Reason.BUSY for p in leader.submitter.parked))
        await until(lambda: leader.transactor.counters.sent == 1)


async def test_a_batch_below_the_market_waits_for_it(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post(fee_limit=400_000 * 10 * GWEI)
    await mine_at(chain, 100 * GWEI)
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.FEE_LIMIT)
        await mine_at(chain, GWEI)
        leader.skip(60)
        assert len(await verified(chain, posted)) == 1


async def test_a_contract_that_caps_fees_is_answered_above_the_limit_if_we_allow_it(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post(fee_limit=1000)
    options = Options(policy=Policy(max_fee=Wei(500 * GWEI)))
    async with replica(chain, MemoryStore(), backend, options) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.FEE_LIMIT)
        await chain.cap_fees(on=True)
        leader.skip(60)
        assert len(await verified(chain, posted)) == 1


async def test_a_paused_contract_is_waited_for(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await chain.pause(answers=True)
    async with replica(chain, MemoryStore(), backend) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.PAUSED)
        await chain.pause()
        leader.skip(300)
        assert len(await verified(chain, posted)) == 1


async def test_with_the_wrong_account_nothing_is_sent(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await chain.set_aggregator(ACCOUNTS[3])
    store = MemoryStore()
    async with replica(chain, store, backend) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.WRONG_AGGREGATOR)
        assert not store.rows
        await chain.set_aggregator(AGGREGATOR)
        assert len(await verified(chain, posted)) == 1


# Somebody else has the key.


async def _foreign(chain: Network) -> None:
    request = transaction(AGGREGATOR, OWNER, b"", gas=21_000)
    await chain.node.call("eth_sendTransaction", request)


async def test_a_foreign_transaction_with_our_key_stops_submission(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    store = MemoryStore()
    async with replica(chain, store, backend) as leader:
        await until(lambda: leader.transactor.room() > 0)
        await _foreign(chain)
        await until(lambda: len(leader.transactor.slots) == 1)
        for _ in range(4):
            await leader.see(chain.anvil.mine())
        posted = await batcher.post()
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.FOREIGN_NONCE)
        assert not store.rows
    # the next term is the person's consent
    async with replica(chain, store, backend) as leader:
        await leader.sign(posted, chain.operators)
        assert len(await verified(chain, posted)) == 1


async def test_nothing_is_signed_while_a_foreign_transaction_is_pending(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await chain.anvil.automine(on=False)
    await _foreign(chain)
    store = MemoryStore()
    async with replica(chain, store, backend) as leader:
        await leader.sign(posted, chain.operators)
        await leader.parked(posted, Reason.FOREIGN_NONCE)
        assert not store.rows
        await chain.anvil.automine(on=True)
        await chain.anvil.mine()
        assert len(await verified(chain, posted)) == 1


# Nodes.


async def test_a_dropped_transaction_is_sent_again(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await chain.anvil.automine(on=False)
    store = MemoryStore()
    async with replica(chain, store, backend) as leader:
        await leader.sign(posted, chain.operators)
        slot = await leader.fate(posted, Fate.OPEN)
        await until(lambda: slot.is_sent)
        await chain.anvil.drop(hexed(slot.last.hash))
        await mine_until_verified(chain, leader, posted)
    assert len(store.rows) == 1


async def test_a_node_that_swallows_sends_does_not_matter_beside_another(
    chain: Network, backend: Backend, batcher: Batcher, proxy: Proxy
) -> None:
    proxy.faults.swallow_sends = True
    posted = await batcher.post()
    options = Options(urls=(proxy.url, chain.anvil.url))
    async with replica(chain, MemoryStore(), backend, options) as leader:
        await leader.sign(posted, chain.operators)
        assert len(await verified(chain, posted)) == 1


async def test_a_lagging_endpoint_is_not_taken_for_a_thief(
    chain: Network, backend: Backend, batcher: Batcher, proxy: Proxy
) -> None:
    posted = [await batcher.post() for _ in range(2)]
    options = Options(urls=(proxy.url, chain.anvil.url))
    async with replica(chain, MemoryStore(), backend, options) as leader:
        await leader.sign(posted[0], chain.operators)
        await verified(chain, posted[0])
        proxy.faults.lag_blocks = 2
        await leader.fate(posted[0], Fate.MINED)
        await chain.anvil.mine(5)
        await leader.sign(posted[1], chain.operators)
        assert len(await verified(chain, posted[1])) == 1
        assert leader.transactor.blocked is None


async def test_an_unmined_transaction_is_raised_as_geth_demands(
    chain: Network, backend: Backend, batcher: Batcher, proxy: Proxy
) -> None:
    posted = await batcher.post()
    await chain.anvil.automine(on=False)
    proxy.faults.strict_replacement = True
    store = MemoryStore()
    options = Options(urls=(proxy.url,), resubmit_after=1000.0)
    async with replica(chain, store, backend, options) as leader:
        await leader.sign(posted, chain.operators)
        slot = await leader.fate(posted, Fate.OPEN)
        await until(lambda: slot.is_sent)
        await leader.see(mine_empty(chain))
        proxy.faults.swallow_sends = True
        for attempts in (2, 3):
            leader.skip(1001)
            await leader.see(mine_empty(chain))
            assert (len(slot.rows), slot.is_sent) == (attempts, True)
            proxy.faults.swallow_sends = False
        pool = await chain.anvil.pool()
        assert [tx["hash"] for tx in pool] == [hexed(slot.last.hash)]
        await mine_until_verified(chain, leader, posted)
    assert len(await chain.answers(posted.merkle_root, posted.sender)) == 1


async def mine_empty(chain: Network) -> None:
    """Mine a block that leaves the pool alone."""
    pool = await chain.anvil.pool()
    raws = [await chain.node.call("eth_getRawTransactionByHash", tx["hash"]) for tx in pool]
    await chain.node.call("anvil_dropAllTransactions")
    await chain.anvil.mine()
    for raw in raws:
        await chain.node.call("eth_sendRawTransaction", raw)


async def test_a_stuck_nonce_goes_to_who_can_pay_and_its_batch_waits(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    # automine is off: the cheap answer is never mined before the market leaves it behind
    cheap = await batcher.post(fee_limit=400_000 * 8 * GWEI)
    rich = await batcher.post()
    await chain.anvil.automine(on=False)
    await mine_at(chain, GWEI)
    store = MemoryStore()
    async with replica(chain, store, backend, Options(max_in_flight=1)) as leader:
        await leader.sign(cheap, chain.operators)
        slot = await leader.fate(cheap, Fate.OPEN)
        await until(lambda: slot.is_sent)
        await leader.sign(rich, chain.operators)
        for _ in range(60):
            await leader.see(mine_at(chain, 20 * GWEI))
            if await chain.answers(rich.merkle_root, rich.sender):
                break
        assert len(await verified(chain, rich)) == 1
        assert leader.reason(cheap) is Reason.FEE_LIMIT
        assert {row.nonce for row in store.rows.values()} == {slot.nonce}
        for _ in range(60):
            leader.skip(60)
            await leader.see(mine_at(chain, GWEI))
            if await chain.answers(cheap.merkle_root, cheap.sender):
                break
        assert len(await verified(chain, cheap)) == 1


async def test_a_mined_revert_is_no_answer(
    chain: Network, backend: Backend, batcher: Batcher, proxy: Proxy
) -> None:
    posted = await batcher.post()
    proxy.faults.swallow_sends = True
    async with replica(chain, MemoryStore(), backend, Options(urls=(proxy.url,))) as leader:
        await leader.sign(posted, chain.operators)
        await until(lambda: bool(proxy.swallowed))
        await chain.pause(answers=True)
        await chain.node.call("eth_sendRawTransaction", proxy.swallowed[0])
        await leader.fate(posted, Fate.REVERTED)
        await leader.parked(posted, Reason.PAUSED)
        assert leader.transactor.counters.reverted == 1
        proxy.faults.swallow_sends = False
        await chain.pause()
        leader.skip(300)
        assert len(await verified(chain, posted)) == 1


# The process.


async def test_what_was_recorded_and_not_broadcast_is_broadcast_by_the_next(
    chain: Network, backend: Backend, batcher: Batcher, proxy: Proxy
) -> None:
    posted = await batcher.post()
    proxy.faults.swallow_sends = True
    store = MemoryStore()
    async with replica(chain, store, backend, Options(urls=(proxy.url,))) as leader:
        await leader.sign(posted, chain.operators)
        await until(lambda: bool(store.rows))
    async with replica(chain, store, backend):
        (answer,) = await verified(chain, posted)
    assert [hexed(row.hash) for row in store.rows.values()] == [answer]


async def test_what_was_broadcast_and_not_mined_is_found_by_the_next(
    chain: Network, backend: Backend, batcher: Batcher
) -> None:
    posted = await batcher.post()
    await chain.anvil.automine(on=False)
    store = MemoryStore()
    async with replica(chain, store, backend) as leader:
        await leader.sign(posted, chain.operators)
        await until(lambda: leader.transactor.counters.sent == 1)
    async with replica(chain, store, backend) as leader:
        await leader.sign(posted, chain.operators)
        await chain.anvil.mine()
        await leader.fate(posted, Fate.MINED)
    assert len(store.rows) == 1
    assert len(await chain.answers(posted.merkle_root, posted.sender)) == 1


# Reorgs, and what comes after them.


async def test_an_answer_that_a_reorg_undid_is_sent_again(
    own_chain: Network, backend: Backend
) -> None:
    batcher = Batcher(own_chain)
    await batcher.deposit()
    posted = await batcher.post()
    store = MemoryStore()
    async with replica(own_chain, store, backend) as leader:
        await leader.sign(posted, own_chain.operators)
        (first,) = await verified(own_chain, posted)
        await leader.fate(posted, Fate.MINED)
        await own_chain.anvil.reorg(1)
        assert await verified(own_chain, posted) == [first]
        await leader.fate(posted, Fate.MINED)
    assert len(store.rows) == 1


async def test_a_batch_that_a_reorg_moved_is_answered_for_its_new_block(
    own_chain: Network, backend: Backend
) -> None:
    batcher = Batcher(own_chain)
    await batcher.deposit()
    posted = await batcher.post()
    await own_chain.anvil.automine(on=False)
    store = MemoryStore()
    async with replica(own_chain, store, backend) as leader:
        await leader.sign(posted, own_chain.operators)
        slot = await leader.fate(posted, Fate.OPEN)
        await until(lambda: slot.is_sent)
        head = await own_chain.node.call("eth_getBlockByNumber", "latest", False)
        raw = await own_chain.node.call("eth_getRawTransactionByHash", head["transactions"][0])
        await own_chain.node.call("anvil_dropAllTransactions")
        await own_chain.anvil.mine()
        await own_chain.anvil.reorg(2, [(raw, 1)])
        await until(lambda: slot.last.created is not None and len(slot.rows) > 1)
        assert slot.last.created is not None
        assert slot.last.created.number == posted.created_block + 1
        await mine_until_verified(own_chain, leader, posted)
    assert {row.nonce for row in store.rows.values()} == {slot.nonce}


async def test_final_transactions_are_forgotten(backend: Backend) -> None:
    async with Anvil(epoch_slots=2) as anvil:
        network = await Network.deploy(anvil)
        batcher = Batcher(network)
        await batcher.deposit()
        posted = await batcher.post()
        store = MemoryStore()
        async with replica(network, store, backend) as leader:
            await leader.sign(posted, network.operators)
            await verified(network, posted)
            await leader.fate(posted, Fate.MINED)
            assert len(store.rows) == 1
            await mine_until_forgotten(network, leader, store)


async def mine_until_forgotten(chain: Network, leader: Replica, store: MemoryStore) -> None:
    for _ in range(12):
        await leader.see(chain.anvil.mine())
    await until(lambda: not store.rows and not leader.transactor.slots)
