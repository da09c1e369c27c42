"""Pure: a managed Redis, three pods of a server and a Sentinel each, in memory only.

``redis_node`` says how they find out who is the primary, and how they stop. Each pod announces the
address of a Service of its own, so those are created first; the others need their addresses.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from controller import names, ports
from controller.api.spec import ManagedRedis
from controller.desired import digest, overlay
from controller.desired.manifest import apart, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from controller.desired.known import Known
    from controller.ports import Manifest
    from controller.resource import Resource

USERS = ("aggregator", "failover", "probe", "replica", "sentinel")
"""ACL users; each has a password in the Secret under its name."""

AGGREGATOR_USER = "aggregator"
"""The daemon's, of servers and Sentinels."""

AGGREGATOR_PASSWORD = AGGREGATOR_USER
"""Its key in the Secret."""

SERVER = "redis"
SENTINEL = "sentinel"
START = "start"
"""Containers, for templates that people merge over ours."""

_CONFIG, _SECRETS, _DATA = "/config", "/secrets", "/data"
_GRACE_SECONDS = 60
"""stop.sh takes 15 s at most, the server's own end 10 s."""

_UID = 65532
"""Published images of the servers begin as root. A cluster that assigns uids itself (OpenShift)
needs ``template: {spec: {securityContext: {$patch: replace, runAsNonRoot: true}}}``."""

_REQUESTS = {"cpu": "50m", "memory": "128Mi"}
_LIMITS = {"memory": "256Mi"}
_DATA_PERCENT = 40
"""Of the container's memory for data: a replica that syncs anew has the old and the new."""

_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def new_passwords(token: Callable[[], str]) -> dict[str, str]:
    """Return a password for each user.

    Args:
        token: Returns another secret at each call, printable ASCII without quotes.
    """
    return {user: token() for user in USERS}


def redis_secret(resource: Resource, passwords: Mapping[str, str]) -> Manifest:
    """Return the Secret with the users' passwords; it is created once and never read."""
    data = {user: base64.b64encode(passwords[user].encode()).decode() for user in USERS}
    return manifest(
        ports.SECRETS, resource, names.redis(resource.name), names.REDIS, type="Opaque", data=data
    )


def redis_services(resource: Resource) -> tuple[Manifest, ...]:
    """Return the Service of each pod by ordinal; a living one is never made anew."""
    return tuple(_service(resource, ordinal) for ordinal in range(names.REDIS_PODS))


def _service(resource: Resource, ordinal: int) -> Manifest:
    name = names.redis_service(resource.name, ordinal)
    selector = names.selector(resource.name, names.REDIS)
    spec = {
        "type": "ClusterIP",
        "ipFamilyPolicy": "SingleStack",
        "publishNotReadyAddresses": True,
        "selector": selector | {"statefulset.kubernetes.io/pod-name": name},
        "ports": _service_ports(),
    }
    return manifest(ports.SERVICES, resource, name, names.REDIS, spec=spec)


def redis_headless(resource: Resource) -> Manifest:
    """Return the Service that gives the pods their names."""
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": names.selector(resource.name, names.REDIS),
        "ports": _service_ports(),
    }
    name = names.redis_headless(resource.name)
    return manifest(ports.SERVICES, resource, name, names.REDIS, spec=spec)


def _service_ports() -> list[dict[str, Any]]:
    numbers = {"tcp-redis": names.REDIS_PORT, "tcp-sentinel": names.SENTINEL_PORT}
    return [
        {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}
        for name, number in numbers.items()
    ]


def redis_group(resource: Resource, known: Known) -> tuple[Manifest, ...]:
    """Return configuration, pods and budget; nothing while a pod's Service has no address.

    Raises:
        InvalidSpec: The person's pod template cannot be merged over ours.
    """
    if len(known.redis_addresses) != names.REDIS_PODS:
        return ()
    files = _files(resource, known.redis_addresses)
    config = names.redis_config(resource.name, digest.content(json.dumps(files, sort_keys=True)))
    return (
        manifest(ports.CONFIG_MAPS, resource, config, names.REDIS, immutable=True, data=files),
        _stateful_set(resource, known, config),
        _budget(resource),
    )


def redis_settings(resource: Resource, known: Known) -> str:
    """Return the digest of what a person set and of the addresses: another one, another pod."""
    managed = _managed(resource)
    facts = {
        "addresses": known.redis_addresses,
        "asked": managed.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"image"}
        ),
        "image": _image(resource, known),
        "restartedAt": known.redis_restarted_at,
    }
    return digest.of({key: fact for key, fact in facts.items() if fact})


def _managed(resource: Resource) -> ManagedRedis:
    return resource.spec.redis.managed or ManagedRedis()


def _image(resource: Resource, known: Known) -> str:
    """Return the image that the servers get in the end, by template or otherwise."""
    managed = _managed(resource)
    return known.redis_image(overlay.image(managed.template, SERVER) or managed.image)


@cache
def _scripts() -> dict[str, str]:
    folder = resources.files("controller.redis_node") / "files"
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def _files(resource: Resource, addresses: tuple[str, ...]) -> dict[str, str]:
    memory = int(_bytes(_resources(resource)))
    limits = (
        f"maxmemory {memory * _DATA_PERCENT // 100}\n"
        f"repl-backlog-size {memory // 16}\n"
        f"client-output-buffer-limit replica {memory // 8} {memory // 16} 30\n"
    )
    files = dict(sorted(_scripts().items()))
    files["redis.conf"] += limits
    files["nodes"] = "".join(
        f"{address} {_sentinel_id(resource, ordinal)}\n"
        for ordinal, address in enumerate(addresses)
    )
    return files


def _sentinel_id(resource: Resource, ordinal: int) -> str:
    where = f"{resource.namespace}/{resource.name}/{ordinal}"
    return hashlib.sha1(where.encode(), usedforsecurity=False).hexdigest()


def _resources(resource: Resource) -> dict[str, dict[str, str]]:
    asked = _managed(resource).resources
    if asked is None:
        return {"requests": dict(_REQUESTS), "limits": dict(_LIMITS)}
    return {"requests": dict(asked.requests), "limits": dict(asked.limits)}


def _bytes(asked: Mapping[str, Mapping[str, str]]) -> float:
    """Return the memory that a server may use: its limit, else its request, else the default."""
    quantity = next(
        (asked[kind]["memory"] for kind in ("limits", "requests") if "memory" in asked[kind]),
        _LIMITS["memory"],
    )
    for unit, factor in (*_BINARY_UNITS.items(), *_UNITS.items()):
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    return float(quantity)


def _stateful_set(resource: Resource, known: Known, config: str) -> Manifest:
    managed = _managed(resource)
    template = overlay.merge(
        _template(resource, known, config), managed.template, "spec.redis.managed.template"
    )
    spec = {
        "replicas": 0 if resource.spec.suspend else names.REDIS_PODS,
        "serviceName": names.redis_headless(resource.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": names.selector(resource.name, names.REDIS)},
        "template": template,
    }
    name = names.redis(resource.name)
    return manifest(ports.STATEFUL_SETS, resource, name, names.REDIS, spec=spec)


def _template(resource: Resource, known: Known, config: str) -> Manifest:
    annotations = {
        names.SETTINGS_HASH: redis_settings(resource, known),
        "kubectl.kubernetes.io/default-container": SERVER,
    }
    if known.redis_restarted_at is not None:
        annotations[names.RESTARTED_AT] = known.redis_restarted_at
    image = _image(resource, known)
    return {
        "metadata": {
            "labels": names.labels(resource, names.REDIS),
            "annotations": annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _UID,
                "runAsGroup": _UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": [{"name": ref.name} for ref in resource.spec.image_pull_secrets],
            "affinity": {"podAntiAffinity": apart(resource, names.REDIS)},
            "initContainers": [_start(digest.image(resource, known))],
            "containers": [_server(image, _resources(resource)), _sentinel(image)],
            "volumes": [
                {"name": "config", "configMap": {"name": config}},
                {
                    "name": "secrets",
                    "secret": {"secretName": names.redis(resource.name), "defaultMode": 0o444},
                },
                {"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            ],
        },
    }


def _container(name: str, image: str, command: list[str], asked: Manifest) -> Manifest:
    return {
        "name": name,
        "image": image,
        "command": command,
        "resources": asked,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG, "readOnly": True},
            {"name": "secrets", "mountPath": _SECRETS, "readOnly": True},
            {"name": "data", "mountPath": _DATA},
        ],
    }


def _start(image: str) -> Manifest:
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
    command = ["redis-node", "start", "--pod", "$(POD_NAME)"]
    pod = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return _container(START, image, command, small) | {"env": [pod]}


def _server(image: str, asked: Manifest) -> Manifest:
    port = {"name": "tcp-redis", "containerPort": names.REDIS_PORT, "protocol": "TCP"}
    return _container(SERVER, image, _script("server.sh"), asked) | {
        "ports": [port],
        "lifecycle": {"preStop": {"exec": {"command": _script("stop.sh")}}},
        # Once started again it may wait for 10 s until another primary was promoted.
        "startupProbe": _probe("alive", period=2, failures=30),
        "livenessProbe": _probe("alive", period=10, failures=6),
        "readinessProbe": _probe("ready", period=5, failures=2),
    }


def _sentinel(image: str) -> Manifest:
    small = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}
    port = {"name": "tcp-sentinel", "containerPort": names.SENTINEL_PORT, "protocol": "TCP"}
    return _container(SENTINEL, image, _script("sentinel.sh"), small) | {
        "ports": [port],
        "lifecycle": {"preStop": {"exec": {"command": _script("hold.sh")}}},
        "startupProbe": _probe("sentinel", period=2, failures=30),
        "livenessProbe": _probe("sentinel", period=10, failures=6),
        "readinessProbe": _probe("sentinel", period=5, failures=2),
    }


def _script(name: str, *words: str) -> list[str]:
    return ["sh", f"{_CONFIG}/{name}", _DATA, *words]


def _probe(question: str, *, period: int, failures: int) -> Manifest:
    return {
        "exec": {"command": _script("probe.sh", question)},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _budget(resource: Resource) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": names.selector(resource.name, names.REDIS)},
    }
    name = names.redis(resource.name)
    return manifest(ports.DISRUPTION_BUDGETS, resource, name, names.REDIS, spec=spec)
