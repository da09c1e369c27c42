"""The whole way out against a chain in memory: laws that hold whatever happens, and whenever."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings, strategies as st

from aggregator.batches import Batches
from aggregator.chain import signer
from aggregator.chain.facts import Node
from aggregator.chain.fees import Policy
from aggregator.chain.plan import Rules
from aggregator.chain.transactor import Terms, Transactor
from aggregator.outbox import OutboxRow
from aggregator.submit import Submitter
from aligned.model import BatchId, Entry, Term
from tests.fakes.builders import batch, operator_id, operator_set, signature
from tests.fakes.chain import FakeChain, PaperSigner, answered_by
from tests.fakes.prover import FakeProver, Heard
from tests.fakes.rows import CHAIN_ID, CONTRACT
from tests.fakes.stages import ManualClock
from tests.fakes.store import MemoryStore

BATCHES = tuple(batch(number) for number in range(1, 5))


class GivingWayStore(MemoryStore):
    """Lets others run before each call takes effect; a claim is always confirmed."""

    async def _call(self, name: str) -> None:
        await asyncio.sleep(0)
        fails, self.fail = self.fail, self.fail and name != "claim"
        try:
            await super()._call(name)
        finally:
            self.fail = fails


class World:
    """A chain and a store that outlive the leaders; every broadcast and row is checked."""

    def __init__(self, count: int = 2) -> None:
        self.chain = FakeChain()
        self.store = GivingWayStore()
        self.clock = ManualClock()
        self.batches = BATCHES[:count]
        self.mined: defaultdict[BatchId, int] = defaultdict(int)
        for one in self.batches:
            self.chain.post(one)
        self.chain.on_broadcast = self.check_broadcast

    def check_broadcast(self, raw: bytes) -> None:
        assert raw in {row.raw for row in self.store.rows.values()}, "broadcast without a row"
        self.check_rows()

    def check_rows(self) -> None:
        """One live nonce for each batch: of those not consumed, only one has rows for it."""
        live: defaultdict[BatchId, set[int]] = defaultdict(set)
        newest: dict[int, OutboxRow] = {}
        for row in sorted(self.store.rows.values(), key=lambda row: (row.nonce, row.attempt)):
            newest[row.nonce] = row
        for nonce, row in newest.items():
            if nonce >= self.chain.state.count and row.batch_id is not None:
                live[row.batch_id].add(nonce)
        assert all(len(nonces) == 1 for nonces in live.values()), "two live nonces for one batch"

    def check_nonces(self) -> None:
        nonces = sorted({row.nonce for row in self.store.rows.values()})
        assert nonces == list(range(5, 5 + len(nonces))), "a gap"

    @asynccontextmanager
    async def leader(self) -> AsyncIterator[asyncio.Task[None]]:
        """Lead the next term with an empty memory of transactions, and all signatures."""
        batches = Batches()
        transactor = Transactor(
            node=Node(self.chain, CONTRACT, self.chain, self.chain),
            rpc=self.chain,
            store=self.store,
            signer=PaperSigner(),
            heads=self.chain,
            require=lambda _: None,  # a leader that nobody stopped in time must do no harm either
            terms=Terms(
                chain_id=CHAIN_ID,
                contract=CONTRACT,
                rules=Rules(policy=Policy(), resubmit_after=36.0),
                max_in_flight=2,
            ),
            clock=self.clock,
        )
        self.submitter = Submitter(
            batches=batches,
            prover=FakeProver(),
            store=self.store,
            transactor=transactor,
            window=0.0,
            clock=self.clock,
            milestones=Heard(),
            luck=lambda: 0.0,
        )
        self.seen = batches
        self.watch()
        term = Term(self.store.fence[0] + 1)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.submitter.run(term, f"leader-{term}"))
            yield task
            task.cancel()

    def watch(self) -> None:
        """Bring what the chain says into the leader's memory, as the watcher does."""
        for one in self.batches:
            found = self.seen.get(one.batch_id)
            if one.batch_id in self.chain.responded:
                self.seen.answer(one.batch_id, self.chain.head)
            elif found is not None and found.answered is not None:
                self.seen.retract([found.answered.hash], height=self.chain.head.number)
            self.seen.open(one)
            self.seen.set_operators(one, operator_set(100, 100, 100))
            self.seen.keep(
                [Entry(one.batch_id, operator_id(by), signature(1, by)) for by in (1, 2, 3)],
                height=100,
            )

    async def head(self, *, empty: bool = False) -> None:
        self.chain.mine(empty=empty)
        self.watch()
        await steps(30)

    async def finish(self) -> None:
        """Mine until everything is answered."""
        for _ in range(40):
            if self.chain.responded == {one.batch_id for one in self.batches}:
                return
            self.clock.advance(60)
            self.submitter.look_again()
            await self.head()
        pytest.fail("not everything is answered after 40 blocks")


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int) -> tuple[World, bool]:
    """Cancel the first leader after ``count`` steps of the loop, and let a second one finish."""
    world = World()
    async with world.leader() as task:
        for number in range(count):
            if number % 12 == 11:
                world.chain.mine()
                world.watch()
            await asyncio.sleep(0)
        task.cancel()
    world.check_rows()
    done = world.chain.responded == {one.batch_id for one in world.batches}
    async with world.leader():
        await world.finish()
    return world, done


async def test_a_leader_cancelled_at_any_step_leaves_what_its_successor_can_finish() -> None:
    finished_before = []
    for count in range(120):
        world, done = await cancelled_after(count)
        world.check_nonces()
        answers = [
            answered_by(signer.decode(row.raw))
            for row in world.store.rows.values()
            if row.batch_id is not None and row.attempt == 0
        ]
        assert sorted(answers) == sorted(one.batch_id for one in world.batches)
        finished_before.append(done)
    # the steps reach from before the claim to after the last receipt
    assert not finished_before[0]
    assert finished_before[-1]


Event = Callable[[World], None]

EVENTS: dict[str, Event] = {
    "forget the pool": lambda world: world.chain.pool.clear(),
    "swallow": lambda world: setattr(world.chain, "swallow", True),
    "take again": lambda world: setattr(world.chain, "swallow", False),
    "dear": lambda world: setattr(world.chain, "base_fee", 10**11),
    "cheap": lambda world: setattr(world.chain, "base_fee", 100),
    "rise": lambda world: setattr(world.chain, "base_fee", 300),
    "reorg 1": lambda world: world.chain.reorg(1) if len(world.chain.blocks) > 2 else None,
    "reorg 3": lambda world: world.chain.reorg(3) if len(world.chain.blocks) > 4 else None,
    "away": lambda world: setattr(world.chain, "away", True),
    "back": lambda world: setattr(world.chain, "away", False),
    "no receipts": lambda world: setattr(world.chain, "lag_receipts", True),
    "receipts": lambda world: setattr(world.chain, "lag_receipts", False),
    "store away": lambda world: setattr(world.store, "fail", True),
    "store back": lambda world: setattr(world.store, "fail", False),
    "time": lambda world: world.clock.advance(40),
    "poor": lambda world: setattr(world.chain, "balance", 10),
    "rich": lambda world: setattr(world.chain, "balance", 10**18),
}

MEND = ("take again", "cheap", "back", "receipts", "store back", "rich")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted(EVENTS)),
            st.sampled_from(["block", "empty block", "crash"]),
        ),
        max_size=25,
    ),
    st.integers(0, 2**32),
)
def test_whatever_happens_each_batch_is_answered_once_in_the_end(
    story: list[str], seed: int
) -> None:
    asyncio.run(_live_through(story, random.Random(seed)))  # noqa: S311  # no secret


async def _live_through(story: list[str], luck: random.Random) -> None:
    world = World(count=4)
    position = 0
    while position <= len(story):
        async with world.leader():
            while position < len(story) and story[position] != "crash":
                name = story[position]
                if name in EVENTS:
                    EVENTS[name](world)
                    world.watch()
                else:
                    await world.head(empty=name == "empty block")
                await steps(luck.randrange(40))
                world.check_rows()
                position += 1
            position += 1
            if position > len(story):
                for name in MEND:
                    EVENTS[name](world)
                await world.finish()
    world.check_rows()
