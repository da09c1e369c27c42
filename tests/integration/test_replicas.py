"""Three daemons over one Redis: whatever dies, nothing acknowledged is lost or answered twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devnet.network import Network
from devnet.sentinel import SentinelGroup
from tests.fakes.lease_server import NAME, NAMESPACE, LeaseServer
from tests.integration.daemons import eventually
from tests.integration.trio import Trio, three


@pytest.fixture
async def trio(chain: Network, group: SentinelGroup, tmp_path: Path) -> AsyncIterator[Trio]:
    """Not started; operators see batches and sign at whichever replica they get."""
    async with three(chain, group, tmp_path) as trio:
        yield trio


async def test_operators_at_different_replicas_make_one_answer(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed_at(batch, trio.replicas.all)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()
    roles = [(await replica.daemon.status())["role"] for replica in trio.replicas.all]
    assert [role["leads"] for role in roles] == [replica is leader for replica in trio.replicas.all]


async def test_the_successor_of_a_killed_leader_answers_with_what_that_one_acknowledged(
    trio: Trio,
) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    await trio.signed(batch, 1, leader)
    leader.daemon.kill()
    successor = await trio.replicas.leader(other_than=leader)
    await trio.signed(batch, 2, successor)
    await trio.answered_once(batch)
    await trio.nothing_is_lost(of=trio.standbys(leader))
    leader.daemon.start()
    await leader.daemon.ready()
    await trio.nothing_is_lost()


async def test_a_leader_that_wakes_after_its_successor_acted_answers_nothing(trio: Trio) -> None:
    leader = await trio.replicas.start()
    first = await trio.batcher.post()
    for who in (0, 1):
        await trio.signed(first, who, leader)
    leader.daemon.signal(signal.SIGSTOP)
    successor = await trio.replicas.leader(other_than=leader)
    await trio.signed(first, 2, successor)
    await trio.answered_once(first)
    second = await trio.batcher.post()
    leader.daemon.signal(signal.SIGCONT)
    for who in range(3):
        await trio.signed(second, who, successor)
    await trio.answered_once(first, second)
    await trio.nothing_is_lost()
    assert (await successor.daemon.status())["role"]["leads"]
    assert not (await leader.daemon.status())["role"]["leads"]


@pytest.mark.parametrize("fault", ["killed", "frozen", "wiped", "restarted empty"])
async def test_nothing_is_lost_with_the_primary(fault: str, trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    primary = trio.group.primary()
    match fault:
        case "killed":
            trio.group.kill(primary)
        case "frozen":
            trio.group.pause(primary)
        case "wiped":
            trio.group.wipe()
        case _:
            trio.group.restart(primary)
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


async def test_while_redis_is_away_signatures_are_journalled_and_not_acknowledged(
    trio: Trio,
) -> None:
    await trio.replicas.start()
    batch = await trio.batcher.post()
    for index in range(len(trio.group.machines)):
        trio.group.pause(index)
    async with asyncio.TaskGroup() as tasks:
        for who, replica in enumerate(trio.replicas.all):
            tasks.create_task(trio.signed(batch, who, replica))
        for who, replica in enumerate(trio.replicas.all):
            mine = (batch.batch_id, trio.network.operators[who].operator_id)
            await eventually(
                lambda replica=replica, mine=mine: mine in replica.kept(),  # type: ignore[misc] # a loop's default
                f"{replica.name} journals it",
            )
        assert trio.promised() == set()
        for index in range(len(trio.group.machines)):
            trio.group.resume(index)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


async def test_an_emptied_redis_is_filled_again_from_the_replicas(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    for replica in trio.replicas.all:
        await trio.holds(replica, batch, 1)
    primary = trio.group.primary()
    others = {machine.index for machine in trio.group.machines} - {primary}
    for index in (*others, primary):  # a primary without replicas stays the primary
        trio.group.kill(index)
    for replica in trio.replicas.all:
        replica.daemon.kill()
    for index in (primary, *others):
        trio.group.start_server(index, primary=None if index == primary else primary)
    await trio.replicas.start()
    for replica in trio.replicas.all:
        await trio.holds(replica, batch, 1)
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


async def test_a_redis_of_another_deployment_is_refused(trio: Trio) -> None:
    await trio.replicas.start()
    for replica in trio.replicas.all:
        assert await replica.daemon.terminate() == 0
    deployment = trio.network.deployment
    meta = f"{{aligned:{deployment.chain_id}:{deployment.service_manager.hex()}}}:meta"
    port = trio.group.machines[trio.group.primary()].port
    trio.group.ask(port, "HSET", meta, "identity", "another one")
    replica = trio.replicas.all[0]
    replica.daemon.start()
    assert await replica.daemon.ended() == 1
    assert "holds another deployment's state (another one)" in replica.daemon.tail()


async def test_a_damaged_journal_is_set_aside_and_filled_from_the_others(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    other = trio.standbys(leader)[0]
    await trio.holds(other, batch, 1)
    await other.daemon.terminate()
    other.journal.write_bytes(other.journal.read_bytes()[:5000])
    other.daemon.start()
    await other.daemon.ready()
    await trio.holds(other, batch, 1)
    assert "was set aside" in other.daemon.log_text()
    assert other.journal.with_name(other.journal.name + ".damaged-1").exists()
    await trio.nothing_is_lost()


async def test_a_rolling_restart_under_load_loses_nothing(trio: Trio) -> None:
    await trio.replicas.start()
    for operator in trio.fleet.operators:
        operator.online = True
    batches = []
    for replica in trio.replicas.all:
        batches.append(await trio.batcher.post())
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(replica.daemon.terminate())
            batches.append(await trio.batcher.post())
        assert stopping.result() == 0, replica.daemon.tail()
        replica.daemon.start()
        await replica.daemon.ready()
    batches.append(await trio.batcher.post())
    for batch in batches:
        await trio.acknowledged(batch, 4)
    await trio.answered_once(*batches)
    await trio.nothing_is_lost()


async def test_the_leader_that_is_told_to_stop_hands_over(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    assert await leader.daemon.terminate() == 0
    successor = await trio.replicas.leader(other_than=leader)
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    [failover] = (await successor.daemon.status())["replicas"]["failovers"]
    assert failover["over"] == ""


async def test_a_lease_elects_as_well_and_is_not_needed_by_a_healthy_leader(
    chain: Network, group: SentinelGroup, tmp_path: Path
) -> None:
    with LeaseServer() as server:
        (tmp_path / "token").write_text("replica")
        election = {
            "backend": "kubernetes",
            "lease_name": NAME,
            "lease_namespace": NAMESPACE,
            "api_server": server.url,
            "token_file": str(tmp_path / "token"),
        }
        async with three(chain, group, tmp_path, election=election) as trio:
            leader = await trio.replicas.start()
            first = await trio.batcher.post()
            server.hang = True
            await trio.signed_at(first, trio.replicas.all)
            await trio.answered_once(first)
            assert (await leader.daemon.status())["role"]["leads"]
            server.hang = False
            leader.daemon.kill()
            successor = await trio.replicas.leader(other_than=leader)
            second = await trio.batcher.post()
            for who in range(3):
                await trio.signed(second, who, successor)
            await trio.answered_once(first, second)
            terms = [term for _, term in server.history]
            assert terms == sorted(terms)
