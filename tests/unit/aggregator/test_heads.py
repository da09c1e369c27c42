from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings, strategies as st

from aggregator.chain.heads import KEPT, Heads
from aligned.chain.endpoints import Endpoints, Source
from aligned.chain.rpc import BlockMissing
from aligned.errors import ChainUnavailable
from tests.fakes.ethereum import CHAIN_ID, FakeChain, FakeNet, FakeNode

if TYPE_CHECKING:
    from aligned.model import BlockRef


class World:
    def __init__(self, length: int = 10) -> None:
        self.chain = FakeChain()
        self.chain.mine_many(length)
        self.node = FakeNode(self.chain)
        net = FakeNet({"http://one": self.node})
        rpc = Endpoints([Source(name="one", url="http://one")], CHAIN_ID, transport=net)
        self.heads = Heads(rpc)

    def refs(self, first: int, last: int) -> tuple[BlockRef, ...]:
        return tuple(block.ref for block in self.chain.blocks[first : last + 1])

    def knows_the_chain(self) -> bool:
        recent = self.chain.blocks[-KEPT:]
        return all(self.heads.hash_at(block.number) == block.hash for block in recent)

    def errs_nowhere(self) -> bool:
        """Tell whether all that is remembered is in the chain, its head among it.

        After a reorg to a lower head fewer than ``KEPT`` are: what was forgotten is not read again.
        """
        known = [(block.hash, self.heads.hash_at(block.number)) for block in self.chain.blocks]
        return known[-1][1] is not None and all(ours in {None, theirs} for theirs, ours in known)


async def test_the_first_look_remembers_the_last_blocks() -> None:
    world = World(KEPT + 20)
    step = await world.heads.advance()
    assert (step.head.ref, step.gone) == (world.chain.head.ref, ())
    assert world.knows_the_chain()
    assert world.heads.hash_at(20) is None


async def test_the_next_block_needs_one_request() -> None:
    world = World()
    await world.heads.advance()
    world.chain.mine()
    world.node.asked.clear()
    step = await world.heads.advance()
    assert (step.head.ref, step.gone) == (world.chain.head.ref, ())
    assert world.node.asked == ["eth_getBlockByNumber"]


async def test_a_gap_is_filled() -> None:
    world = World()
    await world.heads.advance()
    world.chain.mine_many(90)
    assert (await world.heads.advance()).gone == ()
    assert world.knows_the_chain()


@pytest.mark.parametrize("depth", [1, 2, 9, 30, 100])
async def test_a_reorg_names_the_blocks_that_are_gone(depth: int) -> None:
    world = World(120)
    await world.heads.advance()
    gone = world.refs(121 - depth, 120)
    world.chain.reorg(depth)
    step = await world.heads.advance()
    assert (step.head.ref, step.gone, step.is_deep) == (world.chain.head.ref, gone, False)
    assert world.knows_the_chain()
    assert (await world.heads.advance()).gone == ()


async def test_a_reorg_to_a_chain_as_long_or_shorter_is_seen() -> None:
    world = World()
    await world.heads.advance()
    gone = world.refs(8, 10)
    world.chain.drop(3)
    world.chain.mine()
    assert (await world.heads.advance()).gone == gone
    assert world.heads.hash_at(9) is None


async def test_a_node_that_lags_changes_nothing() -> None:
    world = World()
    await world.heads.advance()
    world.node.lag = 4
    step = await world.heads.advance()
    assert (step.head.ref, step.gone) == (world.chain.head.ref, ())


async def test_a_node_far_behind_changes_nothing() -> None:
    world = World(300)
    await world.heads.advance()
    world.node.lag = 200
    assert (await world.heads.advance()).head.ref == world.chain.head.ref


async def test_after_a_long_time_without_the_chain_it_goes_on() -> None:
    world = World()
    await world.heads.advance()
    world.chain.mine_many(KEPT + 50)
    step = await world.heads.advance()
    assert (step.gone, step.is_deep) == ((), False)
    assert world.knows_the_chain()


async def test_a_reorg_while_the_chain_was_away_is_deep() -> None:
    world = World()
    await world.heads.advance()
    gone = world.refs(0, 10)
    world.chain.reorg(3)
    world.chain.mine_many(KEPT + 50)
    step = await world.heads.advance()
    assert (set(step.gone), step.is_deep) == (set(gone), True)


async def test_a_fork_below_what_is_remembered_is_deep() -> None:
    world = World(300)
    await world.heads.advance()
    gone = world.refs(301 - KEPT, 300)
    world.chain.reorg(200)
    step = await world.heads.advance()
    assert (set(step.gone), step.is_deep) == (set(gone), True)
    assert world.knows_the_chain()


async def test_a_chain_that_moves_while_it_is_read_changes_nothing_yet() -> None:
    world = World(20)
    await world.heads.advance()
    before = world.chain.head.ref
    world.chain.mine_many(5)

    def move(_method: str, params: list[Any]) -> None:
        if params[0] == "latest":
            world.chain.reorg(3)

    world.node.after = move
    with pytest.raises(BlockMissing, match="moved"):
        await world.heads.advance()
    assert world.heads.hash_at(20) == before.hash
    world.node.after = lambda _method, _params: None
    assert (await world.heads.advance()).gone == ()
    assert world.knows_the_chain()


async def test_an_outage_in_the_middle_of_a_leap_changes_nothing() -> None:
    world = World()
    await world.heads.advance()
    world.chain.mine_many(KEPT + 50)

    def fail(_method: str, params: list[Any]) -> None:
        if params[0] == hex(world.chain.head.number - 1):
            world.node.is_down = True

    world.node.before = fail
    with pytest.raises(ChainUnavailable):
        await world.heads.advance()
    assert world.heads.hash_at(10) == world.chain.blocks[10].hash


@settings(deadline=None, max_examples=40)
@example([(0, 13, 0), *[(0, 20, 0)] * 5, (2, 1, 0)])
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 20), st.integers(0, 3)), max_size=12))
async def test_what_is_gone_is_exactly_what_was_shown_and_is_no_longer(
    moves: list[tuple[int, int, int]],
) -> None:
    world = World(15)
    shown = {block.hash for block in world.chain.blocks}
    await world.heads.advance()
    for drop, mine, lag in moves:
        if drop:
            world.chain.drop(min(drop, world.chain.head.number))
        world.chain.mine_many(mine)
        world.node.lag = min(lag, mine - 1)
        step = await world.heads.advance()
        world.node.lag = 0
        step2 = await world.heads.advance()
        gone = {block.hash for block in (*step.gone, *step2.gone)}
        present = {block.hash for block in world.chain.blocks}
        assert gone == shown - present
        assert world.errs_nowhere()
        shown = present
