"""Our client at an API server that fails in every way it can."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from controller.errors import ClusterAway, ClusterError, Conflict, Gone, Refused
from controller.kube import KubeCluster
from controller.kubeconfig import ApiServer, api_server
from controller.ports import CONFIG_MAPS, PODS, Manifest
from tests.fakes.api_server import FakeApiServer
from tests.kubernetes import Admin, kubeconfig


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as one:
        yield one


@pytest.fixture
async def cluster(server: FakeApiServer) -> AsyncIterator[KubeCluster]:
    one = KubeCluster(server.way_in(), call_seconds=5.0, page=2)
    yield one
    await one.aclose()


@pytest.fixture
def recursion() -> Iterator[None]:
    """The interpreter's own limit: libraries that only the daemon has raise it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def a_map(name: str = "one", **data: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "test"},
        "data": data,
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, ClusterAway),
        (403, Refused),
        (405, Refused),
        (408, ClusterAway),
        (409, Conflict),
        (413, Refused),
        (422, Refused),
        (429, ClusterAway),
        (500, ClusterAway),
        (502, ClusterAway),
        (503, ClusterAway),
        (504, ClusterAway),
    ],
)
async def test_every_failure_is_one_of_ours(
    server: FakeApiServer, cluster: KubeCluster, status: int, kind: type[ClusterError]
) -> None:
    with server.failing(status):
        for call in (
            cluster.get(CONFIG_MAPS, "test", "one"),
            cluster.list(CONFIG_MAPS, None),
            cluster.create(a_map()),
            cluster.apply(a_map()),
            cluster.patch(a_map()),
            cluster.delete(CONFIG_MAPS, "test", "one", uid="u"),
        ):
            with pytest.raises(kind) as failed:
                await call
            assert str(status) in str(failed.value)
    assert len(server.asked) == 6, "nothing is tried twice"


async def test_what_is_gone_is_gone(server: FakeApiServer, cluster: KubeCluster) -> None:
    with server.failing(404):
        assert await cluster.get(CONFIG_MAPS, "test", "one") is None
        await cluster.delete(CONFIG_MAPS, "test", "one", uid="u")
        assert await cluster.evict("test", "pod", uid="u")
        for call in (cluster.list(CONFIG_MAPS, None), cluster.apply(a_map())):
            with pytest.raises(Gone):
                await call


@pytest.mark.parametrize(
    ("said", "meant"), [("7", 7.0), (None, None), ("soon", None), ("nan", None)]
)
async def test_who_asks_to_be_left_alone_is_heard(
    server: FakeApiServer, cluster: KubeCluster, said: str | None, meant: float | None
) -> None:
    with server.failing(429, retry_after=said), pytest.raises(ClusterAway) as away:
        await cluster.apply(a_map())
    assert away.value.retry_after == meant


async def test_a_busy_api_server_is_no_disruption_budget(
    server: FakeApiServer, cluster: KubeCluster
) -> None:
    pod = server.cluster.put({**a_map("pod"), "kind": "Pod", "spec": {}})
    only_writes = lambda asked: asked.method == "POST"  # noqa: E731
    with server.failing(429, only=only_writes), pytest.raises(ClusterAway):
        await cluster.evict("test", "pod", uid=pod["metadata"]["uid"])
    assert server.cluster.read(PODS, "test", "pod") is not None


async def test_an_api_server_that_hangs_is_away(server: FakeApiServer) -> None:
    cluster = KubeCluster(server.way_in(), call_seconds=0.1)
    server.hang = True
    with pytest.raises(ClusterAway, match="no answer in time"):
        await cluster.apply(a_map())
    server.hang = False
    assert (await cluster.apply(a_map()))["metadata"]["uid"]
    await cluster.aclose()


async def test_an_api_server_that_is_not_there_is_away() -> None:
    cluster = KubeCluster(ApiServer(url="http://127.0.0.1:1", namespace="test"))
    with pytest.raises(ClusterAway):
        await cluster.get(CONFIG_MAPS, "test", "one")
    await cluster.aclose()


async def test_an_answer_that_is_none_is_an_api_server_away(server: FakeApiServer) -> None:
    cluster = KubeCluster(replace(server.way_in(), url=f"{server.url}/healthz/none?"))
    with pytest.raises(ClusterError):
        await cluster.get(CONFIG_MAPS, "test", "one")
    await cluster.aclose()


@pytest.mark.parametrize(
    "body",
    ['{"details": ["from a proxy"]}', '{"details": {"causes": [7]}}', "[]", "null", "[" * 5000],
)
@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.usefixtures("recursion")
async def test_an_answer_of_something_in_between_is_an_api_server_away(
    body: str, status: int
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        cluster = KubeCluster(ApiServer(url=url, namespace="test"))
        if status == 200 and body.startswith("{"):
            assert await cluster.list(CONFIG_MAPS, None) == []
        else:
            with pytest.raises(ClusterAway):
                await cluster.list(CONFIG_MAPS, None)
        await cluster.aclose()
    finally:
        await runner.cleanup()


async def test_a_list_that_expires_half_way_begins_anew(
    server: FakeApiServer, cluster: KubeCluster
) -> None:
    for name in "abcde":
        server.cluster.put(a_map(name))
    server.expire_lists = 2
    found = await cluster.list(CONFIG_MAPS, "test")
    assert [each["metadata"]["name"] for each in found] == list("abcde")
    assert {each["kind"] for each in found} == {"ConfigMap"}


async def test_a_list_that_always_expires_is_asked_for_in_one_piece(
    server: FakeApiServer, cluster: KubeCluster
) -> None:
    for name in "abcde":
        server.cluster.put(a_map(name))
    server.expire_lists = 1000
    assert len(await cluster.list(CONFIG_MAPS, "test")) == 5


async def test_a_renewed_token_is_used_after_a_refusal(
    server: FakeApiServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    server.tokens = {"first"}
    seconds = [0.0]
    cluster = KubeCluster(replace(server.way_in(), token_file=token), clock=lambda: seconds[0])
    assert await cluster.get(CONFIG_MAPS, "test", "one") is None
    token.write_text("second")
    assert await cluster.get(CONFIG_MAPS, "test", "one") is None, "the old one is kept a while"
    server.tokens = {"second"}
    with pytest.raises(ClusterAway):
        await cluster.get(CONFIG_MAPS, "test", "one")
    assert await cluster.get(CONFIG_MAPS, "test", "one") is None
    token.write_text("third")
    seconds[0] = 61.0
    server.tokens = {"third"}
    assert await cluster.get(CONFIG_MAPS, "test", "one") is None
    await cluster.aclose()


async def test_a_token_that_cannot_be_read_is_an_api_server_away(tmp_path: Path) -> None:
    way_in = ApiServer(url="http://127.0.0.1:1", namespace="t", token_file=tmp_path / "none")
    cluster = KubeCluster(way_in)
    with pytest.raises(ClusterAway):
        await cluster.get(CONFIG_MAPS, "test", "one")
    await cluster.aclose()


# What only a real one knows.


@pytest.fixture
async def real() -> AsyncIterator[tuple[KubeCluster, str]]:
    with api_server({}, kubeconfig()) as way_in:
        one = KubeCluster(way_in)
        try:
            async with Admin(way_in) as admin, admin.namespace("kube") as namespace:
                yield one, namespace
        finally:
            await one.aclose()


async def test_fields_of_a_wrong_type_are_refused_for_good(real: tuple[KubeCluster, str]) -> None:
    cluster, namespace = real
    wrong = a_map() | {"data": {"a": 5}}
    wrong["metadata"]["namespace"] = namespace
    with pytest.raises(Refused, match="expected string"):
        await cluster.apply(wrong)


async def test_a_pod_of_two_budgets_is_refused_to_us_for_good(
    real: tuple[KubeCluster, str],
) -> None:
    cluster, namespace = real
    labels = {"app": "one"}
    for name in ("ours", "theirs"):
        await cluster.create(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
            }
        )
    pod = await cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "one", "namespace": namespace, "labels": labels},
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [{"name": "one", "image": "one"}],
            },
        }
    )
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "one", "namespace": namespace},
            "status": ready,
        },
        subresource="status",
    )
    with pytest.raises(Refused, match="more than one PodDisruptionBudget"):
        await cluster.evict(namespace, "one", uid=pod["metadata"]["uid"])


async def test_a_namespace_that_is_not_there_is_gone(real: tuple[KubeCluster, str]) -> None:
    cluster, namespace = real
    lost = a_map()
    lost["metadata"]["namespace"] = f"{namespace}-not"
    with pytest.raises(Gone):
        await cluster.apply(lost)


async def test_more_objects_than_a_page_are_listed_whole(real: tuple[KubeCluster, str]) -> None:
    cluster, namespace = real
    small = KubeCluster(cluster._server, page=3)
    for number in range(10):
        one = a_map(f"map-{number}")
        one["metadata"] |= {"namespace": namespace, "labels": {"many": "yes"}}
        await cluster.create(one)
    found = await small.list(CONFIG_MAPS, namespace, {"many": "yes"})
    assert [each["metadata"]["name"] for each in found] == [f"map-{n}" for n in range(10)]
    await small.aclose()
