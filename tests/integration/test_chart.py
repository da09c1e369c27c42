"""The chart, rendered by the helm that people install it with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no stubs
import pytest
import yaml

from controller import access, app, handlers, lead
from controller.kubeconfig import api_server
from controller.settings import parse as parse_settings
from tests import chart
from tests.integration.controllers import STOP_SECONDS
from tests.kubernetes import Admin, kubeconfig

VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cluster-wide": {"scope": {"mode": "Cluster"}, "flowSchema": {"enabled": True}},
    "several-namespaces": {
        "scope": {"namespaces": ["one", "two"]},
        "flowSchema": {"enabled": True},
        "crds": {"keep": False},
    },
    "one-replica-of-another-name": {
        "replicas": 1,
        "nameOverride": "op",
        "fullnameOverride": "x",
        "serviceAccount": {"name": "who", "annotations": {"a": "b"}},
        "rbac": {"aggregate": False},
        "networkPolicy": {"enabled": False},
        "crds": {"install": False},
    },
    "everything-about-pods": {
        "image": {"repository": "r.example.org/a", "tag": "1@sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "podLabels": {"team": "zk"},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "resources": {"limits": {"memory": "1Gi"}},
        "log": {"level": "debug", "format": "text"},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    },
}
NOT_IN_KUBERNETES = {"AlignedAggregator", "ServiceMonitor"}
REFUSED: dict[str, dict[str, Any]] = {
    "a-typing-error": {"replica": 2},
    "a-typing-error-below": {"image": {"repo": "x"}},
    "an-unknown-mode": {"scope": {"mode": "namespaced"}},
    "a-list-that-says-nothing": {"scope": {"mode": "Cluster", "namespaces": ["one"]}},
    "a-level-of-another-program": {"log": {"level": "trace"}},
}


@pytest.fixture(scope="module")
def helm() -> str:
    found = chart.helm()
    if found is None:
        pytest.skip("helm is not installed: `make chart` builds it where Go is")
    return found


@pytest.fixture(params=VALUES.values(), ids=list(VALUES))
def values(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """Options of helm."""
    return ("--namespace", "home", "--values", written(tmp_path, request.param))


def written(folder: Path, values: dict[str, Any]) -> str:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    return str(file)


def test_what_the_chart_copies_is_what_the_controller_says() -> None:
    for path, text in chart.FILES.items():
        assert path.read_text() == text(), f"{path} is not up to date: make docs"


def test_the_plain_installation_is_what_the_chart_gives(helm: str) -> None:
    assert chart.INSTALL.read_text() == chart.install(helm), "not up to date: make docs"


def test_helm_finds_nothing_to_complain_about(helm: str) -> None:
    command = [helm, "lint", "--strict", "--kube-version", chart.KUBERNETES, str(chart.CHART)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_every_object_fits_the_schemas_of_the_api(
    helm: str, values: tuple[str, ...], version: str
) -> None:
    for each in chart.objects(helm, *values):
        if each["kind"] not in NOT_IN_KUBERNETES | {"CustomResourceDefinition"}:
            kubernetes_validate.validate(each, version, strict=True)


def test_the_controller_understands_how_it_is_called(helm: str, values: tuple[str, ...]) -> None:
    objects = chart.objects(helm, *values)
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["controller", "run"]
    options = options_of(container["args"])
    settings = parse_settings(options, {}, "pod")
    assert settings.image == container["image"]
    assert settings.lease_name == deployment["metadata"]["name"]
    assert settings.telemetry[1] == container["ports"][0]["containerPort"]
    roles = [each for each in objects if each["kind"] in {"Role", "ClusterRole"}]
    served = [each for each in roles if each["rules"] == access.rules(access.SERVED)]
    assert {each["metadata"].get("namespace") for each in served} == (
        {None} if settings.all_namespaces else set(settings.namespaces)
    )


def options_of(arguments: list[str]) -> dict[str, object]:
    """Options as the command line gives them to the settings."""
    options: dict[str, Any] = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if key == "namespace":
            options[key] = (*options.get(key, ()), value)
        else:
            options[key] = value or True
    return options


@pytest.mark.parametrize(
    ("keep", "annotations"), [("true", {"helm.sh/resource-policy": "keep"}), ("false", {})]
)
def test_the_definition_outlives_the_release_where_that_is_wanted(
    helm: str, keep: str, annotations: dict[str, str]
) -> None:
    objects = chart.objects(helm, "--set", f"crds.keep={keep}")
    (found,) = (each for each in objects if each["kind"] == "CustomResourceDefinition")
    assert found["metadata"].get("annotations", {}) == annotations


def test_a_stop_takes_less_time_than_a_pod_has(helm: str, values: tuple[str, ...]) -> None:
    steps = app.DRAIN_SECONDS + lead.RELEASE_SECONDS + handlers.STOP_SECONDS
    objects = chart.objects(helm, *values)
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert steps < STOP_SECONDS < pod["terminationGracePeriodSeconds"]


def test_every_pod_is_selected_by_its_deployment_and_budget(
    helm: str, values: tuple[str, ...]
) -> None:
    objects = chart.objects(helm, *values)
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for each in objects:
        match each["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                selector = each["spec"]["selector"]["matchLabels"]
            case "Service":
                selector = each["spec"]["selector"]
            case "NetworkPolicy":
                selector = each["spec"]["podSelector"]["matchLabels"]
            case _:
                continue
        assert selector.items() <= labels.items(), each["kind"]


@pytest.mark.parametrize("refused", REFUSED.values(), ids=list(REFUSED))
def test_values_that_mean_nothing_are_refused(
    helm: str, refused: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        chart.template(helm, "--values", written(tmp_path, refused))
    assert "values don't meet the specifications of the schema" in raised.value.stderr


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    with api_server({}, kubeconfig()) as server:
        async with Admin(server) as admin:
            yield admin


async def test_an_api_server_takes_every_object(
    helm: str, values: tuple[str, ...], admin: Admin
) -> None:
    await admin.apply_crd()
    async with admin.namespace("chart") as namespace:
        text = chart.template(helm, *values)
        for each in yaml.safe_load_all(text):
            if each and each["kind"] != "ServiceMonitor":
                await dry_run(admin, each, namespace)


async def test_an_api_server_takes_the_plain_installation(admin: Admin) -> None:
    async with admin.namespace("chart") as namespace:
        for each in yaml.safe_load_all(chart.INSTALL.read_text()):
            await dry_run(admin, each, namespace)


async def dry_run(admin: Admin, manifest: dict[str, Any], namespace: str) -> None:
    group, _, _ = manifest["apiVersion"].rpartition("/")
    root = f"/apis/{manifest['apiVersion']}" if group else "/api/v1"
    if "namespace" in manifest["metadata"]:
        manifest["metadata"]["namespace"] = namespace
        root += f"/namespaces/{namespace}"
    plural = {"NetworkPolicy": "networkpolicies"}.get(
        manifest["kind"], manifest["kind"].lower() + "s"
    )
    await admin.call(
        "PATCH",
        f"{root}/{plural}/{manifest['metadata']['name']}"
        "?dryRun=All&fieldManager=chart&force=true&fieldValidation=Strict",
        manifest,
        "application/apply-patch+yaml",
    )
