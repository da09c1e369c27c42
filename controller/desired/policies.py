"""Pure: who may reach the pods, and in strict mode whom they may reach.

Policies name ports and pods, never hosts: addresses behind names change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from controller import names, ports
from controller.api.spec import (
    NetworkPolicyMode,
    ProxyProtocolVersion,
    RedisMode,
    ServiceType,
    TrafficPolicy,
)
from controller.desired import access, network
from controller.desired.manifest import manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controller.api.spec import AggregatorSpec, ExternalRedis
    from controller.ports import Manifest
    from controller.resource import Resource

_DNS_PORTS = (53, 5353)
"""The second is where OpenShift's pods listen, which is what policies see."""

_API_SERVER_PORTS = (443, 6443)
"""Of the Service, and of the server behind it, which is what most networks see."""

_HIDDEN_URL_PORTS = (80, 443, 8545)
"""Where an endpoint may be whose URL only a Secret knows."""

_SCHEME_PORTS = {"http": 80, "https": 443, "redis": names.REDIS_PORT, "rediss": names.REDIS_PORT}


def policies(resource: Resource) -> list[Manifest]:
    """Return the policy of the aggregator's pods, and of Redis's; none if disabled."""
    mode, spec = resource.spec.network_policy.mode, resource.spec
    if mode is NetworkPolicyMode.DISABLED:
        return []
    is_strict = mode is NetworkPolicyMode.STRICT
    ours = _policy(
        resource,
        names.AGGREGATOR,
        ingress=[
            _rule(_tcp([names.RPC_PORT]), _operators(resource), "from"),
            _rule(_tcp([names.TELEMETRY_PORT])),
        ],
        egress=list(_aggregator_egress(resource)) if is_strict else None,
    )
    if spec.redis.mode is not RedisMode.MANAGED:
        return [ours]
    group = _tcp([names.REDIS_PORT, names.SENTINEL_PORT])
    peers = [_pods(resource, names.AGGREGATOR), _pods(resource, names.REDIS)]
    redis = _policy(
        resource,
        names.REDIS,
        ingress=[_rule(group, peers, "from")],
        egress=[_rule(group, [_pods(resource, names.REDIS)], "to")] if is_strict else None,
    )
    return [ours, redis]


def _policy(
    resource: Resource, component: str, ingress: list[Manifest], egress: list[Manifest] | None
) -> Manifest:
    name = resource.name if component == names.AGGREGATOR else names.redis(resource.name)
    spec: Manifest = {
        "podSelector": {"matchLabels": names.selector(resource.name, component)},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    if egress is not None:
        spec["policyTypes"].append("Egress")
        spec["egress"] = egress
    return manifest(ports.NETWORK_POLICIES, resource, name, component, spec=spec)


def _operators(resource: Resource) -> list[Manifest]:
    """Return where operators may be; empty: anywhere.

    Source ranges are about addresses outside. Where a pod sees those of the load balancer or of
    nodes instead, the ranges are the load balancer's business alone.
    """
    service = resource.spec.service
    sees_operators = (
        service.type is ServiceType.LOAD_BALANCER
        and network.traffic_policy(resource) is TrafficPolicy.LOCAL
        and service.proxy_protocol.version is ProxyProtocolVersion.DISABLED
    )
    if not sees_operators or not service.source_ranges:
        return []
    outside: list[Manifest] = [{"ipBlock": {"cidr": cidr}} for cidr in service.source_ranges]
    return [*outside, {"namespaceSelector": {}}]


def _aggregator_egress(resource: Resource) -> Iterator[Manifest]:
    spec = resource.spec
    yield _dns()
    if access.is_elected(resource):
        yield _rule(_tcp(_API_SERVER_PORTS))
    if spec.redis.mode is RedisMode.MANAGED:
        group = _tcp([names.REDIS_PORT, names.SENTINEL_PORT])
        yield _rule(group, [_pods(resource, names.REDIS)], "to")
    if spec.redis.external is not None:
        yield _rule(_tcp(_external_ports(spec.redis.external)))
    yield _rule(_tcp(_url_ports(spec)))


def _external_ports(external: ExternalRedis) -> Iterator[int]:
    """Yield ports of Sentinels and servers; of servers behind Sentinels the usual one."""
    for sentinel in external.sentinels:
        yield int(sentinel.rpartition(":")[2])
    yield _port_of(external.url) if external.url else names.REDIS_PORT


def _url_ports(spec: AggregatorSpec) -> Iterator[int]:
    for endpoint in spec.chain.endpoints:
        if endpoint.url is None:
            yield from _HIDDEN_URL_PORTS
        else:
            yield _port_of(endpoint.url)
    if spec.signer is not None and spec.signer.web3signer is not None:
        yield _port_of(spec.signer.web3signer.url)


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or _SCHEME_PORTS[parts.scheme]


def _rule(to: list[Manifest], peers: list[Manifest] | None = None, side: str = "to") -> Manifest:
    return {side: peers, "ports": to} if peers else {"ports": to}


def _pods(resource: Resource, component: str) -> Manifest:
    return {"podSelector": {"matchLabels": names.selector(resource.name, component)}}


def _tcp(numbers: Iterable[int]) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in sorted(set(numbers))]


def _dns() -> Manifest:
    both = ("TCP", "UDP")
    return {"ports": [{"port": port, "protocol": each} for port in _DNS_PORTS for each in both]}
