"""The chain takes back a batch, an answer, or both, while the aggregator runs and while not."""

from __future__ import annotations

from pathlib import Path

import pytest

from devnet.batcher import Posted
from devnet.network import Network, hexed
from tests.integration.daemons import AT_ONCE, UNHURRIED, World, merged, mining, pooled, world

CALM = merged(AT_ONCE, UNHURRIED)


async def move(network: Network, batch: Posted, *, depth: int) -> None:
    """Replace the newest blocks, from the batch's own on; it comes back in the last of them."""
    block = await network.node.call("eth_getBlockByNumber", hex(batch.created_block), False)
    raw = await network.node.call("eth_getRawTransactionByHash", block["transactions"][0])
    await network.node.call("anvil_dropAllTransactions")
    await network.anvil.reorg(depth, [(raw, depth - 1)])
    moved = await network.batch(batch.batch_id)
    assert moved.created_block == batch.created_block + depth - 1


async def told_of_a_reorg(here: World) -> None:
    assert (await here.told("chain reorganized"))["level"] == "info"


@pytest.mark.parametrize("while_down", [False, True])
async def test_a_batch_that_moves_keeps_its_signatures(
    own_chain: Network, tmp_path: Path, while_down: bool
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        await own_chain.anvil.mine()
        await here.signed(batch, 0, 1)
        await here.holds(batch, 2, block=batch.created_block)
        if while_down:
            here.daemon.kill()
        await move(own_chain, batch, depth=2)
        if while_down:
            await here.start()
        else:
            await told_of_a_reorg(here)
        await here.holds(batch, 2, block=batch.created_block + 1)
        await here.signed(batch, 2)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_a_batch_that_vanishes_is_answered_when_it_is_back(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        await here.signed(batch, 0, 1)
        await own_chain.anvil.reorg(1)
        await here.holds(batch, 2, block=None)
        await here.signed(batch, 2)
        again = await here.batcher.post(batch.merkle_root)
        await here.answered_once(again)
        await here.keeps_its_word()


async def test_a_batch_that_moves_under_an_unmined_answer_gets_another_at_the_same_nonce(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await here.start()
        await own_chain.anvil.automine(on=False)
        batch = await here.batcher.post()
        first = await pooled(own_chain.anvil)
        await here.acknowledged(batch, 4)
        await own_chain.anvil.drop(first)
        await own_chain.anvil.mine()
        await move(own_chain, batch, depth=2)
        second = await pooled(own_chain.anvil, other_than=first)
        await own_chain.anvil.mine()
        assert await here.answered_once(batch) == second
        rows = here.loaded().outbox
        assert {row.nonce for row in rows} == {rows[0].nonce}
        await here.keeps_its_word()


@pytest.mark.parametrize("while_down", [False, True])
async def test_an_answer_that_is_undone_is_sent_again_as_it_was(
    own_chain: Network, tmp_path: Path, while_down: bool
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await here.start()
        batch = await here.batcher.post()
        answer = await here.answered_once(batch)
        await here.told("transaction mined")
        await here.acknowledged(batch, 4)
        if while_down:
            here.daemon.kill()
        await own_chain.anvil.reorg(1)
        assert not (await own_chain.batch(batch.batch_id)).responded
        if while_down:
            await here.start()
        assert await here.answered_once(batch) == answer
        if not while_down:
            await here.told("a reorg undid a transaction: it is sent again; nothing is to do")
        assert [hexed(row.hash) for row in here.loaded().outbox] == [answer]
        await here.keeps_its_word()


async def test_a_batch_and_its_answer_undone_together_end_with_one_answer(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await here.start()
        batch = await here.batcher.post()
        await here.answered_once(batch)
        await here.acknowledged(batch, 4)
        depth = await own_chain.anvil.head() - batch.created_block + 1
        await move(own_chain, batch, depth=depth)
        async with mining(own_chain.anvil):
            await here.answered_once(batch)
        await told_of_a_reorg(here)
        await here.keeps_its_word()


async def test_a_transaction_that_nodes_drop_is_sent_again_as_it_was(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await here.start()
        await own_chain.anvil.automine(on=False)
        batch = await here.batcher.post()
        answer = await pooled(own_chain.anvil)
        await own_chain.anvil.drop(answer)
        async with mining(own_chain.anvil):
            assert await here.answered_once(batch) == answer
        assert [hexed(row.hash) for row in here.loaded().outbox] == [answer]
        await here.acknowledged(batch, 4)
        await here.keeps_its_word()
