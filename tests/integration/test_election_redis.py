"""Replicas that elect their leader over the shared store, and what becomes of their writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import NoReturn

import pytest

from aggregator.lead import while_leading
from aggregator.leadership.elected import ElectedLeadership, Health
from aggregator.leadership.election import Candidate, Profile
from aggregator.leadership.redis import RedisLock
from aggregator.ports import End
from aggregator.store.keys import Keys
from aggregator.store.redis import RedisStore
from aggregator.store.sharing import Sharing
from aligned.errors import StoreUnavailable
from aligned.model import Term
from devnet.sentinel import SentinelGroup
from tests.fakes.builders import entry
from tests.fakes.redis import (
    STEADY,
    HeldInMemory,
    a_row,
    answered,
    discovery_of,
    identity,
    programs,
    until,
)

QUICK = Profile(lease=3.0, deadline=2.0, renew=0.2)
"""A busy machine alone ends no term."""


class Node:
    """A replica whose leader's work is to record rows."""

    def __init__(self, group: SentinelGroup, pod: str, accepted: list[tuple[int, str]]) -> None:
        self.store = RedisStore(discovery_of(group), identity(), writer=pod)
        self.sharing = Sharing(self.store, HeldInMemory())
        self.accepted = accepted
        self.pod = pod
        self.terms: list[int] = []
        self.leads = False
        candidate = Candidate(me=f"{pod} boot", pod=pod, profile=QUICK)
        health = Health(
            head_age=lambda: 0.0, signs=lambda: True, operators=lambda: True, window=lambda: True
        )

        def lock() -> RedisLock:
            return RedisLock(RedisStore(discovery_of(group), identity(), writer=f"{pod} lock"))

        self.leadership = ElectedLeadership(candidate, lock, self.store, health)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        async with aclosing(self.store), asyncio.TaskGroup() as tasks:
            sharing = tasks.create_task(self.sharing.run())
            election = tasks.create_task(self.leadership.run())
            leading = tasks.create_task(while_leading(self.leadership, self._work))
            try:
                yield self
            finally:
                leading.cancel()
                election.cancel()
                sharing.cancel()

    async def _work(self, term: Term, holder: str) -> NoReturn:
        self.terms.append(term)
        self.leads = True
        try:
            while True:
                self.leadership.require(term)
                try:
                    await self.store.record(term, holder, a_row(len(self.accepted), term=term))
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
                else:
                    self.accepted.append((term, holder))
                await asyncio.sleep(0.01)
        finally:
            self.leads = False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    found = programs("valkey", tmp_path_factory.mktemp("programs"))
    with SentinelGroup(found, STEADY) as group:
        yield group


@pytest.fixture
def group(running: SentinelGroup) -> Iterator[SentinelGroup]:
    running.settle()
    running.wipe()
    running.notice_after(STEADY.down_after)
    yield running
    for index, machine in enumerate(running.machines):
        running.resume(index)
        if machine.server is not None and machine.server.code is not None:
            running.start_server(index)


@pytest.fixture
async def nodes(group: SentinelGroup) -> AsyncIterator[Sequence[Node]]:
    """Three, one of which leads."""
    accepted: list[tuple[int, str]] = []
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(Node(group, f"pod-{index}", accepted).running())
            for index in range(3)
        ]
        await until(lambda: len(accepted) > 3, "somebody leads")
        yield started


def in_order(nodes: Sequence[Node]) -> bool:
    """Writes that were accepted have rising terms, each with one holder."""
    accepted = nodes[0].accepted
    terms = [term for term, _ in accepted]
    return terms == sorted(terms) and len(set(accepted)) == len(set(terms))


async def writes_go_on(nodes: Sequence[Node]) -> None:
    count = len(nodes[0].accepted)
    await until(lambda: len(nodes[0].accepted) > count + 5, "writes go on")


async def test_a_newcomer_does_not_disturb_the_leader(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    await until(lambda: sum(node.leads for node in nodes) == 1, "one leads")
    [leader] = [node for node in nodes if node.leads]
    async with Node(group, "pod-9", nodes[0].accepted).running() as guest:
        await until(lambda: "pod-9" in leader.leadership._vitals.peers, "it is known")
        await writes_go_on(nodes)
    assert guest.terms == []
    assert leader.leads
    assert in_order(nodes)


async def test_a_clean_stop_gives_the_lock_up_and_keeps_the_term(group: SentinelGroup) -> None:
    async with Node(group, "pod-0", []).running() as one:
        await until(lambda: one.leads, "it leads")
    async with aclosing(RedisStore(discovery_of(group), identity(), writer="x")) as store:
        record = json.loads((await answered(lambda: store.swap("", "", b""))).record)
    assert (record["holder"], record["term"]) == ("", one.terms[-1])


@pytest.mark.parametrize("fault", ["killed", "frozen", "restarted empty", "wiped"])
async def test_terms_rise_through_every_loss_of_the_primary(
    fault: str, group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    primary = group.primary()
    await until(lambda: all(node.sharing.is_merged for node in nodes), "merged")
    match fault:
        case "killed":
            group.notice_after(1000)
            group.kill(primary)
        case "frozen":
            group.notice_after(1000)
            group.pause(primary)
        case "restarted empty":
            group.restart(primary)
        case _:
            group.wipe()
    await until(
        lambda: all(node.sharing.progress.merges > 1 for node in nodes) or fault == "wiped",
        "merged again",
    )
    await writes_go_on(nodes)
    assert in_order(nodes)
    term, _ = nodes[0].accepted[-1]
    await until(lambda: nodes[0].store.known_fence.term >= term, "all hear of the term")


async def test_who_cannot_read_the_outbox_stands_by_and_who_can_leads(
    group: SentinelGroup, nodes: Sequence[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, key = group.machines[group.primary()].port, Keys.of(identity()).outbox.decode()
    group.ask(port, "HSET", key, "of a later release", "what only that one reads")
    for node in nodes:  # as each does every ten seconds
        await answered(node.sharing.unite)
    why = "it cannot read the shared outbox"
    await until(lambda: all(node.leadership.unfit == why for node in nodes), "all stand by")
    await until(lambda: not any(node.leads for node in nodes), "nobody leads")
    for node in nodes:
        await answered(lambda node=node: node.store.put([entry()]))  # type: ignore[misc] # default
    later = Node(group, "later", nodes[0].accepted)
    monkeypatch.setattr(later.store._rows, "read", lambda _: [])
    async with later.running():
        await writes_go_on(nodes)
        assert later.leads
        assert not any(node.leads for node in nodes)
    group.ask(port, "HDEL", key, "of a later release")
    for node in nodes:
        await answered(node.sharing.unite)
    await writes_go_on(nodes)
    assert in_order(nodes)


async def test_who_wins_beside_an_outbox_it_cannot_read_begins_no_term(
    group: SentinelGroup,
) -> None:
    port, key = group.machines[group.primary()].port, Keys.of(identity()).outbox.decode()
    group.ask(port, "HSET", key, "of a later release", "what only that one reads")
    async with Node(group, "pod-0", []).running() as one:
        await until(lambda: one.leadership.won is not None, "it wins the lock")
        await until(lambda: one.leadership.standing.end is End.UNFIT, "it gives it up")
        assert one.leadership.standing.why == "it cannot read the shared outbox"
        assert (one.terms, one.accepted) == ([], [])


async def test_a_leader_that_lost_the_store_is_replaced(
    group: SentinelGroup, nodes: Sequence[Node]
) -> None:
    await until(lambda: any(node.leads for node in nodes), "one leads")
    leader = next(node for node in nodes if node.leads)
    # Its own connections lead to a server that is no primary: it has no way to the store.
    sentinels = leader.store.primary._discovery._sentinels  # type: ignore[attr-defined] # test
    leader.store.primary._discovery._sentinels = sentinels[:0]  # type: ignore[attr-defined] # test
    await leader.store.primary.drop()
    await until(lambda: not leader.leads, "it stops")
    await until(lambda: sum(node.leads for node in nodes) == 1, "another leads")
    await writes_go_on(nodes)
    assert in_order(nodes)
    leader.store.primary._discovery._sentinels = sentinels  # type: ignore[attr-defined] # test
