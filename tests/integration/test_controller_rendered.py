"""A real API server takes what is rendered, and finds nothing to change in it the second time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from controller import desired, names, ports
from controller.api.spec import AggregatorSpec
from controller.desired import access, digest, redis
from controller.desired.known import Known
from controller.kube import KubeCluster
from controller.kubeconfig import api_server
from controller.ports import PODS, SERVICES, Manifest
from controller.resource import Resource, parse
from tests.kubernetes import Admin, kubeconfig
from tests.unit.controller.golden.cases import CASES, RELEASE, Case
from tests.waiting import until

RESTRICTED = {
    "metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


@dataclass(frozen=True)
class Place:
    cluster: KubeCluster
    namespace: str

    async def ask(self, case: Case) -> Resource:
        """Create the case's resource here, but for what only one in a cluster can have."""
        manifest = case.manifest
        manifest["metadata"] = {"name": manifest["metadata"]["name"], "namespace": self.namespace}
        return parse(await self.cluster.create(_lonely(manifest)))

    async def known(self, resource: Resource, release: Known) -> Known:
        """What can be known once the first objects are there."""
        await self.apply(resource, release)
        if not desired.is_waiting(resource, release):
            return release
        addresses = []
        for ordinal in range(names.REDIS_PODS):
            name = names.redis_service(resource.name, ordinal)
            service = await self.cluster.get(SERVICES, self.namespace, name)
            assert service is not None
            addresses.append(service["spec"]["clusterIP"])
        return Known(release=RELEASE, redis_addresses=tuple(addresses))

    async def apply(self, resource: Resource, known: Known) -> list[Manifest]:
        return [await self.cluster.apply(manifest) for manifest in desired.render(resource, known)]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    with api_server({}, kubeconfig()) as server:
        cluster = KubeCluster(server)
        try:
            async with Admin(server) as admin, admin.namespace("rendered") as namespace:
                await admin.apply_crd()
                await admin.merge(f"/api/v1/namespaces/{namespace}", RESTRICTED)
                yield Place(cluster, namespace)
        finally:
            await cluster.aclose()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_an_api_server_takes_all_of_it_and_once_is_enough(case: Case, place: Place) -> None:
    resource = await place.ask(case)
    known = await place.known(resource, Known(release=RELEASE, term=case.known.term))
    if (lease := access.lease(resource, known)) is not None:
        assert (await place.cluster.create(lease))["spec"] == lease["spec"]
    first = await place.apply(resource, known)
    for manifest, stored in zip(desired.render(resource, known), first, strict=True):
        assert stored["metadata"]["labels"] == manifest["metadata"]["labels"]
        assert ports.kind_of(stored) == ports.kind_of(manifest)
    again = await place.apply(resource, known)
    assert [versions(each) for each in again] == [versions(each) for each in first]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "suspended"], ids=lambda case: case.name
)
async def test_its_pods_are_let_into_a_restricted_namespace(case: Case, place: Place) -> None:
    resource = await place.ask(case)
    known = await place.known(resource, Known(release=RELEASE))
    passwords = redis.new_passwords(lambda: "secret")
    await place.cluster.create(redis.redis_secret(resource, passwords))
    stored = await place.apply(resource, known)
    wanted: int = sum(each["spec"]["replicas"] for each in stored if each["kind"] == "StatefulSet")

    async def all_made() -> bool:
        return wanted == len(await place.cluster.list(PODS, place.namespace))

    await until(all_made, f"{wanted} pods are made")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_defaults_that_the_api_server_fills_in_change_nothing(
    case: Case, place: Place
) -> None:
    stored = await place.ask(case)
    asked = parse(_lonely(case.manifest))
    assert stored.spec == asked.spec
    known = Known(release=RELEASE, redis_addresses=case.known.redis_addresses)
    assert digest.settings(stored, known) == digest.settings(asked, known)


SERVICES_IN_TURN: tuple[dict[str, Any], ...] = (
    {},
    {"type": "NodePort", "externalTrafficPolicy": "Local"},
    {"type": "LoadBalancer", "loadBalancerClass": "example.org/a", "sourceRanges": ["10.0.0.0/8"]},
    {"type": "NodePort", "annotations": {"example.org/a": "b"}},
    {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "port": 8091},
    {"ipFamilyPolicy": "PreferDualStack", "port": 8090},
    {"type": "LoadBalancer"},
    {},
)


async def test_the_operators_service_becomes_any_other_and_keeps_its_address(place: Place) -> None:
    (case,) = (case for case in CASES if case.name == "redis-none")
    resource = await place.ask(case)
    seen = []
    for asked in SERVICES_IN_TURN:
        spec = case.manifest["spec"] | {"service": asked}
        changed = replace(resource, spec=AggregatorSpec.model_validate(spec))
        stored = await place.apply(changed, case.known)
        (service,) = (
            each
            for each in stored
            if each["kind"] == "Service" and each["metadata"]["name"] == resource.name
        )
        seen.append((service["metadata"]["uid"], service["spec"]["clusterIP"]))
        assert service["spec"]["type"] == asked.get("type", "ClusterIP")
        assert [port["port"] for port in service["spec"]["ports"]] == [asked.get("port", 8090)]
        assert ("loadBalancerClass" in service["spec"]) == ("loadBalancerClass" in asked)
        assert service["metadata"].get("annotations") == asked.get("annotations")
    assert len(set(seen)) == 1


def _lonely(manifest: Manifest) -> Manifest:
    """The same without what only one in a cluster can have, or what a cluster would need."""
    spec = deepcopy(manifest["spec"])
    spec.get("service", {}).pop("nodePort", None)
    for pods in (spec, spec.get("redis", {}).get("managed", {})):
        pods.get("template", {}).get("spec", {}).pop("priorityClassName", None)
    return {**manifest, "spec": spec}


def versions(stored: Manifest) -> tuple[str, str, str]:
    """What changes with the object; where there is a status, its own controller writes that."""
    metadata = stored["metadata"]
    version = metadata.get("generation") or metadata["resourceVersion"]
    return stored["kind"], metadata["name"], str(version)
