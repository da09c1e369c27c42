from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import cast

import pytest

from aggregator.chain.facts import Node
from aggregator.chain.signer import Signer, SignerUnavailable
from aggregator.group import Chronicle, Fitness, discovery
from aggregator.leadership.elected import ElectedLeadership
from aggregator.leadership.elector import Won, boottime
from aggregator.replicas import Redis
from aggregator.store.connection import Access, Address as Place, Server, Tls
from aggregator.store.discovery import Fixed, Sentinels
from aligned.errors import ChainUnavailable
from aligned.model import Address

OURS, OTHER = Address(b"\xaa" * 20), Address(b"\xbb" * 20)


class Chain:
    """The part of ``Node`` and ``Signer`` that fitness asks."""

    def __init__(self) -> None:
        self.aggregator = OURS
        self.chain_away = False
        self.signer_away = False

    async def standing(self, account: Address) -> tuple[Address, int]:
        del account
        if self.chain_away:
            raise ChainUnavailable("no endpoint")
        return self.aggregator, 0

    async def account(self) -> Address:
        if self.signer_away:
            raise SignerUnavailable("no key")
        return OURS


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def fitness(chain: Chain) -> Fitness:
    return Fitness(cast("Node", chain), cast("Signer", chain))


async def test_nobody_is_fit_before_the_contract_was_asked(fitness: Fitness) -> None:
    assert not fitness.signs
    assert await fitness._look()
    assert fitness.signs


async def test_a_signer_that_is_another_account_or_away_is_not_fit(
    chain: Chain, fitness: Fitness, caplog: pytest.LogCaptureFixture
) -> None:
    await fitness._look()
    chain.aggregator = OTHER
    await fitness._look()
    assert not fitness.signs
    assert "cannot lead" in caplog.text
    chain.aggregator = OURS
    await fitness._look()
    assert fitness.signs
    chain.signer_away = True
    await fitness._look()
    assert not fitness.signs


async def test_a_signer_that_is_wrong_from_the_start_is_told_once(
    chain: Chain, fitness: Fitness, caplog: pytest.LogCaptureFixture
) -> None:
    chain.aggregator = OTHER
    await fitness._look()
    await fitness._look()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert OTHER.hex() in caplog.records[0].__dict__["reason"]


async def test_a_chain_that_is_away_says_nothing_about_the_signer(
    chain: Chain, fitness: Fitness
) -> None:
    await fitness._look()
    chain.chain_away = True
    assert not await fitness._look()
    assert fitness.signs


async def test_an_observer_is_always_fit(chain: Chain) -> None:
    fitness = Fitness(cast("Node", chain), None)
    assert fitness.signs
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fitness.run())
        await asyncio.sleep(0)
        running.cancel()
    assert fitness.signs


@dataclass
class Winner:
    """The part of ``ElectedLeadership`` that the chronicle asks."""

    won: Won | None = None


def test_every_takeover_is_told_once_with_its_stages() -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    chronicle, winner = Chronicle(lambda: moment), Winner()
    chronicle.elected = cast("ElectedLeadership", winner)
    chronicle.begun(1)
    assert list(chronicle.failovers) == []
    now = boottime()
    winner.won = Won(2, "other", heard=now - 2.5, began=now - 1.0, won=now - 0.75)
    chronicle.begun(2)
    chronicle.begun(2)
    [failover] = chronicle.failovers
    assert (failover.term, failover.over) == (2, "other")
    assert failover.at == "2026-03-01T12:00:00.250Z"
    assert (failover.detect_ms, failover.elect_ms) == (1500, 250)
    assert failover.resume_ms >= 750


def test_the_first_leader_of_all_took_over_from_nobody() -> None:
    chronicle = Chronicle()
    won = Won(1, "", heard=-inf, began=boottime(), won=boottime())
    chronicle.elected = cast("ElectedLeadership", Winner(won))
    chronicle.begun(1)
    assert (chronicle.failovers[0].over, chronicle.failovers[0].detect_ms) == ("", 0)


def test_a_url_is_one_server_that_keeps_its_address() -> None:
    found = discovery(Redis(url="rediss://me@a:1/2", password_file=Path("secret")))
    access = Access(username="me", password_file=Path("secret"), tls=Tls())
    assert found == Fixed(Server(address=Place("a", 1), access=access, database=2))


def test_sentinels_have_users_of_their_own_and_the_same_tls() -> None:
    settings = Redis(
        sentinels=("a:1", "[::1]:2"),
        master_name="aligned",
        database=3,
        username="server",
        sentinel_username="sentinel",
        tls=True,
        ca_file=Path("ca"),
        check_hostname=False,
    )
    found = discovery(settings)
    tls = Tls(ca_file=Path("ca"), check_hostname=False)
    assert isinstance(found, Sentinels)
    assert found._sentinels == tuple(
        Server(address=place, access=Access(username="sentinel", tls=tls))
        for place in (Place("a", 1), Place("::1", 2))
    )
    assert found._access == Access(username="server", tls=tls)
    assert (found._master, found._database) == ("aligned", 3)
