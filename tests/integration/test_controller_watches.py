"""kopf as our watches: what it asks an API server for, and what it makes of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from controller import names, ports
from controller.essence import Key
from controller.handlers import Pace, Pauses, Scope, Watches, WatchesEnded, kopf_settings
from controller.kubeconfig import api_server
from controller.ports import Manifest
from tests.fakes.api_server import Asked, FakeApiServer
from tests.kubernetes import Admin, an_aggregator, kubeconfig, path_of
from tests.waiting import until

BRISK = Pace(server=30, silence=1.0, reconnect=0.05, pauses=0.2, give_up=600.0)
DEMO = Key("test", "demo")


class Told:
    """What the watches told."""

    def __init__(self) -> None:
        self.resources: list[Key] = []
        self.children: list[Key] = []
        self.ended: list[WatchesEnded] = []


@asynccontextmanager
async def watching(
    server: FakeApiServer, namespaces: Sequence[str] = ("test",), pace: Pace = BRISK
) -> AsyncIterator[Told]:
    told = Told()
    watches = Watches(server.way_in(), Scope(namespaces=tuple(namespaces)), "pod-0", pace)

    async def watch() -> None:
        try:
            await watches.run(told.resources.append, told.children.append)
        except WatchesEnded as ended:
            told.ended.append(ended)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch())
        try:
            yield told
        finally:
            running.cancel()


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as one:
        yield one


def a_child(name: str = "demo-config", owner: str = "demo", kind: str = "ConfigMap") -> Manifest:
    return {
        "apiVersion": {"Lease": ports.LEASES.api_version}.get(kind, "v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "test",
            "labels": {names.MANAGED_BY: names.MANAGER, names.OWNER: owner},
        },
    }


def all_watches(server: FakeApiServer) -> int:
    return len({asked.path for asked in server.asked if asked.watch})


EVERY_KIND = len(ports.OWNED) + 2


async def settled(server: FakeApiServer) -> None:
    """Every kind is watched."""
    await until(lambda: server.watching == EVERY_KIND, "all watches are open")


async def test_resources_and_what_belongs_to_them_are_told(server: FakeApiServer) -> None:
    server.cluster.put(an_aggregator("test"))
    server.cluster.put(a_child())
    async with watching(server) as told:
        await until(lambda: told.resources == [DEMO], "the list is told")
        await until(lambda: told.children == [DEMO], "the list of objects is told")
        await settled(server)
        server.cluster.put(an_aggregator("test", "second"))
        server.cluster.put(a_child("late", owner="second"))
        second = Key("test", "second")
        await until(lambda: told.resources == [DEMO, second], "a new one is told")
        await until(lambda: told.children == [DEMO, second], "a new object is told")
        server.cluster.remove(ports.CONFIG_MAPS, "test", "demo-config")
        await until(lambda: told.children == [DEMO, second, DEMO], "a deletion is told")


async def test_whoever_runs_it_needs_no_name(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_any_uid() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", of_any_uid)
    async with watching(server) as told:
        await settled(server)
        assert not told.ended


async def test_only_what_has_our_label_is_asked_for(server: FakeApiServer) -> None:
    stranger = a_child()
    stranger["metadata"]["labels"] = {names.OWNER: "demo"}
    server.cluster.put(stranger)
    async with watching(server) as told:
        await settled(server)
        server.cluster.put(a_child("ours", owner="other"))
        await until(lambda: told.children == [Key("test", "other")], "ours is told, and no other")


async def test_namespaces_or_everything_are_watched(server: FakeApiServer) -> None:
    for namespaces, expected in ((("one", "two"), 2), ((), 1)):
        server.asked.clear()
        async with watching(server, namespaces):
            await until(lambda: server.watching == EVERY_KIND * expected, "all are watched")  # noqa: B023
        paths = {asked.path for asked in server.asked if asked.watch}
        assert all(("/namespaces/" in path) == bool(namespaces) for path in paths)


async def test_kopf_writes_nothing(server: FakeApiServer) -> None:
    finalizer = kopf_settings("pod-0", BRISK).persistence.finalizer
    assert names.DOMAIN in finalizer
    server.cluster.put(an_aggregator("test"))
    server.cluster.put(a_child())
    before = server.cluster.version
    async with watching(server) as told:
        await until(lambda: bool(told.resources and told.children), "both are told")
        server.cluster.edit(an_aggregator("test") | {"spec": {"replicas": 2}})
        server.cluster.edit(an_aggregator("test") | {"status": {"replicas": 2}})
        await until(lambda: len(told.resources) == 3, "both changes are told")
        server.cluster.remove(ports.AGGREGATORS, "test", "demo")
        await until(lambda: len(told.resources) == 4, "the deletion is told")
    assert server.writes() == []
    assert server.cluster.version == before + 3


async def test_renewals_of_a_lease_are_not_told(server: FakeApiServer) -> None:
    server.cluster.put(a_child("demo", kind="Lease"))
    async with watching(server) as told:
        await settled(server)
        for second in range(20):
            renewal = {"spec": {"holderIdentity": "a", "renewTime": f"12:00:{second:02}"}}
            server.cluster.edit(a_child("demo", kind="Lease") | renewal)
        lost = {"spec": {"holderIdentity": "b"}}
        server.cluster.edit(a_child("demo", kind="Lease") | lost)
        # Found in the list, taken by a, lost to b.
        await until(lambda: len(told.children) == 3, "the holders are told")
        server.cluster.put(a_child("later"))
        await until(lambda: len(told.children) == 4, "and nothing else")


async def test_a_history_that_is_lost_is_listed_again(server: FakeApiServer) -> None:
    server.cluster.put(an_aggregator("test"))
    async with watching(server) as told:
        await settled(server)
        server.cluster.edit(an_aggregator("test") | {"spec": {"replicas": 2}})
        server.forget_history()
        server.cluster.put(an_aggregator("test", "second"))
        await until(lambda: Key("test", "second") in told.resources, "the new one is told")
        await until(lambda: told.resources.count(DEMO) == 2, "and what changed meanwhile")
        assert told.ended == []
        await settled(server)


async def test_a_watch_without_a_word_is_begun_anew(server: FakeApiServer) -> None:
    async with watching(server) as told:
        await settled(server)
        server.is_silent = True
        server.cluster.put(an_aggregator("test"))
        begun = len([asked for asked in server.asked if asked.watch])
        await until(
            lambda: len([asked for asked in server.asked if asked.watch]) > begun + EVERY_KIND,
            "all watches are begun anew",
        )
        assert told.resources == []
        server.is_silent = False
        await until(lambda: told.resources == [DEMO], "what was missed is told")


async def test_dropped_watches_go_on_where_they_were(server: FakeApiServer) -> None:
    async with watching(server) as told:
        await settled(server)
        for number in range(5):
            server.drop_watches()
            server.cluster.put(an_aggregator("test", f"number-{number}"))
            await until(lambda: len(told.resources) == number + 1, "it is told")  # noqa: B023
        lists = [asked for asked in server.asked if asked.path.endswith(names.PLURAL)]
        assert len([asked for asked in lists if not asked.watch]) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_watches_outlive_an_api_server_that_fails(server: FakeApiServer, status: int) -> None:
    async with watching(server) as told:
        await settled(server)
        with server.failing(status):
            server.forget_history()
            asked = len(server.asked)
            await until(lambda: len(server.asked) > asked + 50, "it is tried again and again")
            server.cluster.put(an_aggregator("test"))
        await until(lambda: told.resources == [DEMO], "what was missed is told")
        assert told.ended == []


async def test_watches_outlive_an_api_server_that_hangs(server: FakeApiServer) -> None:
    async with watching(server) as told:
        await settled(server)
        server.hang = True
        server.drop_watches()
        server.cluster.put(an_aggregator("test"))
        await until(lambda: server.watching == 0, "no watch is open")
        server.hang = False
        await until(lambda: told.resources == [DEMO], "what was missed is told")


def is_of_pods(asked: Asked) -> bool:
    return asked.path.endswith("/pods")


async def test_watches_that_are_not_allowed_any_more_end(server: FakeApiServer) -> None:
    pace = Pace(server=30, silence=1.0, reconnect=0.05, pauses=0.01, give_up=0.05)
    async with watching(server, pace=pace) as told:
        await settled(server)
        with server.failing(403, only=is_of_pods):
            server.forget_history()
            await until(lambda: len(told.ended) == 1, "they ended")


async def test_watches_end_when_the_definition_goes(server: FakeApiServer) -> None:
    async with watching(server) as told:
        await settled(server)
        server.serves_crd = False
        server.forget_history()
        await until(lambda: len(told.ended) == 1, "they ended")


async def test_a_renewed_token_is_read_again(server: FakeApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    server.tokens = {"first"}
    way_in = replace(server.way_in(), token_file=token)
    told = Told()
    watches = Watches(way_in, Scope(namespaces=("test",)), "pod-0", BRISK)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watches.run(told.resources.append, told.children.append))
        await settled(server)
        token.write_text("second")
        server.tokens = {"second"}
        server.forget_history()
        server.cluster.put(an_aggregator("test"))
        await until(lambda: told.resources == [DEMO], "it is told")
        running.cancel()


async def test_watches_end_at_once_when_they_are_not_needed(server: FakeApiServer) -> None:
    async with watching(server):
        pass
    async with watching(server):
        await settled(server)
    await until(lambda: server.watching == 0, "nothing is watched")


def test_pauses_begin_anew_each_time_and_end() -> None:
    pauses = Pauses(cap=30, total=600)
    assert min(sum(pauses), sum(pauses)) >= 600
    assert max(pauses) <= 36
    assert min(pauses) <= 1.2


async def test_at_a_real_api_server_nothing_is_written_and_all_is_told() -> None:
    with api_server({}, kubeconfig()) as way_in:
        async with Admin(way_in) as admin, admin.namespace("watches") as namespace:
            await admin.apply_crd()
            path = path_of(ports.AGGREGATORS, namespace)
            created = await admin.call("POST", path, an_aggregator(namespace))
            told = Told()
            watches = Watches(way_in, Scope(namespaces=(namespace,)), "pod-0")
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(
                    watches.run(told.resources.append, told.children.append)
                )
                demo = Key(namespace, "demo")
                await until(lambda: told.resources == [demo], "it is told")
                child = a_child()
                child["metadata"]["namespace"] = namespace
                await admin.call("POST", path_of(ports.CONFIG_MAPS, namespace), child)
                await until(lambda: told.children == [demo], "its object is told")
                running.cancel()
            found = await admin.call("GET", f"{path}/demo")
            assert found == created
            await admin.call("DELETE", f"{path}/demo")
            status, _ = await admin.try_call("GET", f"{path}/demo")
            assert status == 404
