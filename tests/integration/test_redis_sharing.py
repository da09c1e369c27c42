"""Replicas over one group of servers: nothing acknowledged is lost, whatever the servers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest

from aggregator.journal.format import Fence
from aggregator.store.connection import Address, Server
from aggregator.store.discovery import Fixed
from aggregator.store.keys import Keys
from aggregator.store.records import row_key
from aggregator.store.redis import RedisStore
from aggregator.store.sharing import Sharing
from aligned.errors import StateMismatch, StoreUnavailable
from aligned.model import BatchId, Entry, OperatorId, Signature, Term
from devnet.redis_servers import Options
from devnet.sentinel import SentinelGroup
from tests.fakes.builders import entry
from tests.fakes.redis import (
    SECONDS,
    STEADY,
    HeldInMemory,
    a_row,
    answered,
    discovery_of,
    identity,
    programs,
    until,
)

ONE = Term(1)


class Node:
    """A replica of the aggregator as far as the store is concerned: memory, store, sharing."""

    def __init__(self, group: SentinelGroup, name: str, deployment: int = 1) -> None:
        self.memory = HeldInMemory()
        self.store = RedisStore(discovery_of(group), identity(deployment), writer=name)
        self.sharing = Sharing(self.store, self.memory)
        self.acknowledged: set[Entry] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        async with aclosing(self.store), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.sharing.run())
            yield self
            task.cancel()

    async def take(self, *entries: Entry) -> None:
        """Do what a commit does: memory first, then the store until it confirms."""
        self.memory.keep(entries)
        await answered(lambda: self.store.put(entries))
        self.acknowledged |= set(entries)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    found = programs("valkey", tmp_path_factory.mktemp("programs"))
    with SentinelGroup(found, Options(partitions=True)) as group:
        yield group


@pytest.fixture
def group(running: SentinelGroup) -> Iterator[SentinelGroup]:
    """Settled and empty, and it stays so while nothing is broken; what was is mended."""
    running.settle()
    running.wipe()
    running.notice_after(STEADY.down_after)
    yield running
    running.heal()
    for index, machine in enumerate(running.machines):
        running.resume(index)
        if machine.server is not None and machine.server.code is not None:
            running.start_server(index)


@pytest.fixture
async def nodes(group: SentinelGroup) -> AsyncIterator[Sequence[Node]]:
    """Three replicas that share."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Node(group, name).running()) for name in "abc"]


async def stored(node: Node) -> set[Entry]:
    async def read() -> Mapping[BatchId, Mapping[OperatorId, Signature]]:
        return await node.store.signatures(list(await node.store.batch_ids()))

    found = await answered(read)
    return {Entry(b, o, s) for b, held in found.items() for o, s in held.items()}


async def everywhere(nodes: Sequence[Node]) -> None:
    """Wait until every replica holds what any of them acknowledged, and so does the store."""
    wanted = set().union(*(node.acknowledged for node in nodes))
    await until(lambda: all(wanted <= node.memory.all() for node in nodes), "peers hear of it")
    # A primary may go at any time, also without a fault of ours: what it knew comes back.
    async with asyncio.timeout(SECONDS):
        await until(lambda: all(node.sharing.is_merged for node in nodes), "everything is merged")
        while not wanted <= await stored(nodes[0]):  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)


async def test_peers_hear_of_everything_that_is_written(nodes: Sequence[Node]) -> None:
    a, b, _ = nodes
    await a.take(entry(1, 1), entry(1, 2))
    await b.take(entry(2, 1))
    await answered(lambda: a.store.claim(ONE, "a"))
    for nonce in (0, 1):
        row = a_row(nonce)
        await answered(lambda row=row: a.store.record(ONE, "a", row))  # type: ignore[misc] # a loop's default
    await answered(lambda: a.store.drop_rows(ONE, "a", [a_row(0)]))
    await answered(lambda: a.store.evict(ONE, "a", [entry(1, 2)]))
    a.acknowledged.discard(entry(1, 2))
    await everywhere(nodes)
    for peer in nodes[1:]:
        await until(lambda peer=peer: entry(1, 2) in peer.memory.evicted, "evictions are heard")  # type: ignore[misc] # a loop's default
        assert peer.memory.all() == {entry(1, 1), entry(2, 1)}
        assert peer.memory.rows() == [a_row(1)]
        assert peer.store.known_fence == Fence(ONE, "a")


async def test_who_starts_later_reads_what_was_written_before(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    await nodes[0].take(entry(1), entry(2))
    await answered(lambda: nodes[0].store.claim(ONE, "a"))
    async with Node(group, "late").running() as late:
        await until(lambda: late.memory.all() == {entry(1), entry(2)}, "it catches up")
        assert late.store.known_fence == Fence(ONE, "a")


async def test_a_union_brings_each_side_what_only_the_other_has(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    a = nodes[0]
    await a.take(entry(1, 1))
    a.memory.keep([entry(1, 2), entry(2, 1)])
    a.memory.outbox[row_key(a_row(3))] = a_row(3)
    port = group.machines[group.primary()].port
    async with aclosing(
        RedisStore(Fixed(Server(address=Address("127.0.0.1", port))), identity(), writer="a")
    ) as silent:  # writes as a itself: a's tail skips it
        await answered(lambda: silent.merge([entry(3, 1)], [a_row(4)]))
    await answered(a.sharing.unite)
    assert a.memory.all() == {entry(1, 1), entry(1, 2), entry(2, 1), entry(3, 1)}
    assert await stored(a) == a.memory.all()
    assert await answered(a.store.rows) == [a_row(3), a_row(4)]
    assert sorted(row.nonce for row in a.memory.rows()) == [3, 4]


async def test_rows_dropped_while_a_replica_was_away_do_not_come_back_with_it(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    a = nodes[0]
    await everywhere(nodes)  # or a peer's first merge brings what it has not heard is dropped
    await answered(lambda: a.store.claim(ONE, "a"))
    await answered(lambda: a.store.record(ONE, "a", a_row(0)))
    await answered(lambda: a.store.drop_rows(ONE, "a", [a_row(0)]))
    late = Node(group, "late")
    late.memory.outbox = {row_key(row): row for row in (a_row(0), a_row(1))}
    late.memory.used = 1
    async with late.running():
        await until(lambda: late.sharing.is_merged, "it has merged")
        await answered(late.sharing.unite)
    assert await answered(a.store.rows) == [a_row(1)]
    assert [row.nonce for row in late.memory.rows()] == [1]


async def test_rows_dropped_while_a_replica_did_not_listen_are_not_united_back(
    nodes: Sequence[Node],
) -> None:
    a, b, _ = nodes
    await everywhere(nodes)
    b.memory.outbox = {row_key(row): row for row in (a_row(0), a_row(1))}
    b.memory.used = 1
    await answered(b.sharing.unite)
    assert await answered(a.store.rows) == [a_row(1)]


async def test_another_row_in_the_store_takes_the_place_of_ours(nodes: Sequence[Node]) -> None:
    a, b, _ = nodes
    await everywhere(nodes)
    await answered(lambda: a.store.claim(ONE, "a"))
    await answered(lambda: a.store.record(ONE, "a", a_row(0)))
    await until(lambda: b.memory.rows() == [a_row(0)], "it hears of the row")
    b.memory.outbox = {row_key(a_row(0)): a_row(0, raw=b"other")}
    await answered(b.sharing.unite)
    assert b.memory.rows() == [a_row(0)]
    assert await answered(a.store.rows) == [a_row(0)]


async def test_what_is_no_signature_is_passed_over(
    group: SentinelGroup, nodes: Sequence[Node], caplog: pytest.LogCaptureFixture
) -> None:
    await nodes[0].take(entry(1))
    keys, port = Keys.of(identity()), group.machines[group.primary()].port
    key = keys.log.decode()
    group.ask(port, "XADD", key, "*", "by", "somebody", "entries", "three")
    await nodes[0].take(entry(2))
    await everywhere(nodes)
    assert "cannot be read and is skipped" in caplog.text


async def test_a_wiped_store_is_filled_again(group: SentinelGroup, nodes: Sequence[Node]) -> None:
    a, b, _ = nodes
    await a.take(*(entry(number, by) for number in range(1, 4) for by in range(1, 150)))
    await answered(lambda: a.store.claim(ONE, "a"))
    await answered(lambda: a.store.record(ONE, "a", a_row()))
    await everywhere(nodes)
    group.wipe()
    await answered(b.sharing.unite)
    assert a.acknowledged <= await stored(a)
    await answered(lambda: a.store.confirm(ONE, "a"))
    assert list(await answered(lambda: a.store.claim(ONE, "a"))) == [a_row()]


async def test_a_primary_that_restarts_empty_is_filled_again(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    await nodes[0].take(*(entry(1, by) for by in range(1, 300)))
    await answered(lambda: nodes[0].store.claim(ONE, "a"))
    await everywhere(nodes)
    before = {node.sharing.progress.merged for node in nodes}
    group.restart(group.primary())
    await until(
        lambda: all(node.sharing.progress.merged not in before for node in nodes), "re-merged"
    )
    await everywhere(nodes)
    assert sum(node.sharing.progress.restored for node in nodes) > 0
    assert await answered(nodes[1].store.fence) == Fence(ONE, "a")


@pytest.mark.parametrize("fault", ["killed", "frozen", "cut off", "moved", "moved in good order"])
async def test_nothing_acknowledged_is_lost_when_the_primary_is(
    fault: str, group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    old = group.primary()
    stop = asyncio.Event()

    async def sign(node: Node, index: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await node.take(entry(number, index))
            await asyncio.sleep(0.02)  # the relays between share this process

    async with asyncio.TaskGroup() as signing:
        for index, node in enumerate(nodes):
            signing.create_task(sign(node, index))
        await until(
            lambda: all(n.sharing.is_merged and len(n.acknowledged) > 20 for n in nodes), "signing"
        )
        merges = [node.sharing.progress.merges for node in nodes]
        group.notice_after(1000)
        match fault:
            case "killed":
                group.kill(old)
            case "frozen":
                group.pause(old)
            case "cut off":
                group.partition({old})
            case "moved":
                group.fail_over()
            case _:
                group.fail_over(coordinated=True)
        await until(
            lambda: all(n.sharing.progress.merges > m for n, m in zip(nodes, merges, strict=True)),
            "another primary is merged into",
        )
        counts = [len(node.acknowledged) for node in nodes]
        await until(
            lambda: all(len(n.acknowledged) > c + 20 for n, c in zip(nodes, counts, strict=True)),
            "signing goes on",
        )
        stop.set()
    await everywhere(nodes)
    await until(lambda: group.primary() != old, "the Sentinels name another")


async def test_a_client_beside_a_lone_primary_gets_nothing_confirmed(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    a = nodes[0]
    await a.take(entry(1))
    old = group.primary()
    group.notice_after(1000)
    group.partition({old}, with_clients=True)
    a.memory.keep([entry(2)])
    with pytest.raises(StoreUnavailable):
        await a.store.put([entry(2)])
    with pytest.raises(StoreUnavailable):
        await a.store.claim(ONE, "a")
    group.heal()
    await a.take(entry(3))
    await everywhere(nodes)
    await until(lambda: entry(2) in nodes[2].memory.all(), "what was not confirmed comes too")


async def test_all_servers_gone_for_a_while_lose_nothing(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    await nodes[0].take(entry(1), entry(2))
    await everywhere(nodes)
    primary = group.primary()
    for index in range(3):
        group.kill(index)
    with pytest.raises(StoreUnavailable):
        await nodes[0].store.put([entry(3)])
    for index in range(3):
        group.start_server(index, primary=primary)
    await nodes[0].take(entry(3))
    await everywhere(nodes)


async def test_sharing_ends_at_another_deployments_state(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    await nodes[0].take(entry(1))
    stranger = Node(group, "x", deployment=2)
    stranger.memory.keep([entry(9)])
    with pytest.raises(ExceptionGroup) as ended:
        async with stranger.running():
            await asyncio.Event().wait()
    assert ended.group_contains(StateMismatch)
    assert await stored(nodes[0]) == {entry(1)}
    assert stranger.memory.all() == {entry(9)}
