"""Three daemons over one Redis: every fault that the promise names, one story each.

In each of them nothing acknowledged is lost, nothing is answered twice, every batch is answered in
the end, and the log says what happened. All of them at once and at random: ``tests/nemesis``.

======================================  ==========================================================
fault                                   story
======================================  ==========================================================
*Redis*
primary killed, paused, wiped,          test_replicas: nothing_is_lost_with_the_primary
restarted empty
primary partitioned                     test_redis_sharing: ..._when_the_primary_is[cut off]
all restarted, empty                    here: all_servers_restarted_at_once
all restarted, replicas too             test_replicas: an_emptied_redis_is_filled_again
script cache flushed                    here: a_flushed_script_cache
another deployment's identity           test_replicas: a_redis_of_another_deployment_is_refused;
                                        while it runs, test_redis_sharing: sharing_ends_at_...
a row that nobody reads                 here: beside_a_row_that_nobody_reads
memory limit reached                    here: a_redis_at_its_memory_limit
unreachable for one replica only        here: a_replica_that_alone_is_cut_off
unreachable for all, ten minutes        here: ten_minutes_without_redis
*Replica*
SIGKILL, SIGTERM                        test_replicas: the_successor_of_a_killed_leader,
                                        the_leader_that_is_told_to_stop
SIGSTOP, SIGCONT                        test_replicas: a_leader_that_wakes_after_its_successor
event loop blocked for 5 s              here: a_leader_whose_loop_is_blocked; without peers,
                                        test_loop_blocked
disk full                               here: a_replica_whose_disk_is_full,
                                        a_journal_on_a_full_disk
journal wiped                           here: wiped_journals
journal damaged                         test_replicas: a_damaged_journal_is_set_aside
journal full of what is settled         here: what_was_settled_while_a_replica_was_away
*Leader*
cut off from Redis only                 test_replicas_leader: cut_off_from_redis
cut off from the election store only    test_replicas_leader: cut_off_from_the_lease
cut off from the chain only             test_replicas_leader: cut_off_from_the_chain
killed between persisting and           test_replicas_leader: killed_between_persisting_and_...
broadcasting
stopped there, deposed, woken           test_transactor: a_leader_deposed_between_recording_and_...
killed between broadcasting and the     test_replicas_leader: killed_between_broadcasting_and_...
receipt
zombie after its successor acted        test_replicas: a_leader_that_wakes_after_its_successor
term claimed behind the fence           test_replicas_leader: a_lease_deleted_by_hand;
                                        test_election_lease: terms_begin_above_...
Lease deleted, edited by hand           test_replicas_leader: a_lease_deleted, ..._edited_by_hand
API server paused, healthy leader       test_replicas: a_lease_elects_as_well_and_is_not_needed
API server paused, dying leader         test_replicas_leader: an_api_server_that_is_paused
*Operators*
retries through a rolling restart       test_replicas: a_rolling_restart_under_load
*Releases*
N beside N-1                            test_redis_releases; bytes of N-1: store/test_records
======================================  ==========================================================
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from aggregator import app, configure
from aggregator.journal import opening, reading
from devnet.replicas import Replica
from devnet.sentinel import SentinelGroup
from tests.integration.daemons import SECONDS, eventually, fill_up, mining, small_disk
from tests.integration.trio import Trio

TEN_MINUTES = 600
"""Of devnet time: the chain's clock is put forward."""

BLOCKED_SECONDS = 5.0
FINALITY = 70
"""Blocks after which an answer is final on the devnet."""


def ports(group: SentinelGroup) -> list[int]:
    return [machine.port for machine in group.machines]


async def is_unfit(replica: Replica, why: str) -> None:
    async with asyncio.timeout(SECONDS):
        while (await replica.daemon.status())["replicas"]["unfit"] != why:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)


def keys_of(trio: Trio, name: str) -> str:
    deployment = trio.network.deployment
    return f"{{aligned:{deployment.chain_id}:{deployment.service_manager.hex()}}}:{name}"


# Redis.


async def test_beside_a_row_that_nobody_reads_replicas_take_signatures_and_answer_once_it_is_gone(
    trio: Trio,
) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    port, outbox = trio.group.machines[trio.group.primary()].port, keys_of(trio, "outbox")
    trio.group.ask(port, "HSET", outbox, "a field", "what is no row")
    why = "it cannot read the shared outbox"
    for replica in trio.replicas.all:
        await is_unfit(replica, why)
        assert "aligned_aggregator_outbox_readable 0.0" in await replica.daemon.metrics()
    await trio.told(leader, "this replica cannot do the work", reason=why)
    await trio.signed_by_the_others(batch, leader)
    assert batch.batch_id not in await trio.network.all_answers()
    trio.group.ask(port, "HDEL", outbox, "a field")
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


async def test_all_servers_restarted_at_once_and_empty_lose_nothing(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    primary = trio.group.primary()
    for index in range(len(trio.group.machines)):
        trio.group.kill(index)
    for index in range(len(trio.group.machines)):
        trio.group.start_server(index, primary=primary)
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()
    said = [
        line["event"]
        for replica in trio.replicas.all
        for line in trio.lines(replica)
        if line["level"] == "warning"
    ]
    assert any("the primary had forgotten signatures; they were restored" in one for one in said)


async def test_a_flushed_script_cache_is_filled_again_unnoticed(trio: Trio) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, leader)
    for port in ports(trio.group):
        trio.group.ask(port, "SCRIPT", "FLUSH")
    await trio.signed_by_the_others(batch, leader)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()
    assert not any(line["level"] == "warning" for one in trio.standbys(leader)
                   for line in trio.lines(one))  # fmt: skip


async def test_a_redis_at_its_memory_limit_acknowledges_nothing_until_it_has_room(
    trio: Trio,
) -> None:
    leader = await trio.replicas.start()
    batch = await trio.batcher.post()
    for port in ports(trio.group):
        trio.group.ask(port, "CONFIG", "SET", "maxmemory", "1")
    async with asyncio.TaskGroup() as tasks:
        for who, replica in enumerate(trio.replicas.all):
            tasks.create_task(trio.signed(batch, who, replica))
        for who, replica in enumerate(trio.replicas.all):
            await trio.journals(replica, batch, who)
            await trio.told(replica, "the store confirms nothing", reason="OOM")
        assert trio.promised() == set()
        for port in ports(trio.group):
            trio.group.ask(port, "CONFIG", "SET", "maxmemory", "0")
    await trio.answered_once(batch)
    await trio.nothing_is_lost()
    assert "work is suspended" in leader.daemon.log_text()


@pytest.mark.parametrize("which", ["leader", "standby"])
async def test_a_replica_that_alone_is_cut_off_from_redis_keeps_what_it_gets(
    which: str, trio: Trio
) -> None:
    leader = await trio.replicas.start()
    lonely = leader if which == "leader" else trio.standbys(leader)[0]
    others = trio.standbys(lonely)
    batch, later = [await trio.batcher.post() for _ in range(2)]
    trio.cut_off(lonely)
    await trio.told(lonely, "the shared store is away")
    if which == "leader":
        await trio.replicas.leader(other_than=leader)
    async with asyncio.TaskGroup() as tasks:
        held = tasks.create_task(trio.signed(later, 3, lonely))
        await trio.journals(lonely, later, 3)
        for who in range(3):
            await trio.signed(batch, who, others[who % 2])
        for who in range(2):
            await trio.signed(later, who, others[who % 2])
        await trio.answered_once(batch)
        assert not held.done()
        trio.reconnect()
    await trio.answered_once(batch, later)
    await trio.nothing_is_lost()
    await trio.told(lonely, "the shared store is back")


async def test_after_ten_minutes_without_redis_everything_that_was_journalled_counts(
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
            await trio.journals(replica, batch, who)
        for replica in trio.replicas.all:  # held for 25 s, then the operator tries elsewhere
            await trio.told(replica, "the store confirms nothing: signatures are in the journal")
        await trio.network.anvil.node.call("evm_increaseTime", TEN_MINUTES)
        await trio.network.anvil.mine(TEN_MINUTES // 12)
        assert trio.promised() == set()
        assert await trio.network.answers(batch.merkle_root, batch.sender) == []
        for index in range(len(trio.group.machines)):
            trio.group.resume(index)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


# A replica.


async def test_a_leader_whose_loop_is_blocked_for_five_seconds_is_replaced(
    trio: Trio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    blocked, *others = trio.replicas.all
    settings = configure.load(blocked.journal.with_suffix(".yaml"), {})
    async with asyncio.timeout(2 * SECONDS), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(app.run(settings, {}))
        await leads(blocked)
        for replica in others:
            replica.daemon.start()
            await replica.daemon.ready()
        batch = await trio.batcher.post()
        await trio.signed(batch, 0, blocked)
        threading.Event().wait(BLOCKED_SECONDS)  # what this is about
        successor = await trio.replicas.leader(other_than=blocked)
        for who, replica in enumerate(others, start=1):
            await trio.signed(batch, who, replica)
        await trio.answered_once(batch)
        await trio.nothing_is_lost()
        assert (await successor.daemon.status())["role"]["term"] > 1
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    assert "this replica cannot do the work" in caplog.text
    assert "its main loop hangs" in [vars(one).get("reason") for one in caplog.records]


@pytest.mark.skipif(sys.platform != "linux", reason="no limit for another process")
@pytest.mark.parametrize("which", ["leader", "standby"])
async def test_a_replica_whose_disk_is_full_ends_and_the_others_go_on(
    which: str, trio: Trio
) -> None:
    leader = await trio.replicas.start()
    full = leader if which == "leader" else trio.standbys(leader)[0]
    others = trio.standbys(full)
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, full)
    size = full.journal.with_name(full.journal.name + "-wal").stat().st_size
    resource.prlimit(full.daemon.pid, resource.RLIMIT_FSIZE, (size, size))
    async with asyncio.TaskGroup() as tasks:
        kept = tasks.create_task(trio.signed(batch, 3, full))
        assert await full.daemon.ended() == 1
        line = trio.lines(full)[-1]
        assert (line["level"], line["event"]) == ("critical", "the aggregator stops")
        assert "then start again" in line["why"]
        for who, replica in enumerate(others, start=1):
            await trio.signed(batch, who, replica)
        await trio.answered_once(batch)
        assert not kept.done()
        full.daemon.start()  # with room again
        await full.daemon.ready()
    await trio.answered_once(batch)
    await trio.nothing_is_lost()


async def test_a_journal_on_a_full_disk_is_left_alone_and_used_once_there_is_room(
    trio: Trio, tmp_path: Path
) -> None:
    leader = await trio.replicas.start()
    full = trio.standbys(leader)[0]
    batch = await trio.batcher.post()
    await trio.signed(batch, 0, full)
    assert await full.daemon.terminate() == 0
    folder = full.journal.parent
    files = shutil.copytree(folder, tmp_path / "files")
    with small_disk(folder):
        shutil.copytree(files, folder, dirs_exist_ok=True)
        mend = fill_up(folder)
        for _ in range(2):
            full.daemon.start()
            assert await full.daemon.ended() == 1
            line = trio.lines(full)[-1]
            assert (line["level"], line["kind"]) == ("critical", "DiskRefused")
        assert "set aside" not in full.daemon.log_text()
        await trio.signed_by_the_others(batch, full)
        await trio.answered_once(batch)
        mend()
        assert list(folder.glob("*damaged*")) == []
        full.daemon.start()
        await full.daemon.ready()
        await trio.nothing_is_lost()


async def test_wiped_journals_are_filled_from_the_others(trio: Trio) -> None:
    await trio.replicas.start()
    batch = await trio.batcher.post()
    for who, replica in enumerate(trio.replicas.all[:2]):
        await trio.signed(batch, who, replica)
    for replica in trio.replicas.all:
        await trio.holds(replica, batch, 2)
    for replica in trio.replicas.all:
        replica.daemon.kill()
        for file in replica.journal.parent.glob(f"{replica.journal.name}*"):
            file.unlink()
        replica.daemon.start()
        await replica.daemon.ready()
        await trio.holds(replica, batch, 2)
        await trio.nothing_is_lost()
    await trio.signed(batch, 2, trio.replicas.all[2])
    await trio.answered_once(batch)
    assert [trio.lines(one)[-1]["level"] for one in trio.replicas.all] != ["critical"] * 3


async def test_what_was_settled_while_a_replica_was_away_does_not_come_back_with_it(
    trio: Trio,
) -> None:
    leader = await trio.replicas.start()
    away = trio.standbys(leader)[0]
    port = trio.group.machines[trio.group.primary()].port
    batch = await trio.batcher.post()
    await trio.signed_at(batch, trio.replicas.all)
    await trio.answered_once(batch)
    await trio.nothing_is_lost()
    await eventually(lambda: len(outbox(away)) == 1, "the row is in its journal")
    away.daemon.kill()
    await trio.network.anvil.mine(FINALITY)
    async with mining(trio.network.anvil):  # what is settled is swept at each head
        for name in ("outbox", "open"):
            key = keys_of(trio, name)
            await eventually(
                lambda key=key: trio.group.ask(port, "EXISTS", key) == "0",  # type: ignore[misc] # a loop's default
                f"no {name}",
            )
    log = keys_of(trio, "log")
    before = trio.group.ask(port, "XINFO", "STREAM", log)
    away.daemon.start()
    await away.daemon.ready()
    await in_sync(away)
    async with mining(trio.network.anvil):
        await eventually(lambda: outbox(away) == [] and away.kept() == set(), "it forgets as well")
    assert [trio.group.ask(port, "EXISTS", keys_of(trio, name)) for name in ("outbox", "open")] == [
        "0",
        "0",
    ]
    assert entries_of(trio.group.ask(port, "XINFO", "STREAM", log)) == entries_of(before)
    again = await trio.batcher.post()
    await trio.signed_at(again, trio.replicas.all)
    await trio.answered_once(batch, again)


def outbox(replica: Replica) -> list[int]:
    """Return the nonces in a replica's journal."""
    with opening.read_only(replica.journal) as connection:
        return [row.nonce for row in reading.read_outbox(connection)]


def entries_of(answer: str) -> str:
    """Return how many records were ever written to a stream."""
    lines = answer.split("\n")
    return lines[lines.index("entries-added") + 1]


async def leads(replica: Replica) -> None:
    """Wait until a replica leads that is no process of its own."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(aiohttp.ClientError):
                if (await replica.daemon.status())["role"]["leads"]:
                    return
            await asyncio.sleep(0.05)


async def in_sync(replica: Replica) -> None:
    async with asyncio.timeout(SECONDS):
        while not (await replica.daemon.status())["replicas"]["store"]["in_sync"]:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
