from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from aggregator.chain.facts import Node
from aggregator.chain.fees import Policy
from aggregator.chain.nonces import PATIENCE, REPEAT, Fate
from aggregator.chain.plan import Rules
from aggregator.chain.transactor import Terms, Transactor
from aggregator.outbox import Kind, OutboxRow, Receipt, Standing
from aggregator.parking import CannotSend, Reason
from aligned.chain.rpc import BlockMissing, RpcError
from aligned.errors import ChainUnavailable, Deposed, StoreUnavailable
from aligned.model import Address, Batch, BatchId, Term, TransactionHash, Wei
from tests.fakes.builders import batch, block
from tests.fakes.chain import FakeChain, PaperSigner
from tests.fakes.rows import ACCOUNT, CHAIN_ID, CONTRACT, data, row
from tests.fakes.stages import ManualClock
from tests.fakes.store import MemoryStore

ONE, TWO, THREE = batch(1), batch(2), batch(3)
TERM = Term(1)


@dataclass
class Desk:
    """Remembers what it was told."""

    ready: int = 0
    parked: list[tuple[BatchId, Reason]] = field(default_factory=list)
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    mined_batches: list[tuple[BatchId, TransactionHash]] = field(default_factory=list)

    async def next_look(self) -> None:
        self.looked.clear()
        await self.looked.wait()

    def waiting(self) -> int:
        return self.ready

    def park(self, batch_id: BatchId, problem: CannotSend) -> None:
        self.parked.append((batch_id, problem.reason))

    def mined(self, batch_id: BatchId, receipt: Receipt) -> None:
        self.mined_batches.append((batch_id, receipt.hash))

    def look_again(self) -> None:
        self.looked.set()


class World:
    """A transactor, and everything it talks to."""

    def __init__(self) -> None:
        self.chain = FakeChain()
        self.store = MemoryStore()
        self.signer: PaperSigner | None = PaperSigner()
        self.clock = ManualClock()
        self.desk = Desk()
        self.policy = Policy()
        self.max_in_flight = 4
        self.over: set[Term] = set()
        """Terms that must have no effects any more."""
        for one in (ONE, TWO, THREE):
            self.chain.post(one)
        self.chain.on_broadcast = self._must_be_recorded
        self.transactor = self.build()

    def _require(self, term: Term) -> None:
        if term in self.over:
            msg = f"term {term} is not confirmed"
            raise Deposed(msg)

    def _must_be_recorded(self, raw: bytes) -> None:
        assert raw in {known.raw for known in self.store.rows.values()}

    def build(self) -> Transactor:
        return Transactor(
            node=Node(self.chain, CONTRACT, self.chain, self.chain),
            rpc=self.chain,
            store=self.store,
            signer=self.signer,
            heads=self.chain,
            require=self._require,
            terms=Terms(
                chain_id=CHAIN_ID,
                contract=CONTRACT,
                rules=Rules(policy=self.policy, resubmit_after=36.0),
                max_in_flight=self.max_in_flight,
            ),
            clock=self.clock,
        )

    async def begin(self, *rows: OutboxRow) -> Transactor:
        """Begin a term with ``rows`` in the outbox and take the first look."""
        self.store.rows |= {(one.sender, one.nonce, one.attempt): one for one in rows}
        self.transactor = self.build()
        found = await self.store.claim(TERM, "me")
        self.transactor.begin(TERM, "me", found, self.desk)
        await self.transactor.look()
        return self.transactor

    async def answer(self, one: Batch) -> None:
        survey = await self.transactor.survey(one, ())
        await self.transactor.answer(one, data(one), survey)

    async def heads(self, count: int, *, empty: bool = True) -> None:
        for _ in range(count):
            self.chain.mine(empty=empty)
            await self.transactor.look()

    @property
    def nonces(self) -> list[tuple[int, int, BatchId | None]]:
        return sorted(
            ((one.nonce, one.attempt, one.batch_id) for one in self.store.rows.values()),
            key=lambda key: key[:2],
        )

    def fate(self, nonce: int) -> Fate:
        (found,) = [slot.fate for slot in self.transactor.slots if slot.nonce == nonce]
        return found


@pytest.fixture
def world() -> World:
    return World()


# Sending.


async def test_an_answer_is_recorded_broadcast_and_mined(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    assert world.nonces == [(5, 0, ONE.batch_id)]
    await world.heads(1, empty=False)
    assert world.fate(5) is Fate.MINED
    assert world.transactor.standing(ONE) is Standing.UNDER_WAY
    assert (world.transactor.counters.sent, world.transactor.counters.mined) == (1, 1)
    ((_, told),) = world.desk.mined_batches
    assert told == world.transactor.slots[-1].last.hash
    await world.heads(2)
    assert len(world.desk.mined_batches) == 1


async def test_three_round_trips_lead_from_a_quorum_to_the_broadcast(world: World) -> None:
    await world.begin()
    world.chain.turns.clear()
    await world.answer(ONE)
    assert len(world.chain.turns) > 3
    assert world.chain.rounds == 3


async def test_answers_at_once_get_consecutive_nonces(world: World) -> None:
    await world.begin()
    async with asyncio.TaskGroup() as group:
        for one in (ONE, TWO, THREE):
            group.create_task(world.answer(one))
    assert [nonce for nonce, _, _ in world.nonces] == [5, 6, 7]


async def test_a_batch_handed_in_twice_gets_one_nonce(world: World) -> None:
    await world.begin()
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(world.answer(ONE))
    assert {nonce for nonce, _, _ in world.nonces} == {5}


@pytest.mark.parametrize("simulates", [True, False], ids=["simulated", "estimated"])
async def test_the_gas_limit_is_the_estimate_and_a_tenth(world: World, simulates: bool) -> None:
    world.chain.simulates = simulates
    await world.begin()
    await world.answer(ONE)
    (sent,) = world.store.rows.values()
    assert (sent.gas, sent.kind, sent.created) == (275_000, Kind.ANSWER, ONE.created)


async def test_nothing_is_signed_before_the_chain_was_looked_at(world: World) -> None:
    world.transactor.begin(TERM, "me", await world.store.claim(TERM, "me"), world.desk)
    assert world.transactor.room() == 0
    assert world.transactor.blocked is not None


async def test_no_more_than_allowed_are_in_flight(world: World) -> None:
    world.max_in_flight = 1
    await world.begin()
    await world.answer(ONE)
    assert world.transactor.room() == 0
    with pytest.raises(CannotSend) as refused:
        await world.answer(TWO)
    assert refused.value.reason is Reason.BUSY


def revert(name: str) -> RpcError:
    return RpcError(3, f"execution reverted: {name}")


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        pytest.param("balance", 10**4, Reason.OWN_FUNDS, id="no-funds"),
        pytest.param("deposit", 10**4, Reason.BATCHER_FUNDS, id="no-deposit"),
        pytest.param("aggregator", Address(b"\x01" * 20), Reason.WRONG_AGGREGATOR, id="account"),
        pytest.param("base_fee", 10**12, Reason.FEE_LIMIT, id="market-above-the-limit"),
        pytest.param("revert", revert("Pausable: paused"), Reason.PAUSED, id="paused"),
        pytest.param("revert", revert("invalid reference block"), Reason.TOO_EARLY, id="early"),
        pytest.param("revert", revert("signature is invalid"), Reason.NO_QUORUM_DATA, id="data"),
        pytest.param("revert", revert("BatchAlreadyResponded"), Reason.ANSWERED, id="answered"),
        pytest.param("revert", revert("BatchDoesNotExist"), Reason.MOVED, id="reorged-away"),
        pytest.param("revert", revert("ExceededMaxRespondFee"), Reason.FEE_LIMIT, id="limit"),
        pytest.param("revert", revert("what is this"), Reason.REVERT, id="unknown"),
        pytest.param(
            "revert", RpcError(-32000, "insufficient funds for gas"), Reason.OWN_FUNDS, id="gas"
        ),
    ],
)
@pytest.mark.parametrize("simulates", [True, False], ids=["simulated", "estimated"])
async def test_what_cannot_be_sent_leaves_no_row(
    world: World, attribute: str, value: object, reason: Reason, simulates: bool
) -> None:
    world.chain.simulates = simulates
    await world.begin()
    setattr(world.chain, attribute, value)
    with pytest.raises(CannotSend) as refused:
        await world.answer(ONE)
    assert refused.value.reason is reason
    assert not world.store.rows


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param([0, False, 10**16], Reason.MOVED, id="not-there"),
        pytest.param([101, False, 10**16], Reason.MOVED, id="in-another-block"),
        pytest.param([100, True, 10**16], Reason.ANSWERED, id="answered"),
    ],
)
async def test_a_batch_that_is_not_as_we_know_it_is_not_answered(
    world: World, record: list[object], reason: Reason
) -> None:
    await world.begin()
    world.chain.state.batches[ONE.batch_id] = record
    with pytest.raises(CannotSend) as refused:
        await world.answer(ONE)
    assert refused.value.reason is reason


async def test_a_deposit_counts_less_what_is_in_flight(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    (sent,) = world.store.rows.values()
    world.chain.deposit = TWO.fee_limit + sent.max_fee * (sent.gas + 15_000) - 1
    with pytest.raises(CannotSend) as refused:
        await world.answer(TWO)
    assert refused.value.reason is Reason.BUSY  # no alarm: it passes when the other one is mined
    world.chain.deposit += 1
    await world.answer(TWO)


async def test_the_price_never_passes_what_the_batch_pays(world: World) -> None:
    await world.begin()
    world.chain.post(ONE, fee_limit=290_000 * 150)
    await world.answer(ONE)
    (sent,) = world.store.rows.values()
    assert sent.max_fee == 150


async def test_above_the_limit_only_if_we_allow_it_and_the_contract_does(world: World) -> None:
    world.policy = Policy(max_fee=Wei(1000))
    await world.begin()
    world.chain.post(ONE, fee_limit=1)
    await world.answer(ONE)
    (sent,) = world.store.rows.values()
    assert sent.max_fee == 210


# The store and the signer.


async def test_a_row_of_which_nothing_is_known_keeps_its_nonce(world: World) -> None:
    await world.begin()
    world.store.fail = True
    with pytest.raises(StoreUnavailable):
        await world.answer(ONE)
    assert not world.chain.broadcasts
    world.store.fail = False
    await world.answer(TWO)
    assert world.nonces == [(5, 0, ONE.batch_id), (6, 0, TWO.batch_id)]
    await world.heads(1)
    await world.heads(1, empty=False)
    assert world.chain.responded == {ONE.batch_id, TWO.batch_id}


async def test_a_term_that_is_over_sends_nothing(world: World) -> None:
    await world.begin()
    world.store.fence = (Term(2), "another")
    with pytest.raises(Deposed):
        await world.answer(ONE)
    assert not world.chain.broadcasts


async def test_a_leader_deposed_between_recording_and_broadcasting_sends_nothing(
    world: World,
) -> None:
    await world.begin()
    record = world.store.record

    async def record_and_be_paused(term: Term, holder: str, row: OutboxRow) -> None:
        await record(term, holder, row)
        world.over.add(term)  # a successor leads by the time this one wakes

    world.store.record = record_and_be_paused  # type: ignore[method-assign] # what this is about
    with pytest.raises(Deposed):
        await world.answer(ONE)
    assert world.nonces == [(5, 0, ONE.batch_id)]
    assert not world.chain.broadcasts
    with pytest.raises(Deposed):
        await world.heads(REPEAT + 1)
    assert not world.chain.broadcasts


async def test_a_signer_that_is_away_costs_no_nonce(world: World) -> None:
    await world.begin()
    assert world.signer is not None
    world.signer.away = True
    with pytest.raises(Exception, match="away"):
        await world.answer(ONE)
    world.signer.away = False
    await world.answer(TWO)
    assert world.nonces == [(5, 0, TWO.batch_id)]


async def test_rows_of_another_account_are_left_alone(world: World) -> None:
    world.signer = PaperSigner(Address(b"\xbb" * 20))
    world.chain.aggregator = world.signer.address
    await world.begin(row(5, ONE))
    assert not world.chain.broadcasts
    assert not world.transactor.slots


# A new term.


async def test_known_bytes_are_sent_again_lowest_first(world: World) -> None:
    one, two = row(5, ONE), row(6, TWO)
    await world.begin(two, one)
    assert world.chain.broadcasts == [one.raw, two.raw]
    assert world.transactor.standing(ONE) is Standing.UNDER_WAY


async def test_what_the_former_leader_saw_mined_is_not_answered_again(world: World) -> None:
    ours = row(5, ONE)
    world.chain.pool[5] = ours.raw
    world.chain.mine()
    await world.begin(ours)
    assert world.fate(5) is Fate.MINED
    assert not world.chain.broadcasts


async def test_a_nonce_stolen_before_the_term_gives_its_batch_another(world: World) -> None:
    world.chain.steal()
    await world.begin(row(5, ONE))
    assert world.transactor.standing(ONE) is Standing.UNDER_WAY
    await world.heads(PATIENCE)
    assert world.fate(5) is Fate.FOREIGN
    assert world.transactor.standing(ONE) is Standing.FREE
    await world.answer(ONE)
    assert (6, 0, ONE.batch_id) in world.nonces


async def test_nothing_is_sent_while_pending_transactions_are_not_ours(world: World) -> None:
    world.chain.pending_foreign = 1
    await world.begin()
    assert world.transactor.blocked is not None
    assert world.transactor.blocked.reason is Reason.FOREIGN_NONCE
    world.chain.pending_foreign = 0
    await world.heads(1)
    assert world.transactor.blocked is None


async def test_our_own_pending_transactions_are_no_obstacle(world: World) -> None:
    ours = row(5, ONE)
    world.chain.pool[5] = ours.raw
    await world.begin(ours)
    assert world.transactor.blocked is None


async def test_the_wrong_account_touches_nothing(world: World) -> None:
    world.chain.aggregator = Address(b"\x01" * 20)
    await world.begin(row(5, ONE))
    await world.heads(2 * REPEAT)
    assert not world.chain.broadcasts
    assert world.transactor.blocked is not None
    assert world.transactor.blocked.reason is Reason.WRONG_AGGREGATOR


# Seeing it through.


async def test_a_dropped_transaction_is_sent_again_with_the_same_bytes(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.pool.clear()
    await world.heads(REPEAT)
    assert len(set(world.chain.broadcasts)) == 1
    assert len(world.chain.broadcasts) == 2


async def test_an_un_mined_transaction_is_raised_and_mined_once(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    await world.heads(1)
    world.clock.advance(36)
    await world.heads(1)
    assert world.nonces == [(5, 0, ONE.batch_id), (5, 1, ONE.batch_id)]
    await world.heads(1, empty=False)
    assert world.chain.responded == {ONE.batch_id}
    assert world.transactor.counters.bumped == 1


async def test_a_theft_within_the_term_stops_everything(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.steal()
    await world.heads(PATIENCE - 1)
    assert world.transactor.blocked is None
    await world.heads(1)
    assert world.transactor.blocked is not None
    assert world.transactor.blocked.reason is Reason.FOREIGN_NONCE
    with pytest.raises(CannotSend):
        await world.answer(TWO)


async def test_endpoints_that_show_no_receipts_for_a_while_are_no_theft(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.lag_receipts = True
    await world.heads(PATIENCE - 1, empty=False)
    world.chain.lag_receipts = False
    await world.heads(1)
    assert world.fate(5) is Fate.MINED
    assert world.transactor.blocked is None


async def test_a_receipt_after_all_ends_the_alarm(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.lag_receipts = True
    await world.heads(PATIENCE, empty=False)
    assert world.transactor.blocked is not None
    world.chain.lag_receipts = False
    await world.heads(1)
    assert world.transactor.blocked is None
    await world.answer(TWO)


async def test_a_mined_revert_is_parked_with_its_reason(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.undo = True
    world.chain.revert = revert("Pausable: paused")
    await world.heads(1, empty=False)
    assert world.desk.parked == [(ONE.batch_id, Reason.PAUSED)]
    assert world.transactor.standing(ONE) is Standing.FREE
    assert (world.transactor.counters.mined, world.transactor.counters.reverted) == (0, 1)


async def test_a_mined_revert_without_a_reason_is_no_success(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.undo = True
    await world.heads(1, empty=False)
    assert world.desk.parked == [(ONE.batch_id, Reason.REVERT)]


async def test_a_reorg_of_the_answer_sends_the_same_bytes(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    await world.heads(1, empty=False)
    world.chain.reorg(1)
    await world.transactor.look()
    assert len(set(world.chain.broadcasts)) == 1
    await world.heads(1, empty=False)
    assert world.chain.responded == {ONE.batch_id}


async def test_a_batch_in_another_block_is_replaced_at_its_own_nonce(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    moved = batch(1, at=101)
    world.chain.post(moved)
    assert world.transactor.standing(moved) is Standing.STALE
    await world.answer(moved)
    assert world.nonces == [(5, 0, ONE.batch_id), (5, 1, ONE.batch_id)]
    assert world.transactor.standing(moved) is Standing.UNDER_WAY


async def test_a_priced_out_nonce_goes_to_the_next_batch(world: World) -> None:
    world.max_in_flight = 1
    await world.begin()
    world.chain.post(ONE, fee_limit=290_000 * 150)
    await world.answer(ONE)
    world.chain.base_fee = 1000
    world.desk.ready = 1
    await world.heads(PATIENCE)
    assert world.desk.parked == [(ONE.batch_id, Reason.FEE_LIMIT)]
    assert world.transactor.room() == 1
    await world.answer(TWO)
    assert world.nonces == [(5, 0, ONE.batch_id), (5, 1, TWO.batch_id)]
    assert world.transactor.standing(ONE) is Standing.UNDER_WAY
    await world.heads(1, empty=False)
    assert world.transactor.standing(ONE) is Standing.FREE
    assert world.chain.responded == {TWO.batch_id}


async def test_a_priced_out_nonce_is_used_up_for_those_behind(world: World) -> None:
    await world.begin()
    world.chain.post(ONE, fee_limit=290_000 * 150)
    await world.answer(ONE)
    await world.answer(TWO)
    world.chain.base_fee = 200
    await world.heads(PATIENCE)
    await world.heads(1, empty=False)
    assert world.chain.responded == {TWO.batch_id}
    assert world.transactor.standing(ONE) is Standing.FREE
    assert world.transactor.counters.cancelled == 1


async def test_what_is_final_is_forgotten(world: World) -> None:
    world.chain.final_depth = 2
    await world.begin()
    await world.answer(ONE)
    await world.heads(1, empty=False)
    assert world.store.rows
    await world.heads(4)
    assert not world.store.rows
    assert not world.transactor.slots


def pruned(method: str, params: list[object]) -> Exception | None:
    is_old = method in {"eth_getTransactionCount", "eth_call"} and str(params[-1]).startswith("0x")
    return BlockMissing("no endpoint has the block: missing trie node") if is_old else None


def refused(method: str, params: list[object]) -> Exception | None:
    is_old = method == "eth_getTransactionCount" and str(params[-1]).startswith("0x")
    return RpcError(-32000, "no such state") if is_old else None


@pytest.mark.parametrize("refuse", [pruned, refused])
async def test_final_state_that_no_node_has_only_puts_off_the_forgetting(
    world: World, refuse: Callable[[str, list[object]], Exception | None]
) -> None:
    world.chain.final_depth = 2
    world.chain.refuse = refuse
    await world.begin()
    await world.answer(ONE)
    await world.heads(1, empty=False)
    await world.heads(4)
    assert world.fate(5) is Fate.MINED
    world.chain.refuse = lambda *_: None
    await world.heads(2)
    assert not world.transactor.slots


@pytest.mark.parametrize(
    "method", ["eth_getTransactionCount", "eth_getTransactionReceipt", "eth_call", "eth_getBalance"]
)
async def test_a_node_that_refuses_a_plain_read_is_an_outage_and_no_theft(
    world: World, method: str
) -> None:
    transactor = await world.begin()
    await world.answer(ONE)
    world.chain.mine()
    world.chain.refuse = lambda asked, _: (
        RpcError(-32603, "internal error") if asked == method else None
    )
    with pytest.raises(ChainUnavailable) if method != "eth_call" else nullcontext():
        await transactor.look()
    with pytest.raises(ChainUnavailable) if method != "eth_call" else nullcontext():
        await world.heads(PATIENCE)
    assert transactor.blocked is None
    world.chain.refuse = lambda *_: None
    await transactor.look()
    assert world.fate(5) is Fate.MINED


async def test_a_node_that_refuses_to_name_the_aggregator_delays_the_term(world: World) -> None:
    world.chain.refuse = lambda asked, _: (
        RpcError(-32603, "internal error") if asked == "eth_call" else None
    )
    with pytest.raises(ChainUnavailable):
        await world.begin()
    assert world.transactor.blocked is not None
    world.chain.refuse = lambda *_: None
    await world.transactor.look()
    assert world.transactor.blocked is None


async def test_an_outage_leaves_everything_due(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    world.chain.away = True
    world.chain.pool.clear()
    with pytest.raises(Exception, match="away"):
        await world.transactor.look()
    world.chain.away = False
    await world.heads(REPEAT)
    await world.heads(1, empty=False)
    assert world.chain.responded == {ONE.batch_id}


async def test_an_account_that_cannot_pay_a_raise_does_not_try(world: World) -> None:
    await world.begin()
    await world.answer(ONE)
    await world.heads(1)
    world.chain.balance = 1
    world.clock.advance(36)
    await world.heads(3)
    assert world.nonces == [(5, 0, ONE.batch_id)]


# Observing.


async def test_observing_simulates_and_touches_nothing(world: World) -> None:
    world.signer = None
    world.transactor = world.build()
    rows: Sequence[OutboxRow] = [row(5, TWO)]
    world.transactor.begin(TERM, "me", rows, world.desk)
    assert world.transactor.room() == 4
    await world.answer(ONE)
    assert not world.chain.broadcasts
    assert not world.store.rows
    world.chain.revert = revert("Pausable: paused")
    with pytest.raises(CannotSend):
        await world.answer(ONE)


async def test_run_follows_heads_until_it_is_cancelled(world: World) -> None:
    world.transactor.begin(TERM, "me", await world.store.claim(TERM, "me"), world.desk)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.transactor.run())
        await world.desk.next_look()
        await world.answer(ONE)
        world.chain.mine()
        await world.desk.next_look()
        running.cancel()
    assert world.transactor.counters.mined == 1
    assert world.transactor.looked_at == block(101)
    assert world.transactor.account == ACCOUNT
