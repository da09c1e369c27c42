"""Each rule of the CRD, at an API server that enforces it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import yaml

from controller.api import rules
from controller.api.spec import AggregatorSpec
from controller.kubeconfig import api_server
from controller.ports import AGGREGATORS
from controller.resource import parse
from tests.kubernetes import Admin, an_aggregator, kubeconfig, path_of

EXAMPLES = Path(__file__).parents[2] / "examples"
ADDRESS = "0x" + "ab" * 20
CONTRACTS = {
    "serviceManager": ADDRESS,
    "registryCoordinator": ADDRESS,
    "operatorStateRetriever": ADDRESS,
}
KEY = {"name": "key", "key": "it"}
WEB3 = {"url": "https://signer.example.org", "address": ADDRESS}
SENTINELS = {"sentinels": ["redis-0:26379"], "masterName": "aggregator"}


def chain(**fields: Any) -> dict[str, Any]:
    return {"chain": {"endpoints": [{"name": "a", "url": "http://a"}], **fields}}


def endpoint(url: str) -> dict[str, Any]:
    return chain(endpoints=[{"name": "a", "url": url}])


def observing(**fields: Any) -> dict[str, Any]:
    return {"submission": {"mode": "Observe", **fields}}


def remote_signer(url: str) -> dict[str, Any]:
    return {"signer": {"type": "Web3Signer", "web3Signer": WEB3 | {"url": url}}}


def external(**fields: Any) -> dict[str, Any]:
    return {"redis": {"mode": "External", "external": fields}}


class Place(NamedTuple):
    admin: Admin
    namespace: str

    async def create(self, manifest: Mapping[str, Any]) -> tuple[int, Any]:
        return await self.admin.try_call("POST", path_of(AGGREGATORS, self.namespace), manifest)

    async def change(self, name: str, spec: Mapping[str, Any]) -> tuple[int, Any]:
        path = path_of(AGGREGATORS, self.namespace, name)
        content = "application/merge-patch+json"
        return await self.admin.try_call("PATCH", path, {"spec": spec}, content)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    with api_server({}, kubeconfig()) as server:
        async with Admin(server) as admin, admin.namespace("crd") as namespace:
            await admin.apply_crd()
            yield Place(admin, namespace)


pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"submission": {"mode": "Active"}}, "signer is required unless"),
    ({"redis": {"mode": "None"}}, "write replicas: 1"),
    (
        {"replicas": 1, "redis": {"mode": "None"}, "journal": {"mode": "Ephemeral"}},
        "Ephemeral needs Redis",
    ),
    ({"network": {}}, "write either preset, or chainId"),
    ({"network": {"preset": "Mainnet", "chainId": 1}}, "write either preset, or chainId"),
    ({"network": {"chainId": 1}}, "chainId and contracts belong together"),
    ({"chain": {"endpoints": [{"name": "a"}]}}, "write either url, or urlSecretRef"),
    (
        {
            "chain": {
                "endpoints": [{"name": "a", "url": "http://a"}, {"name": "a", "url": "http://b"}]
            }
        },
        "Duplicate value",
    ),
    ({"signer": {"type": "Keystore"}}, "with type Keystore, and only then, keystore"),
    ({"signer": {"type": "Web3Signer"}}, "with type Web3Signer, and only then, web3Signer"),
    ({"signer": {"type": "Keystore", "keystore": {}}}, "write either keystoreSecretRef, or file"),
    (
        {
            "signer": {
                "type": "Keystore",
                "keystore": {"file": "/a", "passwordFile": "/b", "passwordSecretRef": KEY},
            }
        },
        "write passwordSecretRef or passwordFile, not both",
    ),
    (
        {"signer": {"type": "Web3Signer", "web3Signer": WEB3 | {"clientKeySecretRef": KEY}}},
        "clientCertificateSecretRef and clientKeySecretRef belong together",
    ),
    (
        {
            "signer": {
                "type": "Web3Signer",
                "web3Signer": WEB3 | {"url": "http://signer", "caSecretRef": KEY},
            }
        },
        "certificates need a url with https://",
    ),
    ({"aggregation": {"window": "2h", "expiry": "1h"}}, "window must be shorter than expiry"),
    ({"aggregation": {"window": "15"}}, "should match"),
    ({"redis": {"mode": "External"}}, "with mode External, and only then, external"),
    ({"redis": {"mode": "External", "external": {}}}, "write either sentinels, or url"),
    (
        {"redis": {"mode": "External", "external": SENTINELS, "managed": {}}},
        "managed is for mode Managed",
    ),
    (
        {"redis": {"mode": "External", "external": {"sentinels": ["a:1"]}}},
        "masterName is required with sentinels",
    ),
    (
        {
            "redis": {
                "mode": "External",
                "external": {"url": "redis://a", "sentinelUsername": "me"},
            }
        },
        "are for sentinels, not for url",
    ),
    (
        {"redis": {"mode": "External", "external": SENTINELS | {"tls": {"keySecretRef": KEY}}}},
        "certificateSecretRef and keySecretRef belong together",
    ),
    ({"service": {"nodePort": 30000}}, "nodePort needs type"),
    ({"service": {"externalTrafficPolicy": "Local"}}, "externalTrafficPolicy needs type"),
    ({"service": {"loadBalancerClass": "it"}}, "loadBalancerClass needs type"),
    ({"service": {"proxyProtocol": {"version": "V2"}}}, "trustedCidrs is required"),
    ({"replicas": 0}, "greater than or equal to 1"),
    ({"submission": {"mode": "Observe", "maxFeePerGas": "30"}}, "should match"),
    ({"chain": {"endpoints": []}}, "at least 1 item"),
    (chain(pollInterval="0s"), "pollInterval must be longer than 0s"),
    (chain(requestTimeout="0ms"), "requestTimeout must be longer than 0s"),
    (observing(resubmitAfter="0.0h"), "resubmitAfter must be longer than 0s"),
    (chain(pollInterval="9999999999h"), "pollInterval must be longer"),
    *(
        (endpoint(url), "url needs a host, if any a port from 1 to 65535: write")
        for url in ("http://a:99999", "http://a:0", "http:///x", "http://[zz]", "http://:1")
    ),
    (remote_signer("https://a:99999"), "url needs a host"),
    *(
        (external(url=url), "url needs a host")
        for url in ("redis://a:99999", "redis://[zz]/1", "rediss:///1")
    ),
    (external(url="redis://a/abc"), "nothing behind but the number of a database"),
    *(
        (external(sentinels=["a:1", each], masterName="m"), "sentinels need ports from 1 to 65535")
        for each in ("a:0", "a:65536", "[::1]:99999")
    ),
    (observing(maxFeePerGas="0.5wei"), "should match"),
    (observing(maxFeePerGas="0.0000000001gwei"), "should match"),
]

TAKEN: list[dict[str, Any]] = [
    chain(pollInterval="0s1ms", requestTimeout="0.25h1.5m"),
    observing(resubmitAfter="1ms", maxFeePerGas="1.123456789gwei"),
    *(
        endpoint(url)
        for url in (
            "http://a",
            "http://a:65535",
            "https://[2001:db8::1]:8545/v3?key=a%20b#c",
            "https://a.b-c_d/[x]",
            "http://10.0.0.1?a:b",
        )
    ),
    remote_signer("https://signer:9000/"),
    *(
        external(url=url)
        for url in ("redis://a", "rediss://a:1/", "redis://[fd00::1]:6379/12", "redis://a/0/")
    ),
    external(sentinels=["a:1", "[fd00::1]:65535", "10.0.0.1:26379"], masterName="m"),
]

CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"network": {"preset": "Devnet"}}, "network cannot be changed"),
    (
        {},
        {"redis": {"mode": "External", "external": SENTINELS}},
        "can be changed only while suspended",
    ),
    (
        {"redis": {"mode": "External", "external": SENTINELS}},
        {"redis": {"external": {"masterName": "other"}}},
        "can be changed only while suspended",
    ),
    (
        {"suspend": True},
        {"suspend": False, "redis": {"mode": "External", "external": SENTINELS}},
        "can be changed only while suspended",
    ),
    ({}, {"journal": {"mode": "Ephemeral"}}, "journal.mode cannot be changed"),
    ({}, {"journal": {"size": "512Mi"}}, "can only grow"),
    ({}, {"journal": {"storageClassName": "fast"}}, "storageClassName cannot be changed"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED, ids=[message for _, message in REFUSED])
async def test_what_cannot_be_is_refused_with_what_to_write(
    place: Place, spec: dict[str, Any], message: str
) -> None:
    status, answer = await place.create(an_aggregator(place.namespace, "refused", **spec))
    assert status == 422, answer
    assert message in answer["message"]


@pytest.mark.parametrize(("number", "spec"), list(enumerate(TAKEN)))
async def test_what_is_odd_and_can_be_is_taken(
    place: Place, number: int, spec: dict[str, Any]
) -> None:
    status, answer = await place.create(an_aggregator(place.namespace, f"odd-{number}", **spec))
    assert status == 201, answer
    assert parse(answer).name == f"odd-{number}"


@pytest.mark.parametrize(
    ("number", "name"), list(enumerate(["Begins", "1begins", "dots.in-it", "a" * 41]))
)
async def test_names_that_objects_cannot_have_are_refused(
    place: Place, number: int, name: str
) -> None:
    status, answer = await place.create(an_aggregator(place.namespace, name))
    assert status == 422, (number, answer)
    assert number == 0 or "metadata.name must begin with a letter" in answer["message"]


@pytest.mark.parametrize(
    ("number", "before", "after", "message"),
    [(number, *change) for number, change in enumerate(CHANGES)],
)
async def test_changes_that_cannot_be_are_refused_with_what_to_do(
    place: Place, number: int, before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    name = f"changed-{number}"
    status, answer = await place.create(an_aggregator(place.namespace, name, **before))
    assert status == 201, answer
    status, answer = await place.change(name, after)
    assert status == 422, answer
    assert message in answer["message"]


async def test_redis_can_be_changed_while_suspended(place: Place) -> None:
    suspended = an_aggregator(place.namespace, "suspended", suspend=True)
    assert (await place.create(suspended))[0] == 201
    change = {"redis": {"mode": "External", "external": SENTINELS}}
    status, answer = await place.change("suspended", change)
    assert status == 200, answer


async def test_journals_may_grow(place: Place) -> None:
    assert (await place.create(an_aggregator(place.namespace, "growing")))[0] == 201
    assert (await place.change("growing", {"journal": {"size": "1.5Gi"}}))[0] == 200


async def test_every_rule_has_a_case() -> None:
    said = [message for _, message in REFUSED] + [message for *_, message in CHANGES]
    every = [rule.message for model in rules.RULES.values() for rule in model]
    assert [message for message in every if not any(part in message for part in said)] == []


async def test_the_models_parse_what_is_stored(place: Place) -> None:
    """And it is what they would have taken from the file itself: the defaults are the same."""
    for number, path in enumerate(sorted(EXAMPLES.glob("aggregator*.yaml"))):
        manifest = yaml.safe_load(path.read_text())
        if manifest.get("kind") != "AlignedAggregator":
            continue
        manifest["metadata"] |= {"namespace": place.namespace, "name": f"example-{number}"}
        status, stored = await place.create(copy.deepcopy(manifest))
        assert status == 201, stored
        assert parse(stored).spec == AggregatorSpec.model_validate(manifest["spec"])
        once_more = AggregatorSpec.model_validate(stored["spec"])
        assert once_more.model_dump(by_alias=True) == parse(stored).spec.model_dump(by_alias=True)


async def test_a_size_that_no_volume_can_have_can_be_set_back(place: Place) -> None:
    assert (await place.create(an_aggregator(place.namespace)))[0] == 201
    assert (await place.change("demo", {"journal": {"size": "2Gi"}}))[0] == 200
    assert (await place.change("demo", {"journal": {"size": "1Gi"}}))[0] == 422
    stalled = {
        "type": "Stalled",
        "status": "True",
        "observedGeneration": 2,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "VolumeCannotGrow",
    }
    await place.admin.merge(
        path_of(AGGREGATORS, place.namespace, "demo", "status"),
        {"status": {"conditions": [stalled]}},
    )
    assert (await place.change("demo", {"journal": {"size": "1Gi"}}))[0] == 200
