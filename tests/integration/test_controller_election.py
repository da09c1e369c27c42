"""The controller's own Lease: who works, and what becomes of who lost it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller import lead as election
from controller.kube import KubeCluster
from controller.kubeconfig import ApiServer
from controller.lead import Lead, NotLeading, Periods, ensure_lease
from controller.ports import LEASES
from tests.fakes.api_server import FakeApiServer
from tests.fakes.lease_server import NAME, NAMESPACE, LeaseServer
from tests.waiting import until

BRISK = Periods(lease=1.5, deadline=1.0, renew=0.2)


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as one:
        yield one


class Replica:
    """One in the election, who notes what happens."""

    def __init__(self, server: LeaseServer, folder: Path, pod: str) -> None:
        token = folder / pod
        token.write_text(pod)
        way_in = ApiServer(url=server.url, namespace=NAMESPACE, token_file=token)
        self.pod = pod
        self.lost: list[tuple[str, float]] = []
        self.lead = Lead(way_in, NAMESPACE, NAME, pod, self._lose, BRISK)

    def _lose(self, why: str) -> None:
        self.lost.append((why, time.monotonic()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(self.lead.run())
            try:
                yield self
            finally:
                await self.lead.release()
                run.cancel()


async def test_one_of_two_leads_and_the_other_follows_a_release_at_once(
    server: LeaseServer, tmp_path: Path
) -> None:
    one, other = (Replica(server, tmp_path, pod) for pod in ("one", "other"))
    async with other.running(), one.running():
        await until(lambda: one.lead.leads or other.lead.leads, "one leads")
        assert not (one.lead.leads and other.lead.leads)
        first, second = (one, other) if one.lead.leads else (other, one)
        await first.lead.acquired()
        first.lead.require()
        with pytest.raises(NotLeading):
            second.lead.require()
        assert server.term == 1
        await first.lead.release()
        with pytest.raises(NotLeading):
            first.lead.require()
        await second.lead.acquired()
        assert server.term == 2
        assert server.holder.startswith(f"{second.pod}.")
    assert server.holder == ""
    assert one.lost == other.lost == []


async def test_who_cannot_renew_is_told_before_another_leads(
    server: LeaseServer, tmp_path: Path
) -> None:
    one, other = (Replica(server, tmp_path, pod) for pod in ("one", "other"))
    async with one.running():
        await one.lead.acquired()
        async with other.running():
            server.hang_for.add("one")
            await until(lambda: bool(one.lost), "it is told")
            with pytest.raises(NotLeading):
                one.lead.require()
            await other.lead.acquired()
            began = time.monotonic()
            [(_, ended)] = one.lost
            assert ended < began
            server.hang_for.clear()
    assert [holder.partition(".")[0] for holder, _ in server.history] == ["", "one", "other", ""]


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_an_api_server_that_fails_for_long_ends_the_term(
    server: LeaseServer, tmp_path: Path, status: int
) -> None:
    replica = Replica(server, tmp_path, "one")
    async with replica.running():
        await replica.lead.acquired()
        server.status = status
        await until(lambda: len(replica.lost) == 1, "it is told once")
        server.status = None


async def test_an_api_server_that_fails_for_a_moment_ends_nothing(
    server: LeaseServer, tmp_path: Path
) -> None:
    replica = Replica(server, tmp_path, "one")
    async with replica.running():
        await replica.lead.acquired()
        for _ in range(3):
            writes = server.writes
            server.status = 500
            await asyncio.sleep(0.2)
            server.status = None
            await until(lambda: server.writes > writes + 2, "it renews")  # noqa: B023
        replica.lead.require()
    assert replica.lost == []


async def test_a_lease_that_somebody_took_or_deleted_is_lost(
    server: LeaseServer, tmp_path: Path
) -> None:
    replica = Replica(server, tmp_path, "one")
    async with replica.running():
        await replica.lead.acquired()
        server.edit(holderIdentity="a person", leaseTransitions=7)
        await until(lambda: len(replica.lost) == 1, "it is told")
    again = Replica(server, tmp_path, "again")
    async with again.running():
        await again.lead.acquired()
        assert server.term == 8
        server.delete()
        await until(lambda: len(again.lost) == 1, "it is told")


async def test_a_main_loop_that_hangs_loses_the_lease_to_others(
    server: LeaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election, "LOOP_SECONDS", 0.3)
    replica = Replica(server, tmp_path, "one")
    async with replica.running():
        await replica.lead.acquired()
        deadline = time.monotonic() + 60
        while not replica.lost and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251, TID251 - the point of it
        [(why, _)] = replica.lost
        assert "main loop" in why
        assert server.holder == ""


async def test_a_release_without_an_api_server_does_not_hang(
    server: LeaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election, "RELEASE_SECONDS", 0.5)
    replica = Replica(server, tmp_path, "one")
    async with replica.running():
        await replica.lead.acquired()
        server.hang = True
        await replica.lead.release()
        server.hang = False
    assert replica.lost == []


async def test_who_is_stopped_before_it_began_leaves_nothing_behind(
    server: LeaseServer, tmp_path: Path
) -> None:
    async with Replica(server, tmp_path, "one").running():
        pass
    assert server.holder == ""


# The Lease itself.


async def test_the_lease_is_made_where_there_is_none_and_again_when_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(election, "_ENSURE_SECONDS", 0.05)
    async with FakeApiServer() as server, asyncio.TaskGroup() as tasks:
        clusters = [KubeCluster(server.way_in()) for _ in range(2)]
        ensuring = [tasks.create_task(ensure_lease(cluster, "test", "own")) for cluster in clusters]

        def there() -> bool:
            return server.cluster.read(LEASES, "test", "own") is not None

        await until(there, "it is made")
        server.cluster.remove(LEASES, "test", "own")
        await until(there, "it is made again")
        server.cluster.edit(
            {
                "apiVersion": LEASES.api_version,
                "kind": "Lease",
                "metadata": {"name": "own", "namespace": "test"},
                "spec": {"holderIdentity": "somebody"},
            }
        )
        reads = len(server.asked)
        await until(lambda: len(server.asked) > reads + 10, "it is looked at again and again")
        lease = server.cluster.read(LEASES, "test", "own")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "somebody"
        for one in ensuring:
            one.cancel()
        for cluster in clusters:
            await cluster.aclose()


async def test_a_lease_that_cannot_be_made_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(election, "_ENSURE_SECONDS", 0.01)
    async with FakeApiServer() as server, asyncio.TaskGroup() as tasks:
        cluster = KubeCluster(server.way_in())
        with server.failing(403):
            ensuring = tasks.create_task(ensure_lease(cluster, "test", "own"))
            await until(lambda: len(server.asked) > 10, "it is tried again and again")
        await until(
            lambda: server.cluster.read(LEASES, "test", "own") is not None, "it is made then"
        )
        ensuring.cancel()
        await cluster.aclose()
    told = [record for record in caplog.records if record.name == "controller.lead"]
    assert len(told) == 1
    assert "Check its namespace" in told[0].getMessage()
