"""Pure: what objects are called, how they are labelled and whom they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.resource import Resource

DOMAIN = "aligned-aggregator.io"
VERSION = "v1alpha1"
API_VERSION = f"{DOMAIN}/{VERSION}"
KIND = "AlignedAggregator"
PLURAL = "alignedaggregators"

MANAGER = "aligned-aggregator-operator"
"""Field manager of server-side apply, and value of the managed-by label."""

MANAGED_BY = "app.kubernetes.io/managed-by"
"""Selects what the watches see."""

OWNER = f"{DOMAIN}/name"
"""Label: the resource's name. With ``COMPONENT`` it selects pods; never
``app.kubernetes.io/instance``, which Argo CD sets for itself."""

OWNER_UID = f"{DOMAIN}/uid"
"""Label: the resource's uid. Only what carries it is ever pruned."""

COMPONENT = f"{DOMAIN}/component"
"""Label: ``aggregator`` or ``redis``."""

AGGREGATOR = "aggregator"
REDIS = "redis"

SETTINGS_HASH = f"{DOMAIN}/settings-hash"
"""Pod annotation: hash of what the user set. A pod whose hash is another one is to be replaced;
how the release of the controller renders it does not matter."""

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""Template annotation of ``kubectl rollout restart``, honoured as part of what the user set."""

RPC_PORT = 8090
TELEMETRY_PORT = 9091
REDIS_PORT = 6379
SENTINEL_PORT = 26379
REDIS_PODS = 3
MASTER_NAME = "aggregator"
"""What Sentinels call the primary."""


def headless(name: str) -> str:
    """Return the Service that gives the aggregator's pods their names."""
    return f"{name}-pods"


def metrics(name: str) -> str:
    """Return the Service that monitoring scrapes."""
    return f"{name}-metrics"


def redis(name: str) -> str:
    """Return what the Redis group's set, Secret, policy and budget are called."""
    return f"{name}-redis"


def redis_headless(name: str) -> str:
    """Return the Service that gives Redis pods their names."""
    return f"{name}-redis-pods"


def redis_service(name: str, ordinal: int) -> str:
    """Return the Service whose address one Redis pod announces; its pod is called the same."""
    return f"{name}-redis-{ordinal}"


def config(name: str, digest: str) -> str:
    """Return the immutable ConfigMap with content of that digest."""
    return f"{name}-config-{digest}"


def redis_config(name: str, digest: str) -> str:
    """Return the immutable ConfigMap of the Redis group with content of that digest."""
    return f"{name}-redis-{digest}"


def selector(name: str, component: str) -> dict[str, str]:
    """Return the labels that select a component's pods; they never change."""
    return {OWNER: name, COMPONENT: component}


def labels(resource: Resource, component: str | None = None) -> dict[str, str]:
    """Return the labels that an object of the resource carries."""
    mine = {
        MANAGED_BY: MANAGER,
        "app.kubernetes.io/name": "aligned-aggregator",
        "app.kubernetes.io/part-of": "aligned",
        OWNER: resource.name,
        OWNER_UID: resource.uid,
    }
    if component is not None:
        mine |= {COMPONENT: component, "app.kubernetes.io/component": component}
    return mine


def owner_reference(resource: Resource) -> dict[str, Any]:
    """Return the reference that has the garbage collector delete an object with its resource."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owner_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the uid of the ``AlignedAggregator`` that controls an object, if one does."""
    reference = _owner(metadata)
    return None if reference is None else str(reference["uid"])


def owner_name(metadata: Mapping[str, Any]) -> str | None:
    """Return the name of the ``AlignedAggregator`` that controls an object, if one does."""
    reference = _owner(metadata)
    return None if reference is None else str(reference["name"])


def _owner(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and reference.get("kind") == KIND:
            group, _, _ = str(reference.get("apiVersion", "")).partition("/")
            if group == DOMAIN:
                return dict(reference)
    return None
