"""Leadership by a Lease alone, as a controller has it: no store confirms or refuses anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aggregator.leadership.election import Candidate
from aggregator.leadership.kubernetes import KubernetesLock, LeaseAt
from aggregator.leadership.unfenced import unfenced
from tests.fakes.candidates import BRISK, FenceInMemory, Replica
from tests.fakes.lease_server import NAME, NAMESPACE, LeaseServer
from tests.fakes.redis import until


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as running:
        yield running


def candidate(pod: str, server: LeaseServer, folder: Path) -> Replica:
    token = folder / f"{pod}.token"
    token.write_text(pod)
    at = LeaseAt(server=server.url, namespace=NAMESPACE, name=NAME, token_file=token)
    one = Replica(pod, lambda: KubernetesLock(at), FenceInMemory())
    who = Candidate(me=one.me, pod=pod, profile=BRISK)
    one.leadership = unfenced(who, lambda: KubernetesLock(at))
    return one


@pytest.fixture
async def pair(server: LeaseServer, tmp_path: Path) -> AsyncIterator[Sequence[Replica]]:
    """Two, the first of which leads."""
    server.create(term=6)
    async with AsyncExitStack() as stack:
        first = candidate("pod-0", server, tmp_path)
        await stack.enter_async_context(first.running())
        await until(lambda: first.leads, "the first leads")
        second = candidate("pod-1", server, tmp_path)
        await stack.enter_async_context(second.running())
        yield first, second


async def test_terms_are_the_locks(server: LeaseServer, pair: Sequence[Replica]) -> None:
    first, second = pair
    assert (first.term, server.holder, server.term) == (7, "pod-0 boot", 7)
    assert not second.leads


async def test_who_cannot_renew_stops_and_another_leads(
    server: LeaseServer, pair: Sequence[Replica]
) -> None:
    first, second = pair
    server.hang_for = {"pod-0"}
    await until(lambda: second.leads, "the second leads")
    assert first.log == ["begin 7", "end 7"]
    assert second.term == 8
    server.hang_for = set()
    await until(lambda: first.leadership.standing.leader == second.me, "the first sees who leads")
    assert first.log == ["begin 7", "end 7"]


async def test_while_nobody_can_renew_nobody_acts_and_then_the_same_term_goes_on(
    server: LeaseServer, pair: Sequence[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    server.hang = True
    await until(lambda: not first.leads, "the first stops")
    assert not second.leads
    server.hang = False
    await until(lambda: first.log == ["begin 7", "end 7", "begin 7"], "the first goes on")
    assert [holder for holder, _ in server.history if holder] == ["pod-0 boot"]
    assert "work is suspended" in caplog.text
