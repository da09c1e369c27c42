from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from aggregator.chain.registry import REREAD, Known, Registry
from aligned.bls.backend import BadKey
from aligned.chain.endpoints import Endpoints, Source
from aligned.chain.rpc import BlockMissing, RpcError
from aligned.errors import ChainUnavailable
from aligned.model import (
    Address,
    BlockHash,
    BlockRef,
    G1Point,
    G2Point,
    Operator,
    OperatorId,
    operator_id,
)
from tests.fakes.bls import FakeBackend
from tests.fakes.ethereum import CHAIN_ID, CONTRACTS, FakeChain, FakeNet, FakeNode, registration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.bls.backend import Key


def operator(number: int) -> Operator:
    g1 = G1Point(number.to_bytes(64, "big"))
    return Operator(
        operator_id=operator_id(g1),
        address=Address(operator_id(g1)[-20:]),
        g1=g1,
        g2=G2Point(number.to_bytes(128, "big")),
    )


class Picky(FakeBackend):
    """Refuses the key of operator 13."""

    def key(self, g2: G2Point) -> Key:
        if g2 == operator(13).g2:
            raise BadKey("not in the subgroup")
        return super().key(g2)


class World:
    def __init__(self, *, known: Known | None = None, deployment_block: int = 0) -> None:
        self.chain = FakeChain()
        self.node = FakeNode(self.chain)
        self.net = FakeNet({"http://one": self.node})
        self.rpc = Endpoints([Source(name="one", url="http://one")], CHAIN_ID, transport=self.net)
        self.saved: list[tuple[list[Operator], BlockRef]] = []
        self.now = 0.0
        self.registry = self.open(deployment_block)

    def open(self, deployment_block: int = 0) -> Registry:
        return Registry(
            self.rpc,
            CONTRACTS,
            Picky(),
            self._save,
            deployment_block=deployment_block,
            clock=lambda: self.now,
        )

    async def _save(self, operators: Sequence[Operator], progress: BlockRef) -> None:
        self.saved.append((list(operators), progress))

    def journal(self) -> Known:
        operators = [operator for saved, _ in self.saved for operator in saved]
        return Known(operators, self.saved[-1][1] if self.saved else None)

    async def sync(self) -> None:
        await self.registry.sync(self.chain.head.ref)

    def ids(self, *numbers: int) -> list[OperatorId]:
        return [operator(number).operator_id for number in numbers]


@pytest.fixture
def world() -> World:
    return World()


# Keys.


async def test_registrations_bring_keys(world: World) -> None:
    world.chain.mine(registration(operator(1)), registration(operator(2)))
    assert world.registry.synced is None
    await world.sync()
    known = world.registry.operator(operator(1).operator_id)
    assert known is not None
    assert (known.operator, known.key) == (operator(1), operator(1).g2)
    assert len(world.registry) == 2
    assert world.registry.synced == world.chain.head.ref


async def test_what_is_new_is_saved_with_the_progress(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    await world.sync()
    world.chain.mine()
    await world.sync()
    world.chain.mine(registration(operator(2)))
    await world.sync()
    assert world.saved == [
        ([operator(1)], world.chain.blocks[1].ref),
        ([operator(2)], world.chain.blocks[3].ref),
    ]


async def test_progress_alone_is_saved_now_and_then(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    await world.sync()
    world.chain.mine_many(256)
    await world.sync()
    assert world.saved[1:] == [([], world.chain.head.ref)]


async def test_a_restart_goes_on_from_the_journal(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(1000)
    await world.sync()
    world.registry = world.open()
    await world.registry.restore(world.journal())
    assert world.registry.operator(operator(1).operator_id) is not None
    world.chain.mine(registration(operator(2)))
    world.node.log_range = REREAD + 1
    world.node.asked.clear()
    await world.sync()
    assert world.node.asked.count("eth_getLogs") == 1
    assert world.saved[-1] == ([operator(2)], world.chain.head.ref)


async def test_the_last_blocks_are_read_again(world: World) -> None:
    world.chain.mine_many(REREAD)
    await world.sync()
    late = world.chain.blocks[1]
    world.chain.blocks[1] = type(late)(
        late.number, late.hash, late.parent, late.timestamp, (registration(operator(1)),)
    )
    world.chain.mine()
    await world.sync()
    assert world.registry.operator(operator(1).operator_id) is not None


async def test_scans_begin_at_the_deployment() -> None:
    world = World(deployment_block=3)
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(9)
    await world.sync()
    assert len(world.registry) == 0


async def test_a_bad_key_is_left_out_and_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.chain.mine(registration(operator(13)), registration(operator(1)))
    await world.sync()
    world.chain.mine()
    await world.sync()
    assert [world.registry.operator(i) is None for i in world.ids(13, 1)] == [True, False]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.__dict__["operator"] for r in warnings] == [operator(13).operator_id.hex()]


async def test_an_outage_in_the_middle_of_a_scan_loses_nothing(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(2500)
    world.chain.mine(registration(operator(2)))

    def fail(method: str, params: list[Any]) -> None:
        if method == "eth_getLogs" and params[0]["fromBlock"] != "0x0":
            world.node.is_down = True

    world.node.before = fail
    with pytest.raises(ChainUnavailable):
        await world.sync()
    assert (len(world.registry), world.saved) == (1, [])
    world.node.before = lambda _method, _params: None
    world.node.is_down = False
    await world.sync()
    assert [saved for saved, _ in world.saved] == [[operator(1), operator(2)]]


async def test_no_entries_from_an_endpoint_that_lags_are_no_scan(world: World) -> None:
    """The good endpoint times out on many blocks at once; the other one has not got them."""
    world.chain.mine_many(1500)
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(300)
    behind = FakeNode(world.chain)
    behind.lag = 1000

    def time_out(method: str, params: list[Any]) -> None:
        if method == "eth_getLogs":
            span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            world.node.is_down = span > 1000

    world.node.before = time_out
    world.net.nodes["http://two"] = behind
    sources = [Source(name=name, url=f"http://{name}") for name in ("one", "two")]
    world.rpc = Endpoints(sources, CHAIN_ID, transport=world.net)
    await world.rpc.check()
    world.registry = world.open()
    with pytest.raises(ChainUnavailable):
        await world.sync()
    assert (world.registry.synced, world.saved) == (None, [])
    world.node.is_down = False
    await world.rpc.check()  # what the probes do a second later
    await world.sync()
    assert [saved for saved, _ in world.saved] == [[operator(1)]]


async def test_a_long_scan_saves_on_the_way(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(5000)

    def take_long(_method: str, _params: list[Any]) -> None:
        world.now += 11.0

    world.node.before = take_long
    await world.sync()
    assert world.saved[0] == ([operator(1)], world.chain.blocks[1999].ref)
    assert world.saved[1] == ([], world.chain.blocks[4999].ref)


async def test_a_head_that_lags_takes_nothing_back(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    await world.sync()
    await world.registry.sync(world.chain.blocks[0].ref)
    assert world.registry.synced == world.chain.head.ref


async def test_a_new_operator_is_looked_up_before_the_scan(world: World) -> None:
    world.chain.mine_many(100)
    await world.sync()
    world.chain.mine(registration(operator(1)))
    await world.registry.look_up(world.ids(1, 99))
    assert world.registry.operator(operator(1).operator_id) is not None


async def test_an_operator_that_the_scans_missed_is_found_anywhere(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(5000)
    await world.registry.look_up(world.ids(1))
    assert world.registry.operator(operator(1).operator_id) is not None


async def test_invented_operators_cost_one_exchange_a_second(world: World) -> None:
    await world.registry.look_up(world.ids(*range(100, 130)))
    assert world.node.asked.count("eth_call") == 16
    await world.registry.look_up(world.ids(200))
    assert world.node.asked.count("eth_call") == 16
    assert "eth_getLogs" not in world.node.asked
    world.now += 1.0
    await world.registry.look_up(world.ids(200))
    assert world.node.asked.count("eth_call") == 17


async def test_a_refused_look_up_says_nothing_about_anybody(world: World) -> None:
    world.node.errors["eth_call"] = (3, "execution reverted")
    with pytest.raises(ChainUnavailable, match="does not answer"):
        await world.registry.look_up(world.ids(1))


async def test_a_look_up_tells_who_was_searched_for(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    assert await world.registry.look_up(world.ids(1, 99)) == world.ids(1, 99)
    assert await world.registry.look_up(world.ids(98)) == ()


async def test_known_operators_are_not_looked_up(world: World) -> None:
    world.chain.mine(registration(operator(1)))
    await world.sync()
    world.node.asked.clear()
    await world.registry.look_up(world.ids(1))
    assert world.node.asked == []


# Members that no scan has shown.


@pytest.fixture
async def holed(world: World) -> World:
    """A journal's progress is beyond a registration that it does not hold."""
    world.chain.mine(registration(operator(1)))
    world.chain.mine_many(5000)
    await world.registry.restore(Known((), world.chain.head.ref))
    world.chain.mine()
    await world.sync()
    assert world.registry.operator(operator(1).operator_id) is None
    return world


async def test_a_member_that_is_missed_is_found_and_saved_with_the_next_head(
    holed: World, caplog: pytest.LogCaptureFixture
) -> None:
    holed.registry.miss(holed.ids(1))
    holed.chain.mine()
    await holed.sync()
    assert holed.registry.operator(operator(1).operator_id) is not None
    assert holed.saved[-1] == ([operator(1)], holed.chain.head.ref)
    told = [r for r in caplog.records if "were found by a search" in r.message]
    assert [r.__dict__["operators"] for r in told] == [[operator(1).operator_id.hex()]]


async def test_a_member_that_cannot_be_found_costs_one_search_in_five_minutes(
    holed: World,
) -> None:
    def searches() -> int:
        return holed.node.asked.count("eth_call")

    for _ in range(4):
        holed.registry.miss(holed.ids(99))  # each attempt to answer misses it again
        holed.chain.mine()
        await holed.sync()
    assert searches() == 1
    holed.now += 300.0
    holed.chain.mine()
    await holed.sync()
    assert searches() == 2
    holed.now += 300.0
    holed.chain.mine()
    await holed.sync()
    assert searches() == 2  # nobody misses it any more


async def test_a_search_that_fails_is_repeated_and_holds_up_no_scan(holed: World) -> None:
    holed.registry.miss(holed.ids(1))
    holed.node.errors["eth_call"] = (3, "execution reverted")
    head = holed.chain.mine(registration(operator(2)))
    with pytest.raises(ChainUnavailable):
        await holed.sync()
    assert holed.registry.synced == head
    await holed.sync()
    holed.node.errors.clear()
    holed.now += 300.0
    holed.chain.mine()
    await holed.sync()
    assert [holed.registry.operator(i) is None for i in holed.ids(1, 2)] == [False, False]
    # What the scan found did not wait for the search.
    assert holed.saved[-2:] == [([operator(2)], head), ([operator(1)], holed.chain.head.ref)]


async def test_known_members_are_not_searched_for(world: World) -> None:
    world.chain.mine(registration(operator(13)), registration(operator(1)))
    await world.sync()
    world.registry.miss(world.ids(13, 1))
    world.chain.mine()
    await world.sync()
    assert "eth_call" not in world.node.asked


# Stakes.


async def test_members_stakes_and_total_are_those_of_the_block(world: World) -> None:
    one, two = world.ids(1, 2)
    block = world.chain.mine(stakes={one: 100, two: 50})
    world.chain.mine(stakes={one: 1})
    members = await world.registry.operators_at(block)
    assert (members.block, dict(members.stakes), members.total) == (block, {one: 100, two: 50}, 150)


async def test_repeats_and_simultaneous_requests_share_one_read(world: World) -> None:
    block = world.chain.mine(stakes={world.ids(1)[0]: 100})
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(world.registry.operators_at(block))
    await world.registry.operators_at(block)
    assert world.node.asked.count("eth_call") == 3


async def test_a_lagging_endpoint_gives_no_older_state(world: World) -> None:
    old = {world.ids(1)[0]: 100}
    world.chain.mine(stakes=old)
    block = world.chain.mine(stakes={world.ids(1)[0]: 7})
    world.node.lag = 1
    with pytest.raises(BlockMissing):
        await world.registry.operators_at(block)
    world.node.lag = 0
    assert (await world.registry.operators_at(block)).total == 7


async def test_a_pruned_block_is_read_from_the_histories_of_the_head(world: World) -> None:
    block = world.chain.mine(stakes={world.ids(1)[0]: 100})
    world.chain.mine(stakes={world.ids(1)[0]: 7})
    world.chain.mine_many(20)
    world.node.keeps_states = 8
    members = await world.registry.operators_at(block)
    assert (members.block, members.total) == (block, 100)


async def test_a_pruned_block_of_another_branch_is_missing(world: World) -> None:
    block = world.chain.mine(stakes={world.ids(1)[0]: 100})
    world.chain.reorg(1)
    world.chain.mine_many(20)
    world.node.keeps_states = 8
    with pytest.raises(BlockMissing, match="not in the chain"):
        await world.registry.operators_at(block)


async def test_the_same_number_in_another_branch_is_another_set(world: World) -> None:
    one = world.ids(1)[0]
    first = world.chain.mine(stakes={one: 100})
    assert (await world.registry.operators_at(first)).total == 100
    world.chain.drop(1)
    second = world.chain.mine(stakes={one: 5})
    assert (await world.registry.operators_at(second)).total == 5


async def test_a_failure_is_not_remembered(world: World) -> None:
    block = world.chain.mine(stakes={world.ids(1)[0]: 100})
    world.node.is_down = True
    with pytest.raises(ChainUnavailable):
        await world.registry.operators_at(block)
    world.node.is_down = False
    assert (await world.registry.operators_at(block)).total == 100


async def test_a_registry_that_reverts_is_unavailable(world: World) -> None:
    block = world.chain.mine()
    world.node.errors["eth_call"] = (3, "execution reverted")
    with pytest.raises(ChainUnavailable, match="cannot be read"):
        await world.registry.operators_at(block)


async def test_the_cache_of_sets_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.chain.registry._SETS", 2)
    blocks = [world.chain.mine() for _ in range(3)]
    for position in (0, 1, 0, 2):
        await world.registry.operators_at(blocks[position])
    world.node.asked.clear()
    await world.registry.operators_at(blocks[0])
    await world.registry.operators_at(blocks[2])
    assert world.node.asked == []
    await world.registry.operators_at(blocks[1])
    assert "eth_call" in world.node.asked


async def test_indices_are_read_as_of_the_head_for_the_batchs_block(world: World) -> None:
    created = world.chain.mine()
    head = world.chain.mine()
    found = await world.registry.indices(created, world.ids(1, 2), at=head)
    assert (found.quorum_apk, found.non_signer_bitmap) == ((created.number,), (0, 1))
    with pytest.raises(BlockMissing):
        await world.registry.indices(created, [], at=BlockRef(2, BlockHash(b"\x01" * 32)))
    world.node.errors["eth_call"] = (3, "execution reverted: O!Reg")
    with pytest.raises(RpcError, match="O!Reg"):
        await world.registry.indices(created, world.ids(1), at=head)
