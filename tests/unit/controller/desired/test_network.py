from __future__ import annotations

from typing import Any

import pytest

from controller import names
from controller.desired import network, policies
from controller.ports import Manifest
from tests.unit.controller.desired.specs import LONE, SMALLEST, resource

RANGES = ["203.0.113.0/24"]
PROXY = {"version": "V2", "trustedCidrs": ["10.0.0.0/8"]}
ANYWHERE: list[Manifest] = []


def operators(service: dict[str, Any]) -> Manifest:
    spec = network.services(resource({"service": service}))[0]["spec"]
    assert isinstance(spec, dict)
    return spec


def rules(spec: dict[str, Any], side: str, pods: int = 0) -> list[Manifest]:
    found = policies.policies(resource(spec))[pods]["spec"].get(side)
    assert isinstance(found, list)
    return found


def numbers(found: list[Manifest]) -> set[int]:
    return {port["port"] for rule in found for port in rule["ports"]}


@pytest.mark.parametrize(
    ("service", "policy"),
    [
        ({}, None),
        ({"type": "NodePort"}, "Cluster"),
        ({"type": "LoadBalancer"}, "Local"),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}, "Cluster"),
    ],
)
def test_a_load_balancer_keeps_the_operators_addresses(
    service: dict[str, Any], policy: str | None
) -> None:
    assert operators(service).get("externalTrafficPolicy") == policy


def test_meshes_take_the_port_for_tcp() -> None:
    (port,) = operators({"port": 9})["ports"]
    assert (port["name"], port["appProtocol"], port["port"]) == ("tcp-rpc", "tcp", 9)


def test_what_only_a_load_balancer_has_is_left_out_elsewhere() -> None:
    asked = {"loadBalancerClass": "a/b", "sourceRanges": RANGES, "nodePort": 30000}
    balanced = operators(asked | {"type": "LoadBalancer"})
    assert balanced["loadBalancerSourceRanges"] == RANGES
    assert balanced["loadBalancerClass"] == "a/b"
    inside = operators(asked)
    assert not {"loadBalancerClass", "loadBalancerSourceRanges"} & inside.keys()
    assert "nodePort" not in inside["ports"][0]


def test_pods_have_names_and_are_scraped_before_they_are_ready() -> None:
    _, headless, metrics = network.services(resource())
    for service in (headless, metrics):
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"]
    assert [port["name"] for port in metrics["spec"]["ports"]] == ["telemetry"]


@pytest.mark.parametrize(
    ("service", "is_limited"),
    [
        ({"type": "LoadBalancer", "sourceRanges": RANGES}, True),
        ({"type": "LoadBalancer"}, False),
        ({"type": "NodePort", "sourceRanges": RANGES}, False),
        (
            {"type": "LoadBalancer", "sourceRanges": RANGES, "externalTrafficPolicy": "Cluster"},
            False,
        ),
        ({"type": "LoadBalancer", "sourceRanges": RANGES, "proxyProtocol": PROXY}, False),
    ],
)
def test_source_ranges_bind_the_pods_only_where_they_see_the_sources(
    service: dict[str, Any], is_limited: bool
) -> None:
    rpc = rules({"service": service}, "ingress")[0]
    assert numbers([rpc]) == {names.RPC_PORT}
    blocks = [peer["ipBlock"]["cidr"] for peer in rpc.get("from", ANYWHERE) if "ipBlock" in peer]
    assert blocks == (RANGES if is_limited else [])
    assert ("from" in rpc) == is_limited


def test_redis_is_open_to_pods_of_the_same_resource_alone() -> None:
    (rule,) = rules({}, "ingress", pods=1)
    assert numbers([rule]) == {names.REDIS_PORT, names.SENTINEL_PORT}
    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [
        names.selector("aggregator", component) for component in (names.AGGREGATOR, names.REDIS)
    ]


def test_what_pods_may_reach_is_limited_in_strict_mode_only() -> None:
    for policy in policies.policies(resource()):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
    for policy in policies.policies(resource({"networkPolicy": {"mode": "Strict"}})):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policies.policies(resource({"networkPolicy": {"mode": "Disabled"}})) == []


def at(**url: object) -> dict[str, Any]:
    return {"chain": {"endpoints": [{"name": "a", **url}]}}


@pytest.mark.parametrize(
    ("spec", "reached"),
    [
        ({}, {53, 5353, 443, 6443, 6379, 26379}),
        (LONE, {53, 5353, 443}),
        (LONE | at(url="http://a:8545"), {53, 5353, 8545}),
        (LONE | at(urlSecretRef={"name": "a", "key": "b"}), {53, 5353, 80, 443, 8545}),
        (
            {
                "redis": {
                    "mode": "External",
                    "external": {"sentinels": ["a:1", "[fd00::1]:2"], "masterName": "m"},
                }
            },
            {53, 5353, 443, 6443, 1, 2, 6379},
        ),
        (
            {"redis": {"mode": "External", "external": {"url": "rediss://a:6380/1"}}},
            {53, 5353, 443, 6443, 6380},
        ),
        (
            LONE
            | {
                "signer": {
                    "type": "Web3Signer",
                    "web3Signer": {"url": "https://s:9000", "address": "0x" + "ab" * 20},
                }
            },
            {53, 5353, 443, 9000},
        ),
        (LONE | at(url="http://a"), {53, 5353, 80}),
    ],
)
def test_strict_pods_reach_what_their_configuration_names(
    spec: dict[str, Any], reached: set[int]
) -> None:
    strict = SMALLEST | spec | {"networkPolicy": {"mode": "Strict"}}
    assert numbers(rules(strict, "egress")) == reached
