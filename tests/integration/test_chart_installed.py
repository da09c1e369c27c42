"""The chart and the plain installation at a real API server, and the controller with their rights.

There need be no nodes: the pods of the Deployment wait for one, and a process runs in their place.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.kubeconfig import api_server
from controller.ports import AGGREGATORS, STATEFUL_SETS
from tests import chart
from tests.cluster.kubectl import Kubectl, run
from tests.integration.controllers import Controller, controller, of_account, started
from tests.kubernetes import Admin, an_aggregator, kubeconfig, path_of
from tests.waiting import until

REFUSED = 'controller_reconciles_total{result="refused"}'


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    """Of a cluster without a definition and without resources."""
    with api_server({}, kubeconfig()) as server:
        async with Admin(server) as admin:
            await admin.needs_to_be_alone()
            await admin.delete_crd()
            yield admin


@pytest.fixture
def helm() -> str:
    found = chart.helm()
    if found is None:
        pytest.skip("helm is not installed: `make chart` builds it where Go is")
    return found


def kubectl_in(namespace: str) -> Kubectl:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    return Kubectl(kubeconfig(), namespace)


@contextmanager
def applied(kubectl: Kubectl, file: Path) -> Iterator[None]:
    """Objects that are deleted again."""
    try:
        kubectl("apply", "-f", str(file))
        yield
    finally:
        kubectl("delete", "-f", str(file), "--ignore-not-found")


def manifests(file: Path) -> list[Any]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def versions_of(kubectl: Kubectl, file: Path) -> dict[tuple[str, str], tuple[str, object]]:
    """What would be another one if any of the objects were made anew or changed."""
    return {
        (each["kind"], metadata["name"]): (
            metadata["uid"],
            metadata.get("generation", metadata["resourceVersion"]),
        )
        for each in kubectl.get("-f", str(file))
        for metadata in [each["metadata"]]
    }


def pod_of(file: Path) -> Any:
    """What the pods of the Deployment are."""
    (deployment,) = (each for each in manifests(file) if each["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]


def options_of(pod: Any, namespace: str) -> tuple[str, ...]:
    """Those of the pod's container, for a process that is in no pod."""
    (container,) = pod["containers"]
    given = (each for each in container["args"] if not each.startswith("--telemetry="))
    return (*given, "--lease-namespace", namespace)


async def serves(one: Controller, admin: Admin, *namespaces: str) -> None:
    """It makes what resources want, and is refused nothing."""
    await started(one)
    for namespace in namespaces:
        await admin.call("POST", path_of(AGGREGATORS, namespace), an_aggregator(namespace))
    for namespace in namespaces:
        await until(lambda: is_served(admin, namespace), f"{namespace} is served")  # noqa: B023
    assert await one.metric(REFUSED) == 0.0
    assert await one.stops() == 0
    assert "forbidden" not in one.log.read_text().lower()


async def is_served(admin: Admin, namespace: str) -> bool:
    made, _ = await admin.try_call("GET", path_of(STATEFUL_SETS, namespace, "demo"))
    _, resource = await admin.try_call("GET", path_of(AGGREGATORS, namespace, "demo"))
    return made == 200 and "conditions" in resource.get("status", {})


async def test_the_plain_installation_is_all_that_the_controller_needs(
    admin: Admin, tmp_path: Path
) -> None:
    kubectl = kubectl_in(chart.NAMESPACE)
    if (await admin.try_call("GET", f"/api/v1/namespaces/{chart.NAMESPACE}"))[0] == 200:
        pytest.skip(f"there is a namespace {chart.NAMESPACE} of others, which would be deleted")
    with applied(kubectl, chart.INSTALL):
        versions = versions_of(kubectl, chart.INSTALL)
        assert versions.keys() == {
            (each["kind"], each["metadata"]["name"]) for each in manifests(chart.INSTALL)
        }
        kubectl("apply", "-f", str(chart.INSTALL))
        assert versions_of(kubectl, chart.INSTALL) == versions
        await admin.crd_is_served()
        pod = pod_of(chart.INSTALL)
        config = await of_account(admin, tmp_path, chart.NAMESPACE, pod["serviceAccountName"])
        async with controller(config, tmp_path, *options_of(pod, chart.NAMESPACE)) as one:
            await serves(one, admin, chart.NAMESPACE)


async def test_a_controller_of_the_whole_cluster_serves_every_namespace(
    admin: Admin, helm: str, tmp_path: Path
) -> None:
    async with (
        admin.namespace("home") as home,
        admin.namespace("one") as first,
        admin.namespace("other") as second,
    ):
        file = tmp_path / "cluster-wide.yaml"
        file.write_text(chart.template(helm, "--namespace", home, "--set", "scope.mode=Cluster"))
        with applied(kubectl_in(home), file):
            await admin.crd_is_served()
            pod = pod_of(file)
            config = await of_account(admin, tmp_path, home, pod["serviceAccountName"])
            async with controller(config, tmp_path, *options_of(pod, home)) as one:
                await serves(one, admin, first, second)


@pytest.mark.parametrize("keep", ["true", "false"])
async def test_a_release_that_goes_takes_the_resources_along_only_if_that_is_wanted(
    admin: Admin, helm: str, keep: str
) -> None:
    async with admin.namespace("release") as namespace:
        flags = ("--kubeconfig", str(kubeconfig()), "--namespace", namespace)
        values = (chart.CHART.name, str(chart.CHART), *flags, "--set", f"crds.keep={keep}")
        run(helm, "install", *values)
        await admin.crd_is_served()
        path = path_of(AGGREGATORS, namespace)
        made = await admin.call("POST", path, an_aggregator(namespace))
        run(helm, "upgrade", *values, "--set", "replicas=1")
        run(helm, "uninstall", chart.CHART.name, *flags)
        deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        assert (await admin.call("GET", deployments))["items"] == []
        if keep == "false":
            await until(admin.crd_is_gone, "the definition is gone")
            return
        found = await admin.call("GET", f"{path}/demo")
        assert found["metadata"]["uid"] == made["metadata"]["uid"]
        assert "deletionTimestamp" not in found["metadata"]
        run(helm, "install", *values)
        run(helm, "uninstall", chart.CHART.name, *flags)
