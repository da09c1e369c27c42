from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aggregator.batches import Batches
from aggregator.chain.window import REREAD, Scope
from aggregator.sweep import ORPHAN_BLOCKS, settled
from aggregator.watch import Watch
from aligned.chain.endpoints import Endpoints, Source
from aligned.chain.rpc import BlockMissing
from aligned.errors import ChainUnavailable
from aligned.model import OperatorSet, Stake
from tests.fakes.builders import a_batch_id, batch, entry, operator_id
from tests.fakes.ethereum import (
    CHAIN_ID,
    CONTRACTS,
    SECONDS,
    FakeChain,
    FakeNet,
    FakeNode,
    batch_verified,
    new_batch,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aggregator.batches import BatchState
    from aligned.model import Batch, BlockRef


class FakeRegistry:
    """Everybody's stake is 100; remembers what was asked."""

    def __init__(self) -> None:
        self.synced: BlockRef | None = None
        self.asked: list[BlockRef] = []
        self.is_away = False
        self.at_once = 0
        self.most_at_once = 0

    def operator(self, operator_id: object) -> None:
        return None

    async def sync(self, head: BlockRef) -> None:
        if self.is_away:
            raise ChainUnavailable("away")
        self.synced = head

    async def operators_at(self, block: BlockRef) -> OperatorSet:
        self.asked.append(block)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.is_away:
            raise ChainUnavailable("away")
        return OperatorSet(block=block, stakes={operator_id(1): Stake(100)}, total=Stake(100))


class PulsingNet(FakeNet):
    """Sets ``pulse`` at each exchange."""

    def __init__(self, nodes: dict[str, FakeNode], pulse: asyncio.Event) -> None:
        super().__init__(nodes)
        self._pulse = pulse
        self._gates: dict[bytes, asyncio.Event] = {}
        self.held = asyncio.Event()

    def hold(self, method: str) -> asyncio.Event:
        """Keep the answers to ``method`` until the returned event is set."""
        gate = self._gates[method.encode()] = asyncio.Event()
        return gate

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        self._pulse.set()
        answer = await super().post(url, body)
        for method, gate in self._gates.items():
            if method in body:
                self.held.set()
                await gate.wait()
        return answer


class World:
    """A chain that is watched pass by pass."""

    def __init__(self, *, length: int = 10, age: float = 0.0, **scope: Any) -> None:
        self.chain = FakeChain(age=age)
        self.chain.mine_many(length)
        self.node = FakeNode(self.chain)
        self.pulse = asyncio.Event()
        self.net = PulsingNet({"http://one": self.node}, self.pulse)
        self.batches = Batches()
        self.batches.on_change(lambda _: self.pulse.set())
        self.registry = FakeRegistry()
        self.now = 0.0
        self.watch = self.open(**scope)

    def open(self, **scope: Any) -> Watch:
        rpc = Endpoints([Source(name="one", url="http://one")], CHAIN_ID, transport=self.net)
        defaults = {"deployment_block": 0, "expiry": 5000.0 * SECONDS}
        return Watch(
            rpc,
            self.registry,
            self.batches,
            Scope(service_manager=CONTRACTS.service_manager, **(defaults | scope)),
            poll_interval=0.001,
            clock=lambda: self.now,
        )

    async def look(self) -> None:
        await self.watch.poll()
        await self.watch.attach()

    def state(self, number: int = 1) -> BatchState:
        state = self.batches.get(a_batch_id(number))
        assert state is not None
        return state

    def opened(self) -> set[int]:
        return {
            int.from_bytes(state.batch.merkle_root, "big")
            for state in self.batches
            if state.batch is not None and state.answered is None
        }


@pytest.fixture
def world() -> World:
    return World()


# Events.


async def test_a_batch_is_opened_with_its_operators(world: World) -> None:
    block = world.chain.mine(new_batch(1, fee_limit=7))
    await world.look()
    state = world.state()
    assert state.batch is not None
    assert (state.batch.created, state.batch.fee_limit) == (block, 7)
    assert state.operators is not None
    assert state.operators.block == block


async def test_every_batch_counts_not_only_the_newest(world: World) -> None:
    world.chain.mine(new_batch(1), new_batch(2))
    world.chain.mine(new_batch(3))
    world.chain.mine(batch_verified(3))
    await world.look()
    assert world.opened() == {1, 2}
    assert world.state(3).answered == world.chain.head.ref


async def test_an_answer_is_taken_note_of(world: World) -> None:
    world.chain.mine(new_batch(1))
    await world.look()
    block = world.chain.mine(batch_verified(1))
    await world.look()
    assert world.state().answered == block


async def test_signatures_that_came_before_their_batch_wait_for_it(world: World) -> None:
    world.batches.keep([entry(1, by=1)], height=10)
    world.chain.mine(new_batch(1))
    await world.look()
    assert world.state().signatures == {operator_id(1): entry(1, by=1).signature}
    assert world.opened() == {1}


async def test_the_last_blocks_are_read_again(world: World) -> None:
    world.chain.mine_many(REREAD)
    hidden = world.chain.blocks[-1]
    await world.look()
    world.chain.blocks[-1] = type(hidden)(
        hidden.number, hidden.hash, hidden.parent, hidden.timestamp, (new_batch(1),)
    )
    world.chain.mine()
    await world.look()
    assert world.opened() == {1}


async def test_no_events_from_an_endpoint_that_lags_are_no_look(world: World) -> None:
    await world.look()
    world.chain.mine(new_batch(1))

    def fall_back(method: str, _params: list[Any]) -> None:
        world.node.lag = 0 if method == "eth_getBlockByNumber" and not seen else 1
        seen.append(method)

    seen: list[str] = []
    world.node.before = fall_back
    with pytest.raises(BlockMissing):
        await world.watch.poll()
    world.node.before = lambda _method, _params: None
    world.node.lag = 0
    await world.look()
    assert world.opened() == {1}


async def test_a_gap_since_the_last_look_is_read(world: World) -> None:
    await world.look()
    world.chain.mine(new_batch(1))
    world.chain.mine_many(500)
    await world.look()
    assert world.opened() == {1}


async def test_an_unchanged_head_costs_one_request(world: World) -> None:
    await world.look()
    world.node.asked.clear()
    await world.watch.poll()
    assert world.node.asked == ["eth_getBlockByNumber"]


async def test_a_finalized_answer_is_not_brought_back(world: World) -> None:
    world.chain.finality = 0
    world.chain.mine(new_batch(1))
    world.chain.mine(batch_verified(1))
    await world.look()
    assert len(world.batches) == 0


async def test_a_batch_that_was_finished_here_is_not_opened_again(world: World) -> None:
    world.chain.mine(new_batch(1))
    world.chain.mine(batch_verified(1))
    await world.look()
    world.batches.finish([a_batch_id(1)])
    world.chain.mine()
    await world.look()
    assert len(world.batches) == 0


async def test_a_finalized_answer_is_told_to_a_batch_held_here(world: World) -> None:
    world.batches.keep([entry(1)], height=1)
    world.chain.finality = 0
    world.chain.mine(new_batch(1))
    answer = world.chain.mine(batch_verified(1))
    await world.look()
    assert world.state().answered == answer


async def test_a_scan_tells_a_finalized_answer_to_a_batch_held_here(world: World) -> None:
    world.batches.keep([entry(1)], height=1)
    world.chain.mine(new_batch(1))
    answer = world.chain.mine(batch_verified(1))
    world.chain.mine_many(200)
    await world.watch.poll()
    await world.watch.rescan()
    assert world.state().answered == answer


# Reorgs.


async def test_a_reorged_batch_is_taken_back_and_its_signatures_stay(world: World) -> None:
    world.chain.mine(new_batch(1))
    await world.look()
    world.batches.keep([entry(1)], height=11)
    world.chain.reorg(1)
    await world.look()
    state = world.state()
    assert (state.batch, state.operators) == (None, None)
    assert state.signatures


async def test_a_batch_that_moves_gets_the_operators_of_its_new_block(world: World) -> None:
    world.chain.mine(new_batch(1))
    await world.look()
    world.chain.drop(1)
    world.chain.mine()
    block = world.chain.mine(new_batch(1))
    await world.look()
    state = world.state()
    assert state.batch is not None
    assert state.operators is not None
    assert state.batch.created == state.operators.block == block


async def test_a_reorged_answer_is_open_again(world: World) -> None:
    world.chain.mine(new_batch(1))
    world.chain.mine(batch_verified(1))
    await world.look()
    assert world.opened() == set()
    world.chain.reorg(1)
    await world.look()
    assert world.opened() == {1}
    assert world.state().operators is not None


async def test_an_endpoint_that_lags_takes_nothing_back(world: World) -> None:
    world.chain.mine(new_batch(1))
    await world.look()
    world.node.lag = 3
    await world.look()
    assert world.opened() == {1}
    assert world.watch.head == world.chain.head.ref


async def test_events_of_another_branch_are_not_taken(world: World) -> None:
    world.chain.mine(new_batch(1))

    def switch(method: str, _params: list[Any]) -> None:
        if method == "eth_getLogs":
            world.chain.drop(1)
            world.chain.mine(new_batch(2))

    world.node.before = switch
    with pytest.raises(BlockMissing, match="another branch"):
        await world.watch.poll()
    assert len(world.batches) == 0
    world.node.before = lambda _method, _params: None
    await world.look()
    assert world.opened() == {2}


async def test_an_answer_of_another_branch_is_not_taken(world: World) -> None:
    world.chain.mine(new_batch(1))
    world.chain.mine()

    def switch(method: str, _params: list[Any]) -> None:
        if method == "eth_getLogs":
            world.chain.drop(1)
            world.chain.mine(batch_verified(1))

    world.node.before = switch
    with pytest.raises(BlockMissing, match="another branch"):
        await world.watch.poll()
    assert world.opened() == {1}


async def test_a_reorg_further_back_than_what_is_read_again_hides_nothing() -> None:
    world = World(length=300)
    await world.look()
    world.chain.drop(100)
    world.chain.mine(new_batch(1))
    world.chain.mine_many(110)
    await world.look()
    assert world.opened() == {1}


async def test_a_reorg_is_undone_even_when_reading_events_fails(world: World) -> None:
    world.chain.mine(new_batch(1))
    await world.look()
    world.chain.reorg(1)
    world.node.errors["eth_getLogs"] = (-32000, "no logs today")
    with pytest.raises(ChainUnavailable):
        await world.watch.poll()
    assert world.opened() == set()
    world.node.errors.clear()
    world.chain.mine(new_batch(1))
    await world.look()
    assert world.opened() == {1}


async def test_a_reorg_deeper_than_memory_has_everything_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(length=20)
    world.chain.mine(new_batch(1))
    world.chain.mine_many(300)
    await world.look()
    await world.watch.rescan()
    assert world.opened() == {1}
    world.chain.reorg(301)
    await world.look()
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    await world.watch.rescan()
    assert world.opened() == set()


# The whole window.


async def test_a_cold_start_finds_every_open_batch(world: World) -> None:
    for number in range(300):
        world.chain.mine(new_batch(number))
        if number % 3:
            world.chain.mine(batch_verified(number))
    world.chain.mine_many(100)
    await world.look()
    await world.watch.rescan()
    await world.watch.attach()
    assert world.opened() == {number for number in range(300) if number % 3 == 0}
    assert all(state.operators is not None for state in world.batches)
    assert len(world.batches) == 100  # what is settled is not even opened
    assert world.registry.most_at_once <= 8


@pytest.mark.parametrize("limit", [None, 7], ids=["no limit", "7 blocks at once"])
async def test_the_window_begins_at_the_expiry(limit: int | None) -> None:
    world = World(length=0, expiry=100.0 * SECONDS)
    world.node.log_range = limit
    world.chain.mine(new_batch(1))
    world.chain.mine_many(50)
    world.chain.mine(new_batch(2))
    world.chain.mine_many(70)
    await world.watch.poll()
    await world.watch.rescan()
    assert world.opened() == {2}


async def test_the_window_never_begins_before_the_deployment() -> None:
    world = World(length=0, deployment_block=30)
    world.chain.mine(new_batch(1))
    world.chain.mine_many(40)
    await world.watch.poll()
    await world.watch.rescan()
    assert world.opened() == set()


async def test_a_later_run_begins_where_everything_was_settled() -> None:
    world = World(length=0)
    world.chain.mine(new_batch(1))
    world.chain.mine(batch_verified(1))
    world.chain.mine_many(200)
    world.chain.mine(new_batch(2))
    world.chain.mine_many(200)
    await world.watch.poll()
    await world.watch.rescan()
    await world.registry.sync(world.chain.blocks[-1].ref)
    start = world.watch.settled
    assert start == world.chain.blocks[203].ref
    world.batches = Batches()
    world.watch = world.open(start=start)
    world.node.log_range = 250
    await world.watch.poll()
    world.node.asked.clear()
    await world.watch.rescan()
    assert world.opened() == {2}
    # the bite of 2,000 is halved to what is left; the whole window would take more
    assert world.node.asked.count("eth_getLogs") == 1


@pytest.mark.parametrize("unread", ["batches", "registrations"])
async def test_nothing_is_settled_before_all_was_read_once(unread: str) -> None:
    world = World()
    await world.watch.poll()
    if unread == "batches":
        await world.registry.sync(world.chain.blocks[-1].ref)
    else:
        await world.watch.rescan()
    assert world.watch.settled is None


async def test_only_the_first_scan_begins_later() -> None:
    world = World(length=200)
    world.watch = world.open(start=world.chain.blocks[100].ref)
    await world.watch.poll()
    firsts = []

    def note(method: str, params: list[Any]) -> None:
        if method == "eth_getLogs":
            firsts.append(int(params[0]["fromBlock"], 16))

    world.node.before = note
    await world.watch.rescan()
    await world.watch.rescan()
    assert firsts == [100, 0]


async def test_a_start_in_another_branch_is_ignored() -> None:
    world = World(length=0)
    world.chain.mine(new_batch(1))
    world.chain.mine_many(200)
    start = world.chain.blocks[150].ref
    world.chain.reorg(60)
    world.watch = world.open(start=start)
    await world.watch.poll()
    await world.watch.rescan()
    assert world.opened() == {1}


async def test_a_batch_whose_events_are_hidden_is_closed_by_storage(world: World) -> None:
    created = world.chain.mine(new_batch(1))
    await world.look()
    answer = world.chain.mine(batch_verified(1))
    hidden = {answer.number}
    _hide(world, lambda number: number in hidden)
    await world.look()
    assert world.opened() == {1}
    await world.watch.rescan()
    assert world.state().answered == world.chain.head.ref
    assert world.state().batch is not None
    assert created.number < answer.number


async def test_a_scan_that_outlasts_the_states_of_a_node_asks_about_a_newer_one() -> None:
    world = World(length=300)
    await world.watch.poll()
    world.batches.keep([entry(1)], height=1)
    world.node.keeps_states = 8
    gate = world.net.hold("eth_getLogs")
    async with asyncio.TaskGroup() as group:
        scan = group.create_task(_failure(world.watch.rescan()))
        await world.net.held.wait()
        world.chain.mine_many(20)
        world.net.held.clear()
        look = group.create_task(world.watch.poll())
        await world.net.held.wait()
        gate.set()
    assert (scan.result(), look.result()) == (None, None)
    assert world.watch.is_complete


async def test_storage_says_nothing_of_batches_newer_than_its_state(world: World) -> None:
    older = world.chain.head.ref
    world.chain.mine(new_batch(1))
    await world.look()
    await world.watch._window.ask(list(world.batches), older)
    assert world.opened() == {1}


async def test_storage_of_a_branch_that_was_left_meanwhile_is_not_believed(world: World) -> None:
    await world.watch.poll()
    old = world.chain.head.ref
    world.batches.open(_batch_at(world.chain.blocks[9].ref))
    release = world.net.hold("eth_call")
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_failure(world.watch._window.ask(list(world.batches), old)))
        await world.net.held.wait()
        world.chain.reorg(1)
        await world.watch.poll()
        release.set()
    assert isinstance(asking.result(), BlockMissing)
    assert world.opened() == {1}


async def test_a_batch_that_storage_does_not_know_is_taken_back(world: World) -> None:
    world.batches.keep([entry(1)], height=1)
    await world.look()
    foreign = FakeChain(genesis=b"other")
    ghost = foreign.mine_many(5)
    world.batches.open(_batch_at(ghost))
    await world.watch.rescan()
    assert world.state().batch is None


# Orphans.


async def test_an_orphan_that_was_answered_is_known_after_a_few_blocks() -> None:
    world = World(length=0, expiry=50.0 * SECONDS)
    world.chain.mine(new_batch(1))
    world.chain.mine(batch_verified(1))
    world.chain.mine_many(200)
    world.batches.keep([entry(1)], height=195)
    await world.look()
    assert world.state().answered == world.chain.head.ref


async def test_an_orphan_that_is_open_on_chain_is_opened_from_its_event(world: World) -> None:
    world.chain.mine(new_batch(1))
    world.chain.mine_many(200)
    world.batches.keep([entry(1)], height=195)
    await world.look()
    assert world.opened() == {1}


async def test_operators_that_cannot_be_read_hide_no_orphan(world: World) -> None:
    world.chain.mine(new_batch(1))
    world.chain.mine_many(200)
    world.chain.mine(new_batch(2))
    world.batches.keep([entry(1)], height=195)
    world.registry.is_away = True
    await world.watch.poll()
    with pytest.raises(ChainUnavailable):
        await world.watch.attach()
    assert world.opened() == {1, 2}
    assert world.node.asked.count("eth_call") == 1
    with pytest.raises(ChainUnavailable):
        await world.watch.attach()
    assert world.node.asked.count("eth_call") == 1  # and it is not asked about again
    # the orphan's own set as well, now that it is known to be a batch
    assert [block.number for block in world.registry.asked] == [212, 11, 212]


async def test_an_orphan_older_than_the_window_stays_one() -> None:
    world = World(length=0, expiry=50.0 * SECONDS)
    world.chain.mine(new_batch(1))
    world.chain.mine_many(200)
    world.batches.keep([entry(1)], height=195)
    await world.watch.poll()
    await world.watch.rescan()
    assert world.state().batch is None


async def test_an_orphan_that_was_forgotten_is_asked_again(world: World) -> None:
    for _ in range(2):
        world.batches.keep([entry(1)], height=1)
        await world.look()
        world.batches.forget([a_batch_id(1)])
        world.chain.mine()
        await world.look()
    assert world.node.asked.count("eth_call") == 2


async def test_invented_batches_are_asked_once(world: World) -> None:
    world.batches.keep([entry(number) for number in range(150)], height=1)
    await world.look()
    assert world.node.asked.count("eth_call") == 100
    for _ in range(3):
        world.chain.mine()
        await world.look()
    assert world.node.asked.count("eth_call") == 150


async def test_an_early_signature_asks_nothing(world: World) -> None:
    await world.look()
    world.batches.keep([entry(1)], height=10)
    world.chain.mine()
    await world.look()
    assert "eth_call" not in world.node.asked


# What is shown.


async def test_the_tip_is_published(world: World) -> None:
    assert (world.watch.head, world.watch.height, world.watch.tip) == (None, 0, None)
    world.now = 5.0
    await world.watch.poll()
    tip = world.watch.tip
    assert tip is not None
    assert (world.watch.head, world.watch.height) == (world.chain.head.ref, 10)
    assert (tip.header.timestamp, tip.header.base_fee) == (world.chain.head.timestamp, 10**9)
    world.now = 9.0
    await world.watch.poll()
    assert (tip.seen_at, world.watch.looked_at) == (5.0, 9.0)


@pytest.mark.parametrize("finality", [64, None], ids=["named", "64 under the head"])
async def test_the_finalized_block_is_known(finality: int | None) -> None:
    world = World(length=200)
    world.chain.finality = finality
    await world.watch.poll()
    assert world.watch.finalized == world.chain.blocks[136].ref


async def test_somebody_waits_for_another_head(world: World) -> None:
    await world.watch.poll()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(world.watch.next_head())
        await asyncio.sleep(0)
        await world.watch.poll()
        assert not waiting.done()
        world.chain.mine()
        await world.watch.poll()
    assert waiting.result() == world.chain.head.ref


async def test_progress_is_told_once_the_window_was_read() -> None:
    world = World(length=300, expiry=100.0 * SECONDS)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(world.watch.next_progress())
        await asyncio.sleep(0)
        await world.watch.poll()
        await asyncio.sleep(0)
        assert not waiting.done()
        await world.watch.rescan()
        world.chain.mine()
        await world.watch.poll()
    progress = waiting.result()
    # told with the head, before its own events and finalized block are known: never too much
    assert (progress.height, progress.finalized, progress.oldest) == (300, 236, 200)


async def test_no_progress_is_told_before_storage_was_asked() -> None:
    """Events may be left out without a word; the contract's word decides of what a journal held."""
    world = World(length=300)
    world.batches.keep([entry(1)], height=1)
    await world.watch.poll()
    gate = world.net.hold("eth_call")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.watch.rescan())
        await world.net.held.wait()
        assert (world.watch.progress, world.watch.settled) == (None, None)
        gate.set()
    assert world.watch.progress is not None


async def test_nothing_ages_while_the_chain_is_far_behind_the_time() -> None:
    world = World(length=300, age=(300.0 + 2 * ORPHAN_BLOCKS) * SECONDS, expiry=100.0 * SECONDS)
    await world.watch.poll()
    await world.watch.rescan()
    world.batches.keep([entry(1)], height=world.watch.height)
    for _ in range(2):  # a node that catches up
        progress = world.watch.progress
        assert progress is not None
        assert (world.watch.height, progress.height) == (0, 0)
        world.batches.date_orphans(progress.height)
        assert settled(world.batches, progress).orphans == ()
        world.chain.mine_many(ORPHAN_BLOCKS)
        await world.watch.poll()
    progress = world.watch.progress
    assert progress is not None
    assert progress.height == world.watch.height == world.chain.head.number
    world.batches.date_orphans(progress.height)
    assert settled(world.batches, progress).orphans == ()


async def test_no_progress_is_told_of_blocks_whose_events_were_not_read() -> None:
    """After hours without the chain, batches that came meanwhile are not taken for invented."""
    world = World(length=300)
    await world.watch.poll()
    await world.watch.rescan()
    world.batches.keep([entry(1)], height=world.watch.height)  # the chain is away from now on
    world.chain.mine(new_batch(1))
    world.chain.mine_many(ORPHAN_BLOCKS + 1)
    gate = world.net.hold("eth_getLogs")
    world.net.held.clear()
    async with asyncio.TaskGroup() as group:
        progress = group.create_task(world.watch.next_progress())
        group.create_task(world.watch.poll())
        await world.net.held.wait()
        assert settled(world.batches, await progress).orphans == ()
        gate.set()
    assert world.opened() == {1}
    assert world.watch.progress is not None
    assert world.watch.progress.height == world.watch.height
    assert settled(world.batches, world.watch.progress).orphans == ()


# Loops.


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.watch.run())
        try:
            yield
        finally:
            task.cancel()


async def until(world: World, condition: Callable[[], bool]) -> None:
    """Wait for something that comes with an exchange or a change, of which there is no end."""
    async with asyncio.timeout(20):
        while not condition():
            world.pulse.clear()
            await world.pulse.wait()


async def test_running_it_does_all_of_it(world: World) -> None:
    world.chain.mine(new_batch(1))
    world.chain.mine_many(100)
    async with running(world):
        await until(world, lambda: world.watch.is_complete)
        world.chain.mine(new_batch(2))
        await until(
            world, lambda: world.opened() == {1, 2} and world.state(2).operators is not None
        )
        await until(world, lambda: world.registry.synced == world.chain.head.ref)


async def test_it_survives_an_outage_and_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.chain.outage._FIRST_BACK_OFF", 0.001)
    monkeypatch.setattr("aggregator.chain.outage._LAST_BACK_OFF", 0.001)
    caplog.set_level(logging.INFO)
    async with running(world):
        await until(world, lambda: world.watch.is_complete)
        world.node.is_down = True
        await until(world, lambda: world.watch.failures > 5)
        world.chain.mine(new_batch(1))
        world.node.is_down = False
        await until(world, lambda: world.opened() == {1})
        await until(world, lambda: world.watch.failures == 0)
    mine = [r.message.split(":")[0] for r in caplog.records if "outage" in r.name]
    assert mine == ["chain away", "chain is back"]


async def test_a_registry_that_is_away_delays_operators_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.chain.outage._FIRST_BACK_OFF", 0.001)
    world.registry.is_away = True
    async with running(world):
        world.chain.mine(new_batch(1))
        await until(world, lambda: world.opened() == {1} and len(world.registry.asked) > 2)
        world.chain.mine(batch_verified(1), new_batch(2))
        await until(world, lambda: world.opened() == {2})
        world.registry.is_away = False
        await until(world, lambda: world.state(2).operators is not None)


async def test_orphans_are_asked_about_while_the_chain_grows(world: World) -> None:
    async with running(world):
        await until(world, lambda: world.watch.is_complete)
        world.batches.keep([entry(1)], height=world.chain.head.number)
        for _ in range(4):
            world.chain.mine()
        await until(world, lambda: "eth_call" in world.node.asked)


async def test_a_deep_reorg_has_everything_read_again_at_once() -> None:
    world = World(length=0)
    world.chain.mine(new_batch(1))
    world.chain.mine_many(300)
    async with running(world):
        await until(world, lambda: world.opened() == {1})
        world.chain.reorg(301)
        await until(world, lambda: world.opened() == set())


async def test_a_rescan_can_be_wanted_at_any_time(world: World) -> None:
    async with running(world):
        await until(world, lambda: world.watch.is_complete)
        world.batches.keep([entry(1)], height=1)
        before = world.node.asked.count("eth_call")
        world.watch.want_rescan()
        await until(world, lambda: world.node.asked.count("eth_call") > before)


async def test_a_shorter_interval_counts_at_once(world: World) -> None:
    world.watch.set_poll_interval(3600.0)
    async with running(world):
        await until(world, lambda: world.watch.head is not None)
        world.chain.mine(new_batch(1))
        world.watch.set_poll_interval(0.001)
        await until(world, lambda: world.opened() == {1})


def _hide(world: World, is_hidden: Callable[[int], bool]) -> None:
    """Have the node leave out the events of some blocks, as one that has not indexed them."""
    original = world.node._eth_getLogs

    def without(wanted: dict[str, Any]) -> list[dict[str, object]]:
        return [e for e in original(wanted) if not is_hidden(int(str(e["blockNumber"]), 16))]

    world.node._eth_getLogs = without  # type: ignore[method-assign]  # a fault of this story only


async def _failure(work: Awaitable[None]) -> ChainUnavailable | None:
    try:
        await work
    except ChainUnavailable as failure:
        return failure
    return None


def _batch_at(block: BlockRef) -> Batch:
    return dataclasses.replace(batch(1), created=block)
