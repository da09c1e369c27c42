"""Pure: what the pods may ask of the API server: one Lease, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller import names, ports
from controller.api.spec import RedisMode
from controller.desired.manifest import manifest

if TYPE_CHECKING:
    from controller.desired.known import Known
    from controller.ports import Manifest
    from controller.resource import Resource


def is_elected(resource: Resource) -> bool:
    """Tell whether there is a leader to elect: a replica without a shared store is alone."""
    return resource.spec.redis.mode is not RedisMode.NONE


def access(resource: Resource) -> list[Manifest]:
    """Return the pods' account, and its right to that one Lease where there is an election."""
    name = resource.name
    account = manifest(
        ports.SERVICE_ACCOUNTS,
        resource,
        name,
        names.AGGREGATOR,
        automountServiceAccountToken=False,
    )
    if not is_elected(resource):
        return [account]
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "update", "watch"],
    }
    role = manifest(ports.ROLES, resource, name, names.AGGREGATOR, rules=[rule])
    binding = manifest(
        ports.ROLE_BINDINGS,
        resource,
        name,
        names.AGGREGATOR,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": resource.namespace}],
    )
    return [account, role, binding]


def lease(resource: Resource, known: Known) -> Manifest | None:
    """Return the Lease to create where there is none; None: there is no election.

    It is created, never applied: from then on its spec is the replicas' alone. They may not create
    it themselves, as that right cannot be limited to one name. A Lease that somebody deleted is
    made again with the highest term ever seen, so that terms go on rising.
    """
    if not is_elected(resource):
        return None
    return manifest(
        ports.LEASES,
        resource,
        resource.name,
        names.AGGREGATOR,
        spec={"leaseTransitions": known.term},
    )
