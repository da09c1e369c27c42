"""Pods of a managed Redis, as the controller renders them, on real servers."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.store.redis import RedisStore
from aggregator.store.sharing import Sharing
from aligned.errors import Deposed, StoreUnavailable
from aligned.model import Entry, Term
from controller.desired import redis
from controller.names import SENTINEL_PORT
from controller.redis_node.render import Unusable
from controller.redis_node.rule import Configuration
from controller.redis_node.start import NoHairpin, start
from tests.fakes.builders import entry
from tests.fakes.redis import HeldInMemory, a_row, identity
from tests.integration.redis_pods import Pods, programs, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="pods need loopback addresses of their own: run it on Linux"
)

SERVERS = pytest.mark.parametrize("pods", ["valkey", "redis"], indirect=True)


@pytest.fixture
async def pods(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pods]:
    found = programs(getattr(request, "param", "valkey"), tmp_path / "programs")
    group = Pods(tmp_path / "pods", found)
    try:
        yield group
    finally:
        group.close()


def store(pods: Pods, writer: str = "a") -> RedisStore:
    return RedisStore(pods.discovery(), identity(), writer=writer)


async def put(one: RedisStore, entries: list[Entry]) -> None:
    """Until it is acknowledged, as the daemon does."""
    until_when = asyncio.get_running_loop().time() + 120
    while True:
        try:
            return await one.put(entries)
        except StoreUnavailable:
            if asyncio.get_running_loop().time() > until_when:
                raise
            await asyncio.sleep(0.05)


async def held(pods: Pods, batch: Entry) -> int:
    """How many signatures of a batch the primary has."""
    async with aclosing(store(pods, "reader")) as one:
        return len((await one.signatures([batch.batch_id]))[batch.batch_id])


async def refused(pods: Pods, ordinal: int) -> list[str]:
    """Commands that a user of a server was not allowed to run."""
    reply = str(await pods.ask("failover", ordinal, "INFO", "commandstats"))
    return [
        line
        for line in re.findall(r"cmdstat_(\S+?):.*rejected_calls=[1-9]", reply)
        if line != "ping"  # a replica's first word, before it logs in
    ]


@SERVERS
async def test_three_that_start_at_once_agree_on_pod_0(pods: Pods) -> None:
    went = await pods.start(0, 1, 2)
    assert set(went.values()) == {Configuration(pods.addresses[0], 0)}
    assert await pods.settle(0, 1, 2) == 0
    assert [await pods.hook(0, "probe.sh", what) for what in ("alive", "ready", "sentinel")] == [
        0,
        0,
        0,
    ]


@SERVERS
async def test_no_user_lacks_a_right_through_start_stop_and_failover(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    await pods.stop(0)
    await pods.start(0)
    pods.kill(await pods.settle(0, 1, 2))
    alive = [i for i in range(3) if await pods.role(i)]
    await pods.settle(*alive)
    async with aclosing(store(pods)) as one:
        await put(one, [entry()])
    assert [await refused(pods, ordinal) for ordinal in alive] == [[], []]


@SERVERS
async def test_a_pod_that_starts_among_others_follows_whom_they_name(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    pods.kill(0)
    other = await pods.settle(1, 2)
    assert (await pods.start(0))[0].primary == pods.addresses[other]
    assert await pods.settle(0, 1, 2) == other


@pytest.mark.parametrize("ask_seconds", [10.0, 0.0], ids=["asks on", "has asked"])
@SERVERS
async def test_a_primary_that_is_back_at_once_leaves_its_place_to_one_with_the_data(
    pods: Pods, ask_seconds: float
) -> None:
    pods.pods[0].place = replace(pods.pods[0].place, ask_seconds=ask_seconds)
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    async with aclosing(store(pods)) as one:
        await put(one, [entry(by=i) for i in range(5)])
    pods.kill(0)
    went = await pods.start(0)
    assert went[0].primary != pods.addresses[0]
    assert went[0].epoch > 0
    assert await pods.settle(0, 1, 2) != 0
    assert await held(pods, entry()) == 5


@SERVERS
async def test_a_server_that_restarts_inside_its_pod_leaves_its_place_as_well(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    async with aclosing(store(pods)) as one:
        await put(one, [entry(by=i) for i in range(5)])
    pods.kill_server(0)
    pods.start_server(0)
    assert await pods.settle(0, 1, 2) != 0
    assert await held(pods, entry()) == 5


async def test_a_replica_that_restarts_inside_its_pod_follows_whom_sentinels_name_by_then(
    pods: Pods,
) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    pods.kill_server(2)
    pods.kill(0)
    await pods.settle(1, primary=1)
    pods.start_server(2)
    await pods.settle(1, 2, primary=1)


async def test_a_sentinel_that_restarts_inside_its_pod_goes_on_as_it_was(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    await pods.stop(0)
    await pods.start(0)
    primary = await pods.settle(0, 1, 2)
    sentinel = pods.pods[1].sentinel
    assert sentinel is not None
    sentinel.kill()
    pods.start_sentinel(1)
    assert await pods.settle(0, 1, 2) == primary


@SERVERS
async def test_all_killed_at_once_and_again_leave_one_primary(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    for _ in range(3):
        pods.kill(0, 1, 2)
        await pods.start(0, 1, 2)
        await pods.settle(0, 1, 2)
    async with aclosing(store(pods)) as one:
        await put(one, [entry()])


@SERVERS
async def test_a_group_that_starts_without_pod_0_elects_another(pods: Pods) -> None:
    pods.hurry()
    went = await pods.start(1, 2)
    assert set(went.values()) == {Configuration(pods.addresses[0], 0)}
    primary = await pods.settle(1, 2)
    assert primary != 0
    assert (await pods.start(0))[0].primary == pods.addresses[primary]
    assert await pods.settle(0, 1, 2) == primary


async def test_pods_that_decided_apart_agree_once_they_meet(pods: Pods) -> None:
    pods.hurry()
    await pods.start(1, 2)
    primary = await pods.settle(1, 2)
    pods.signal_sentinels(signal.SIGSTOP, 1, 2)
    alone = await pods.start(0)
    pods.signal_sentinels(signal.SIGCONT, 1, 2)
    assert alone[0] == Configuration(pods.addresses[0], 0)
    assert await pods.settle(0, 1, 2) == primary


@SERVERS
async def test_a_changed_address_needs_no_more_than_restarts(pods: Pods) -> None:
    pods.hurry()
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    pods.kill(0)  # nobody can reach it any more
    pods.move(0)
    for ordinal in (2, 1):
        await pods.stop(ordinal)
        await pods.start(ordinal)
    await pods.start(0)
    await pods.settle(0, 1, 2)
    async with aclosing(store(pods)) as one:
        await put(one, [entry()])


@SERVERS
async def test_a_changed_password_needs_no_more_than_restarts(pods: Pods) -> None:
    pods.hurry()
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    pods.passwords = redis.new_passwords(iter(f"new-password-{i}" for i in range(9)).__next__)
    for ordinal in (2, 1, 0):
        await pods.stop(ordinal)
        await pods.start(ordinal)
    await pods.settle(0, 1, 2)
    async with aclosing(store(pods)) as one:
        await put(one, [entry()])


@SERVERS
async def test_a_stopped_primary_hands_over_before_it_ends_and_nothing_acknowledged_is_lost(
    pods: Pods,
) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    acknowledged: list[Entry] = []

    async def load(writer: str, first: int) -> None:
        async with aclosing(store(pods, writer)) as one:
            for number in range(first, 1_000_000, 4):
                await put(one, [entry(by=number)])
                acknowledged.append(entry(by=number))

    async with asyncio.TaskGroup() as loading:
        tasks = [loading.create_task(load(f"w{i}", i)) for i in range(4)]
        await until(lambda: len(acknowledged) > 100, "writes are acknowledged")
        assert await pods.hook(0, "stop.sh") == 0
        assert await pods.named(1) == await pods.named(2) != 0
        pods.kill(0)
        soon = len(acknowledged) + 100
        await until(lambda: len(acknowledged) > soon, "writes are acknowledged again")
        for task in tasks:
            task.cancel()
    assert await held(pods, entry()) >= len(acknowledged)


async def test_a_sentinel_stays_until_the_server_has_handed_over(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    hold = pods.run(0, "hold.sh")
    assert await pods.hook(0, "probe.sh", "alive") == 0
    assert hold.code is None
    assert await pods.hook(0, "stop.sh") == 0
    await until(lambda: hold.code == 0, "the Sentinel may go")


@SERVERS
async def test_the_daemons_store_may_do_all_it_does(pods: Pods) -> None:
    await pods.start(0, 1, 2)
    await pods.settle(0, 1, 2)
    term, row = Term(1), a_row(0)
    async with aclosing(store(pods, "a")) as one, aclosing(store(pods, "b")) as two:
        await put(one, [entry()])
        assert await one.claim(term, "me") == []
        await one.confirm(term, "me")
        await one.record(term, "me", row)
        await one.evict(term, "me", [entry()])
        assert await one.rows() == [row]
        assert len((await one.beat("pod", b"{}")).members) == 1
        assert (await one.swap("", "1", b"held"))[0]
        assert not (await one.swap("", "1", b"held"))[0]
        assert (await two.claim(Term(2), "you")) == [row]
        with pytest.raises(Deposed):
            await one.record(term, "me", a_row(1))
        await two.drop_rows(Term(2), "you", [row])
        await two.put([entry(2)])
        await two.forget([entry(2).batch_id])
        sharing = Sharing(one, HeldInMemory())
        await sharing.merge()
        await sharing.unite()


async def test_without_a_way_to_itself_a_pod_does_not_start(pods: Pods) -> None:
    pods.prepare(0)
    place = replace(pods.pods[0].place, listen=pods.addresses[1], hairpin_seconds=1)
    with pytest.raises(NoHairpin, match=r"cannot reach itself .*nobody answered.*hairpin"):
        await start(place, "agg-redis-0")
    assert list(place.data.iterdir()) == []


async def test_a_way_that_leads_to_another_pod_is_none(pods: Pods) -> None:
    pods.hurry()
    await pods.start(1)
    pods.prepare(0)
    nodes = pods.pods[0].place.config / "nodes"
    nodes.write_text(nodes.read_text().replace(pods.addresses[0], pods.addresses[1]))
    place = replace(pods.pods[0].place, hairpin_seconds=1)
    with pytest.raises(NoHairpin, match=r"somebody else answered"):
        await start(place, "agg-redis-0")


async def test_a_pod_beyond_the_group_does_not_start(pods: Pods) -> None:
    pods.prepare(0)
    with pytest.raises(Unusable, match="none of the 3"):
        await start(pods.pods[0].place, "agg-redis-3")


async def redis_node(pods: Pods, pod: str) -> Process:
    """The init step as its own process."""
    pods.prepare(0)
    place = pods.pods[0].place
    folders = ("--config", place.config, "--secrets", place.secrets, "--data", place.data)
    where = map(str, (*folders, "--listen", place.listen))
    command = (sys.executable, "-m", "controller.redis_node", "start", "--pod", pod)
    return await asyncio.create_subprocess_exec(*command, *where, stdout=PIPE, stderr=STDOUT)


async def test_the_command_ends_when_it_is_asked_to(pods: Pods) -> None:
    ran = await redis_node(pods, "agg-redis-0")
    try:
        async with asyncio.timeout(60):
            while await pods.ask("probe", 0, "PING", port=SENTINEL_PORT) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        ran.send_signal(signal.SIGTERM)
        await ran.wait()
        assert ran.returncode == 128 + signal.SIGTERM
    finally:
        if ran.returncode is None:
            ran.kill()
            await ran.wait()


async def test_the_command_says_in_one_line_why_it_does_not_start(pods: Pods) -> None:
    ran = await redis_node(pods, "agg-redis-7")
    said, _ = await ran.communicate()
    assert ran.returncode == 1
    assert re.fullmatch(rb"ERROR the pod 'agg-redis-7' is none of the 3 [^\n]+\n", said)


async def test_probes_tell_what_is_wrong(pods: Pods) -> None:
    pods.hurry()
    await pods.start(1)
    async with asyncio.timeout(60):
        while await pods.hook(1, "probe.sh", "alive") != 0:
            pass
    assert await pods.hook(1, "probe.sh", "sentinel") == 0
    assert await pods.hook(1, "probe.sh", "ready") != 0  # its primary is not there
    pods.kill(1)
    assert await pods.hook(1, "probe.sh", "alive") != 0
    assert await pods.hook(1, "probe.sh", "sentinel") != 0
    assert await pods.ask("probe", 1, "PING", port=SENTINEL_PORT) is None
