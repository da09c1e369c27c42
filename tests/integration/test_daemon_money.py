"""What a person has to mend: money, fees, the contract's owner, a key in two places."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from devnet.batcher import ACCOUNTS
from devnet.network import AGGREGATOR, ETHER, OWNER, Network, hexed, transaction
from tests.integration.daemons import (
    AT_ONCE,
    UNHURRIED,
    World,
    merged,
    mining,
    pooled,
    world,
)

GWEI = 10**9
ANSWER_GAS = 400_000
"""More than any answer here takes, with what the contract adds."""

CALM = merged(AT_ONCE, UNHURRIED)


async def mine_at(network: Network, base_fee: int) -> None:
    await network.anvil.set_base_fee(base_fee)
    await network.anvil.mine()


async def withdraw(here: World) -> None:
    await here.batcher.withdraw(await here.network.balance(here.batcher.account))


@dataclass(frozen=True, kw_only=True)
class Trouble:
    spoil: Callable[[World], Awaitable[None]]
    mend: Callable[[World], Awaitable[None]]
    advice: str
    level: str = "error"
    fee_limit: int = ETHER // 100


TROUBLES = {
    "own_funds": Trouble(
        spoil=lambda here: here.network.anvil.set_balance(hexed(AGGREGATOR), 1000),
        mend=lambda here: here.network.anvil.set_balance(hexed(AGGREGATOR), ETHER),
        advice="fund the aggregator's account",
    ),
    "batcher_funds": Trouble(
        spoil=withdraw,
        mend=lambda here: here.batcher.deposit(),
        advice="the batcher must deposit into the service manager",
    ),
    "fee_limit": Trouble(
        spoil=lambda here: mine_at(here.network, 100 * GWEI),
        mend=lambda here: mine_at(here.network, GWEI),
        advice="wait for a lower base fee, or raise submission.max_fee_per_gas",
        level="warning",
        fee_limit=ANSWER_GAS * 10 * GWEI,
    ),
    "paused": Trouble(
        spoil=lambda here: here.network.pause(answers=True),
        mend=lambda here: here.network.pause(),
        advice="wait until the contract's owner resumes it",
        level="warning",
    ),
    "wrong_aggregator": Trouble(
        spoil=lambda here: here.network.set_aggregator(ACCOUNTS[3]),
        mend=lambda here: here.network.set_aggregator(AGGREGATOR),
        advice="configure the key of the contract's aggregator, or have its owner call",
    ),
}


@pytest.mark.parametrize("reason", TROUBLES)
async def test_what_stands_in_the_way_is_named_and_waited_for(
    own_chain: Network, tmp_path: Path, reason: str
) -> None:
    trouble = TROUBLES[reason]
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        here.online(0)
        await here.start()
        await here.told("answers are sent")
        batch = await here.batcher.post(fee_limit=trouble.fee_limit)
        await trouble.spoil(here)
        await here.signed(batch)
        await here.parked(batch, reason)
        line = await here.told(trouble.advice)
        assert (line["level"], line["reason"]) == (trouble.level, reason)
        assert line["batch"] == hexed(batch.batch_id)
        assert here.loaded().outbox == []
        await trouble.mend(here)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_with_another_account_than_the_contracts_nothing_is_sent_until_it_is_ours(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await own_chain.set_aggregator(ACCOUNTS[3])
        await here.start()
        batch = await here.batcher.post()
        await here.parked(batch, "wrong_aggregator")
        line = await here.told("no answers are sent: configure the key of the contract's aggregat")
        assert line["level"] == "error"
        assert hexed(ACCOUNTS[3]) in line["detail"]
        assert hexed(AGGREGATOR) in line["detail"]
        await here.acknowledged(batch, 4)
        assert here.loaded().outbox == []
        await own_chain.set_aggregator(AGGREGATOR)
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_a_key_that_somebody_else_uses_stops_submission_until_a_person_restarts_it(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await here.start()
        await here.told("answers are sent")
        await own_chain.node.call(
            "eth_sendTransaction", transaction(AGGREGATOR, OWNER, b"", gas=21_000)
        )
        async with mining(own_chain.anvil):
            line = await here.told("a nonce of our account was used by a transaction that is not")
            assert line["level"] == "error"
            await here.told("stop the other program that uses this key, then restart the aggreg")
        batch = await here.batcher.post()
        await here.acknowledged(batch, 4)
        await here.parked(batch, "foreign_nonce")
        assert here.loaded().outbox == []
        await here.restart()
        await here.answered_once(batch)
        await here.keeps_its_word()


async def test_an_answer_whose_nonce_somebody_else_took_is_sent_with_another(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path, overrides=CALM) as here:
        await here.start()
        await own_chain.anvil.automine(on=False)
        batch = await here.batcher.post()
        ours = await pooled(own_chain.anvil)
        (row,) = here.loaded().outbox
        foreign = transaction(AGGREGATOR, OWNER, b"", gas=21_000)
        price = hex(3 * row.max_fee)
        await own_chain.node.call(
            "eth_sendTransaction",
            {
                **foreign,
                "nonce": hex(row.nonce),
                "maxFeePerGas": price,
                "maxPriorityFeePerGas": price,
            },
        )
        theirs = await pooled(own_chain.anvil, other_than=ours)
        async with mining(own_chain.anvil):
            await here.told("no answers are sent: stop the other program that uses this key")
            assert not (await own_chain.batch(batch.batch_id)).responded
            await here.restart()
            answer = await here.answered_once(batch)
        assert answer not in {ours, theirs}
        assert {each.nonce for each in here.loaded().outbox} == {row.nonce, row.nonce + 1}
        await here.keeps_its_word()


@pytest.mark.parametrize("in_flight", [1, 4])
async def test_a_stuck_nonce_lets_others_through_and_its_batch_waits_for_its_price(
    own_chain: Network, tmp_path: Path, in_flight: int
) -> None:
    overrides = merged(CALM, {"submission": {"max_in_flight": in_flight}})
    async with world(own_chain, tmp_path, overrides=overrides) as here:
        here.online(0)
        await here.start()
        cheap = await here.batcher.post(fee_limit=ANSWER_GAS * 8 * GWEI)
        rich = [await here.batcher.post() for _ in range(2)]
        await own_chain.anvil.automine(on=False)
        await mine_at(own_chain, GWEI)
        await here.signed(cheap)
        await pooled(own_chain.anvil)
        (stuck,) = here.loaded().outbox
        for batch in rich:
            await here.signed(batch)
        async with mining(own_chain.anvil, 20 * GWEI):
            await here.answered_once(*rich)
            await here.parked(cheap, "fee_limit")
        line = await here.told("wait for a lower base fee, or raise submission.max_fee_per_gas")
        assert line["batch"] == hexed(cheap.batch_id)
        attempts = [row for row in here.loaded().outbox if row.nonce == stuck.nonce]
        assert attempts[-1].batch_id != cheap.batch_id  # another batch, or a transfer to itself
        async with mining(own_chain.anvil, GWEI):
            await here.answered_once(cheap)
        await here.keeps_its_word()
