"""Three daemons: what happens to the leader, and to the lock that it holds.

Which fault is tried where: see ``test_replicas_faults``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from aggregator.journal import opening, reading
from aggregator.outbox import OutboxRow
from devnet.faults import LogLimit
from devnet.network import Network, hexed
from devnet.replicas import Replica, status
from devnet.sentinel import SentinelGroup
from tests.fakes.lease_server import NAME, NAMESPACE, LeaseServer
from tests.integration.daemons import SECONDS, eventually, pooled
from tests.integration.trio import Trio, three

SEND = "eth_sendRawTransaction"


@asynccontextmanager
async def leased(
    chain: Network, group: SentinelGroup, folder: Path, server: LeaseServer
) -> AsyncIterator[Trio]:
    """The same over a Lease; who asks is told by its token, the replica's name."""
    election = {
        "backend": "kubernetes",
        "lease_name": NAME,
        "lease_namespace": NAMESPACE,
        "api_server": server.url,
    }
    each = []
    for index in range(3):
        token = folder / f"token-{index}"
        token.write_text(f"replica-{index}")
        each.append({"election": election | {"token_file": str(token)}})
    async with three(chain, group, folder, each=each, parted=True) as trio:
        yield trio


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as running:
        yield running


@pytest.fixture
async def over_lease(
    chain: Network, group: SentinelGroup, tmp_path: Path, server: LeaseServer
) -> AsyncIterator[Trio]:
    async with leased(chain, group, tmp_path, server) as trio:
        yield trio


async def leads_no_more(replica: Replica) -> None:
    async with asyncio.timeout(SECONDS):
        while (await status(replica))["leads"]:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)


async def lacks(replica: Replica, what: str) -> None:
    """Wait until a replica says that this keeps it from leading."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(aiohttp.ClientError):
                if (await replica.daemon.status())["replicas"]["unfit"] == what:
                    return
            await asyncio.sleep(0.05)


def rows(replica: Replica) -> list[OutboxRow]:
    """Return the outbox in a replica's journal."""
    with opening.read_only(replica.journal) as connection:
        return reading.read_outbox(connection)


def terms_rise(server: LeaseServer) -> bool:
    """Tell whether every change of holder to somebody had a higher term."""
    terms = [term for holder, term in server.history if holder.startswith("replica-")]
    return terms == sorted(set(terms))


# Cut off.


async def test_a_leader_cut_off_from_the_chain_lets_another_lead(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    trio.proxy(leader).faults.hang = True
    successor = await trio.replicas.leader(other_than=leader)
    await trio.told(leader, "cannot do the work", reason="no endpoint with a fresh head")
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    await trio.signed(batch, 3, leader)  # it takes signatures all the same
    trio.proxy(leader).faults.hang = False
    await trio.nothing_is_lost()
    assert (await successor.daemon.status())["role"]["leads"]


async def test_a_leader_cut_off_from_redis_gives_the_lease_up(
    over_lease: Trio, server: LeaseServer
) -> None:
    trio = over_lease
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    trio.cut_off(leader)
    await trio.replicas.leader(other_than=leader)
    await trio.told(leader, "cannot do the work", reason="the shared store does not answer it")
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    trio.reconnect()
    await trio.nothing_is_lost()
    assert terms_rise(server)


async def test_a_leader_cut_off_from_the_lease_is_replaced_and_stops(
    over_lease: Trio, server: LeaseServer
) -> None:
    trio = over_lease
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    server.hang_for = {leader.name}
    successor = await trio.replicas.leader(other_than=leader)
    await leads_no_more(leader)
    await trio.told(leader, "another replica leads", reason=f"of {successor.name}")
    await trio.signed_at(batch, trio.replicas.all)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()
    server.hang_for = set()
    assert terms_rise(server)


# New.


async def test_a_replica_with_an_empty_disk_leads_only_when_it_has_read_the_chain(
    trio: Trio,
) -> None:
    fresh, full, _ = trio.replicas.all
    trio.proxy(fresh).faults.log_limit = LogLimit(blocks=0)
    fresh.daemon.start()
    await lacks(fresh, "it has not read all operators from the registry yet")
    full.daemon.start()
    await full.daemon.ready()
    assert await trio.replicas.leader() is full
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, full)
    await trio.signed(batch, 1, full)
    await full.daemon.terminate()
    assert not [line for line in trio.lines(fresh) if line["event"] == "won the lock"]
    trio.proxy(fresh).faults.log_limit = None
    await fresh.daemon.ready()
    assert await trio.replicas.leader() is fresh
    await trio.signed(batch, 2, fresh)
    await trio.answered_once(batch)
    await trio.nothing_is_lost(of=[fresh])


# Killed in the middle.


async def test_killed_between_persisting_and_broadcasting_its_successor_sends_the_same_bytes(
    trio: Trio,
) -> None:
    leader = await trio.replicas.start()
    for proxy in trio.proxies:
        proxy.faults.hanging.add(SEND)
    batch = await trio.batcher.post()
    await trio.signed_at(batch, trio.replicas.all)
    await trio.proxy(leader).held()
    leader.daemon.kill()
    assert await trio.network.anvil.pool() == []
    [row] = rows(leader)
    for proxy in trio.proxies:
        proxy.faults.hanging.clear()
    await trio.replicas.leader(other_than=leader)
    await trio.answered_once(batch)
    assert await trio.network.answers(batch.merkle_root, batch.sender) == [hexed(row.hash)]
    await trio.nothing_is_lost(of=trio.standbys(leader))
    leader.daemon.start()
    await leader.daemon.ready()
    await trio.nothing_is_lost()


async def test_killed_between_broadcasting_and_the_receipt_its_successor_sends_nothing_else(
    trio: Trio,
) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.network.anvil.automine(on=False)
    await trio.signed_at(batch, trio.replicas.all)
    waiting = await pooled(trio.network.anvil)
    leader.daemon.kill()
    successor = await trio.replicas.leader(other_than=leader)
    await trio.told(successor, "answers are sent")
    assert await pooled(trio.network.anvil) == waiting
    await trio.network.anvil.automine(on=True)
    await trio.network.anvil.mine()
    await trio.answered_once(batch)
    assert await trio.network.answers(batch.merkle_root, batch.sender) == [waiting]
    await trio.nothing_is_lost(of=trio.standbys(leader))


# The Lease.


async def test_a_lease_deleted_by_hand_and_made_again_does_not_turn_terms_back(
    over_lease: Trio, server: LeaseServer
) -> None:
    trio = over_lease
    leader = await trio.replicas.start()
    first, second = [await trio.batcher.post() for _ in range(2)]
    server.delete()
    await trio.signed_at(first, trio.replicas.all)
    await trio.answered_once(first)  # by the store's word
    assert (await leader.daemon.status())["role"]["leads"]
    before = (await leader.daemon.status())["role"]["term"]
    server.create(term=0)
    await eventually(lambda: server.term > before, "a term above the fence")
    # By nobody in term 0, or already by the standby that saw the new Lease first.
    await trio.told(leader, "another replica leads", reason="the lock is held by")
    await trio.replicas.leader()
    await trio.signed_at(second, trio.replicas.all)
    await trio.answered_once(first, second)
    await trio.nothing_is_lost()


async def test_a_lease_edited_by_hand_costs_a_term_and_nothing_else(
    over_lease: Trio, server: LeaseServer
) -> None:
    trio = over_lease
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    server.edit(holderIdentity="somebody", leaseTransitions=40)
    await trio.told(leader, "another replica leads", reason="held by somebody in term 40")
    await eventually(lambda: server.term == 41, "a term above what was written")
    await trio.replicas.leader()
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


async def test_an_api_server_that_is_paused_while_the_leader_dies_only_delays(
    over_lease: Trio, server: LeaseServer
) -> None:
    trio = over_lease
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    server.hang = True
    leader.daemon.kill()
    await trio.signed_by_the_others(batch, leader)  # acknowledged all the same
    asked = len(server.tokens)
    await eventually(lambda: len(server.tokens) > asked + 4, "both go on asking")
    assert [(await status(one))["leads"] for one in trio.standbys(leader)] == [False, False]
    assert await trio.network.answers(batch.merkle_root, batch.sender) == []
    server.hang = False
    successor = await trio.replicas.leader(other_than=leader)
    await trio.answered_once(batch)
    await trio.nothing_is_lost(of=trio.standbys(leader))
    [failover] = (await successor.daemon.status())["replicas"]["failovers"]
    assert failover["over"].startswith(leader.name)
    line = await trio.told(successor, "took over")
    assert line["over"] == failover["over"]
    assert terms_rise(server)
