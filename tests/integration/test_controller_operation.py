"""Processes of the controller at an API server that is everything a real one can be."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller import names, ports
from controller.access import OWN, Right
from controller.ports import AGGREGATORS, LEASES, SERVICES, STATEFUL_SETS, Kind
from tests.fakes.api_server import Asked, FakeApiServer, is_ours
from tests.integration.controllers import (
    STOP_SECONDS,
    Controller,
    a_kubeconfig,
    controller,
    started,
)
from tests.kubernetes import an_aggregator
from tests.waiting import until

HERE = ("--namespace", "test", "--lease-namespace", "test")
OFTEN = ("--resync", "10s")


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as one:
        yield one


def config(server: FakeApiServer, folder: Path) -> Path:
    return a_kubeconfig(folder, server.url, "anybody")


def an_observer(name: str = "demo") -> dict[str, object]:
    """Without Redis, so that little is made of it."""
    return an_aggregator("test", name, replicas=1, redis={"mode": "None"})


def is_there(server: FakeApiServer, kind: Kind, name: str = "demo") -> bool:
    return server.cluster.read(kind, "test", name) is not None


def holder(server: FakeApiServer) -> str:
    lease = server.cluster.read(LEASES, "test", names.MANAGER)
    return "" if lease is None else str(lease["spec"].get("holderIdentity") or "")


async def at_rest(server: FakeApiServer, one: Controller) -> None:
    """Everything is made, and no pass runs or is about to."""

    async def holds() -> bool:
        waiting = await one.metric("controller_queue_depth")
        running = await one.metric("controller_pass_running_seconds")
        told = server.cluster.read(AGGREGATORS, "test", "demo")
        return not waiting and not running and bool(told and told.get("status"))

    await until(holds, "the controller is at rest")


async def test_a_resource_becomes_objects_and_the_probes_say_so(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        assert (await one.ask("healthz"))[0] == 200
        server.cluster.put(an_observer())
        await until(lambda: is_there(server, STATEFUL_SETS), "its set is made")
        await until(one.leads, "it leads")
        done = 'controller_reconciles_total{result="done"}'
        await until(lambda: more(one, done, 0), "passes are counted")
        assert await one.metric('controller_writes_total{kind="StatefulSet",verb="apply"}') == 1.0


async def more(one: Controller, metric: str, than: float) -> bool:
    return await one.metric(metric) > than


async def test_nothing_but_ours_writes(server: FakeApiServer, tmp_path: Path) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        server.cluster.put(an_observer())
        await until(lambda: is_there(server, STATEFUL_SETS), "its set is made")
        await at_rest(server, one)
        writers = {asked.agent for asked in server.writes() if not is_of_lease(asked)}
        assert writers == {names.MANAGER}
        written = {asked.path for asked in server.writes() if names.PLURAL in asked.path}
        assert {path.rpartition("/")[2] for path in written} == {"status"}


def is_of_lease(asked: Asked) -> bool:
    return "/leases/" in asked.path and asked.method == "PUT"


async def test_one_of_two_works_and_the_other_takes_over_when_it_is_killed(
    server: FakeApiServer, tmp_path: Path
) -> None:
    at = config(server, tmp_path)
    async with (
        controller(at, tmp_path, *HERE, pod="one") as one,
        controller(at, tmp_path, *HERE, pod="other") as other,
    ):
        await started(one, other)
        await until(lambda: bool(holder(server)), "one leads")
        leader, standby = (one, other) if holder(server).startswith("one.") else (other, one)
        server.cluster.put(an_observer())
        await until(lambda: is_there(server, STATEFUL_SETS), "its set is made")
        assert await standby.metric('controller_reconciles_total{result="done"}') == 0.0
        assert not await standby.leads()
        leader.send(signal.SIGKILL)
        server.cluster.put(an_observer("second"))
        await until(lambda: is_there(server, STATEFUL_SETS, "second"), "the other works")
        assert await standby.leads()
        assert standby.code is None


async def test_who_was_frozen_writes_nothing_when_it_wakes_up_and_ends(
    server: FakeApiServer, tmp_path: Path
) -> None:
    ways_in = [a_kubeconfig(tmp_path, server.url, token) for token in ("one", "other")]
    async with (
        controller(ways_in[0], tmp_path, *HERE, pod="one") as one,
        controller(ways_in[1], tmp_path, *HERE, pod="other") as other,
    ):
        await started(one, other)
        await until(lambda: bool(holder(server)), "one leads")
        leader, standby = (one, other) if holder(server).startswith("one.") else (other, one)
        token = "one" if leader is one else "other"
        server.only = lambda asked: is_patch(asked) and asked.token == token
        server.hang = True
        server.cluster.put(an_observer())
        await until(lambda: any(map(is_patch, server.asked)), "a pass is in the middle of a write")
        leader.send(signal.SIGSTOP)
        await until(standby.leads, "the other leads")
        asked = len(server.asked)
        server.hang = False
        leader.send(signal.SIGCONT)
        assert await leader.ended() == 1
        later = [each for each in server.asked[asked:] if each.token == token and is_ours(each)]
        assert [each for each in later if each.method != "GET"] == []
        await until(lambda: is_there(server, STATEFUL_SETS), "the other finishes the pass")


async def test_a_stop_gives_the_lease_up_and_the_other_goes_on_at_once(
    server: FakeApiServer, tmp_path: Path
) -> None:
    at = config(server, tmp_path)
    async with (
        controller(at, tmp_path, *HERE, pod="one") as one,
        controller(at, tmp_path, *HERE, pod="other") as other,
    ):
        await started(one, other)
        await until(lambda: bool(holder(server)), "one leads")
        first = holder(server)
        leader, standby = (one, other) if first.startswith("one.") else (other, one)
        assert await leader.stops() == 0
        await until(standby.leads, "the other leads")
        assert holder(server) not in {"", first}
        assert await standby.stops() == 0
        assert holder(server) == ""


async def test_a_stop_finishes_the_pass_under_way(server: FakeApiServer, tmp_path: Path) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        await until(one.leads, "it leads")
        server.only = lambda asked: is_ours(asked) and asked.method == "PATCH"
        server.hang = True
        server.cluster.put(an_observer())
        await until(lambda: any(map(is_patch, server.asked)), "a pass writes")
        one.send(signal.SIGTERM)
        await until(lambda: "stopping" in one.log.read_text(), "it stops")
        assert one.code is None
        assert holder(server)
        server.hang = False
        assert await one.ended(STOP_SECONDS) == 0
        assert holder(server) == ""
        assert is_there(server, STATEFUL_SETS), "the pass was finished"


def is_patch(asked: Asked) -> bool:
    return is_ours(asked) and asked.method == "PATCH"


async def test_a_stop_waits_for_no_api_server_that_hangs(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        await until(one.leads, "it leads")
        server.only = is_patch
        server.hang = True
        server.cluster.put(an_observer())
        await until(lambda: any(map(is_patch, server.asked)), "a pass is in the middle of a write")
        server.only = lambda asked: True
        server.drop_watches()
        assert await one.stops() == 0
        server.hang = False


async def test_the_election_uses_just_the_rights_on_its_lease(
    server: FakeApiServer, tmp_path: Path
) -> None:
    at = config(server, tmp_path)
    options = ("--namespace", "served", "--lease-namespace", "test")
    async with (
        controller(at, tmp_path, *options, pod="one") as one,
        controller(at, tmp_path, *options, pod="other") as other,
    ):
        await started(one, other)
        await until(lambda: bool(holder(server)), "one leads")
        leader, standby = (one, other) if holder(server).startswith("one.") else (other, one)
        assert await leader.stops() == 0
        await until(standby.leads, "the other leads")
        here = [asked for asked in server.asked if "/namespaces/test/" in asked.path]
        assert {right_of(asked) for asked in here} == OWN.keys()


def right_of(asked: Asked) -> Right:
    """What a role must have for a request about a Lease."""
    assert "/apis/coordination.k8s.io/v1/" in asked.path, asked
    verbs = {"GET": "watch" if asked.watch else "get", "POST": "create", "PUT": "update"}
    return Right("coordination.k8s.io", "leases", verbs.get(asked.method, asked.method))


async def test_who_loses_the_lease_ends_at_once_with_an_error(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        await until(one.leads, "it leads")
        server.cluster.edit(
            {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": names.MANAGER, "namespace": "test"},
                "spec": {"holderIdentity": "somebody else", "leaseTransitions": 9},
            }
        )
        assert await one.ended() == 1
        assert "Lease is lost" in one.log.read_text()


async def test_a_replica_waits_for_its_definition_and_for_its_return(
    server: FakeApiServer, tmp_path: Path
) -> None:
    server.serves_crd = False
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await until(one.leads, "it leads")
        assert (await one.ask("readyz"))[0] == 503
        assert (await one.ask("healthz"))[0] == 200
        server.serves_crd = True
        await started(one)
        server.cluster.put(an_observer())
        await until(lambda: is_there(server, STATEFUL_SETS), "it works")
        server.serves_crd = False
        server.forget_history()
        ended = "controller_watches_ended_total"
        await until(lambda: more(one, ended, 0), "the watches ended")
        server.serves_crd = True
        server.cluster.put(an_observer("second"))
        await until(lambda: is_there(server, STATEFUL_SETS, "second"), "it works again")
        assert one.code is None
        assert "apply its CustomResourceDefinition" in one.log.read_text()


async def test_a_deletion_that_no_watch_told_is_found_by_a_list(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE, *OFTEN) as one:
        await started(one)
        # Suspended there are no pods to wait for: nothing is under way.
        spec: dict[str, Any] = {"replicas": 1, "redis": {"mode": "None"}, "suspend": True}
        server.cluster.put(an_aggregator("test", **spec))
        await until(lambda: is_there(server, SERVICES), "it works")
        await at_rest(server, one)
        drift = "controller_drift_repaired_total"
        assert await one.metric(drift) == 0.0
        server.is_silent = True
        server.cluster.remove(SERVICES, "test", "demo")
        server.forget_history()
        server.is_silent = False
        await until(lambda: is_there(server, SERVICES), "it is made again")
        await until(lambda: more(one, drift, 0), "and counted")
        assert one.code is None


async def test_watches_without_a_word_are_made_up_for_by_lists(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE, *OFTEN) as one:
        await started(one)
        await until(one.leads, "it leads")
        server.is_silent = True
        server.cluster.put(an_observer())
        await until(lambda: is_there(server, STATEFUL_SETS), "it is found")
        server.cluster.edit(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "demo", "namespace": "test"},
                "spec": {"sessionAffinity": "ClientIP", "type": "NodePort"},
            }
        )

        def is_repaired() -> bool:
            found = server.cluster.read(SERVICES, "test", "demo")
            return found is not None and found["spec"]["type"] == "ClusterIP"

        await until(is_repaired, "it is repaired")


@pytest.mark.parametrize("status", [409, 429, 500])
async def test_a_storm_passes(server: FakeApiServer, tmp_path: Path, status: int) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        await until(one.leads, "it leads")
        with server.failing(status, only=is_ours, retry_after="1"):
            server.cluster.put(an_observer())
            result = "conflict" if status == 409 else "away"
            failed = f'controller_reconciles_total{{result="{result}"}}'
            await until(lambda: more(one, failed, 1), "passes fail, again and again")
            assert not is_there(server, STATEFUL_SETS)
        await until(lambda: is_there(server, STATEFUL_SETS), "it is made")
        await until(lambda: done_with(one), "and nothing is left")
        assert one.code is None


async def done_with(one: Controller) -> bool:
    return await one.metric("controller_queue_failing") == 0.0


async def test_without_an_api_server_it_waits_until_there_is_one(
    server: FakeApiServer, tmp_path: Path
) -> None:
    server.hang = True
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await until(lambda: answers(one, "healthz"), "the probes answer")
        assert not await one.is_ready()
        server.hang = False
        server.cluster.put(an_observer())
        await until(lambda: is_there(server, STATEFUL_SETS), "it works")
        await started(one)


async def answers(one: Controller, path: str) -> bool:
    return (await one.ask(path))[0] == 200


async def test_a_missing_right_is_told_with_what_to_do(
    server: FakeApiServer, tmp_path: Path
) -> None:
    async with controller(config(server, tmp_path), tmp_path, *HERE) as one:
        await started(one)
        await until(one.leads, "it leads")
        of_pods = lambda asked: is_ours(asked) and asked.path.endswith("/pods")  # noqa: E731
        with server.failing(403, only=of_pods):
            server.cluster.put(an_observer())
            await until(lambda: "compare our roles" in one.log.read_text(), "what to do is told")
        await until(lambda: is_there(server, STATEFUL_SETS), "it works then")


async def test_only_the_namespaces_that_were_named_are_served(
    server: FakeApiServer, tmp_path: Path
) -> None:
    options = ("--namespace", "one", "--namespace", "other", "--lease-namespace", "test")
    async with controller(config(server, tmp_path), tmp_path, *options) as one:
        await started(one)
        for namespace in ("stranger", "one", "other"):
            resource = an_observer()
            resource["metadata"] = {"name": "demo", "namespace": namespace}
            server.cluster.put(resource)
        for namespace in ("one", "other"):
            await until(
                lambda: server.cluster.read(STATEFUL_SETS, namespace, "demo") is not None,  # noqa: B023
                "it is served",
            )
        assert server.cluster.read(STATEFUL_SETS, "stranger", "demo") is None
        assert not any("/stranger/" in asked.path for asked in server.asked)


async def test_all_namespaces_are_served_where_that_is_wanted(
    server: FakeApiServer, tmp_path: Path
) -> None:
    options = ("--all-namespaces", "--lease-namespace", "test")
    async with controller(config(server, tmp_path), tmp_path, *options) as one:
        await started(one)
        resource = an_observer()
        resource["metadata"] = {"name": "demo", "namespace": "anywhere"}
        server.cluster.put(resource)
        await until(
            lambda: server.cluster.read(STATEFUL_SETS, "anywhere", "demo") is not None,
            "it is served",
        )
        assert all(
            "/namespaces/" not in asked.path
            for asked in server.asked
            if asked.watch and "/leases" not in asked.path
        )
    assert ports.LEASES.plural == "leases"
