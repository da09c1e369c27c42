"""Pure: the Services of the aggregator group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller import names, ports
from controller.api.spec import ServiceType, TrafficPolicy
from controller.desired.manifest import manifest

if TYPE_CHECKING:
    from controller.ports import Manifest
    from controller.resource import Resource

RPC = "rpc"
"""The container's port that operators reach."""

TELEMETRY = "telemetry"
"""The container's port with probes, metrics and status."""


def services(resource: Resource) -> list[Manifest]:
    """Return the Services: for operators, for the pods' names, for monitoring."""
    return [_operators(resource), _headless(resource), _metrics(resource)]


def traffic_policy(resource: Resource) -> TrafficPolicy:
    """Return which nodes take connections from outside."""
    service = resource.spec.service
    if service.external_traffic_policy is not None:
        return service.external_traffic_policy
    balanced = service.type is ServiceType.LOAD_BALANCER
    return TrafficPolicy.LOCAL if balanced else TrafficPolicy.CLUSTER


def _operators(resource: Resource) -> Manifest:
    """Where operators connect; the port's name and protocol keep meshes from taking it for HTTP."""
    service = resource.spec.service
    port: Manifest = {
        "name": "tcp-rpc",
        "port": service.port,
        "targetPort": RPC,
        "protocol": "TCP",
        "appProtocol": "tcp",
    }
    spec: Manifest = {
        "type": service.type.value,
        "selector": names.selector(resource.name, names.AGGREGATOR),
        "ports": [port],
        "ipFamilyPolicy": service.ip_family_policy.value,
    }
    if service.type is not ServiceType.CLUSTER_IP:
        spec["externalTrafficPolicy"] = traffic_policy(resource).value
        if service.node_port is not None:
            port["nodePort"] = service.node_port
    if service.type is ServiceType.LOAD_BALANCER:
        if service.load_balancer_class is not None:
            spec["loadBalancerClass"] = service.load_balancer_class
        if service.source_ranges:
            spec["loadBalancerSourceRanges"] = list(service.source_ranges)
    return manifest(
        ports.SERVICES,
        resource,
        resource.name,
        names.AGGREGATOR,
        annotations=service.annotations,
        spec=spec,
    )


def _headless(resource: Resource) -> Manifest:
    port = {"name": "tcp-rpc", "port": names.RPC_PORT, "targetPort": RPC, "protocol": "TCP"}
    return _of_every_pod(resource, names.headless(resource.name), port)


def _metrics(resource: Resource) -> Manifest:
    """What monitoring finds by its port's name; a pod that is not ready is told of as well."""
    port = {
        "name": TELEMETRY,
        "port": names.TELEMETRY_PORT,
        "targetPort": TELEMETRY,
        "protocol": "TCP",
        "appProtocol": "http",
    }
    return _of_every_pod(resource, names.metrics(resource.name), port)


def _of_every_pod(resource: Resource, name: str, port: Manifest) -> Manifest:
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": names.selector(resource.name, names.AGGREGATOR),
        "ports": [port],
    }
    return manifest(ports.SERVICES, resource, name, names.AGGREGATOR, spec=spec)
