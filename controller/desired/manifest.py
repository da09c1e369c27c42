"""Pure: what all objects of a resource have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.ports import Kind, Manifest
    from controller.resource import Resource


def manifest(
    kind: Kind,
    resource: Resource,
    name: str,
    component: str | None = None,
    annotations: Mapping[str, str] | None = None,
    **body: Any,
) -> Manifest:
    """Return an object that carries the resource's labels and belongs to it.

    Args:
        kind: Of the object.
        resource: That it belongs to.
        name: Of the object, in the resource's namespace.
        component: Whose pods it is about, if it is about one component's.
        annotations: Of the object.
        body: What it says beside its metadata.
    """
    metadata: Manifest = {
        "name": name,
        "namespace": resource.namespace,
        "labels": names.labels(resource, component),
        "ownerReferences": [names.owner_reference(resource)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}


def apart(resource: Resource, component: str) -> Manifest:
    """Return an anti-affinity that has a component's pods share no node and no zone, if possible.

    A pod that shares a node is better than none. Topology spread constraints would not do: the
    scheduler ignores all of them where nodes lack one of their labels, as those of zones often are.
    """
    selector = {"matchLabels": names.selector(resource.name, component)}
    weights = {"kubernetes.io/hostname": 100, "topology.kubernetes.io/zone": 50}
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": weight,
                "podAffinityTerm": {"labelSelector": selector, "topologyKey": key},
            }
            for key, weight in weights.items()
        ]
    }
