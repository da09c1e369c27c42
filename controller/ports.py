"""Ports: the API server as the controller needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from controller import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Manifest = dict[str, Any]
"""An object as JSON has it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    api_version: str
    kind: str
    plural: str


AGGREGATORS = Kind(names.API_VERSION, names.KIND, names.PLURAL)
STATEFUL_SETS = Kind("apps/v1", "StatefulSet", "statefulsets")
PODS = Kind("v1", "Pod", "pods")
SERVICES = Kind("v1", "Service", "services")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")
SECRETS = Kind("v1", "Secret", "secrets")
SERVICE_ACCOUNTS = Kind("v1", "ServiceAccount", "serviceaccounts")
VOLUME_CLAIMS = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
ROLES = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
LEASES = Kind("coordination.k8s.io/v1", "Lease", "leases")
DISRUPTION_BUDGETS = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICIES = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")

OWNED = (
    STATEFUL_SETS,
    SERVICES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    ROLES,
    ROLE_BINDINGS,
    LEASES,
    DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
)
"""Kinds that are rendered, watched and pruned; a closed set. The Redis passwords' Secret is
rendered and never read; volumes are never pruned."""


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """Return the kind of a manifest of ours.

    Raises:
        KeyError: A kind that the controller does not know.
    """
    known = {
        (k.api_version, k.kind): k for k in (*OWNED, AGGREGATORS, PODS, SECRETS, VOLUME_CLAIMS)
    }
    return known[manifest["apiVersion"], manifest["kind"]]


class Cluster(Protocol):
    """The API server.

    Every call has a deadline of its own. All calls raise:
        ClusterAway: No answer in time, or not now; ``Conflict``, ``Refused``: see ``errors``.
    """

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return the object as it is now, or None."""

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """Return all objects with these labels, whole or not at all; None: of all namespaces."""

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create the object; with ``dry_run`` tell only whether that would do, and change nothing.

        Raises:
            Conflict: One of that name exists.
        """

    async def apply(
        self, manifest: Manifest, *, subresource: Literal["status"] | None = None
    ) -> Manifest:
        """Apply what ``manifest`` says, as its field manager, and return the object then.

        With ``metadata.resourceVersion`` or ``uid`` in it the object must be that one.

        Raises:
            Conflict: It is another one.
            Refused: The API server says that it is invalid or not allowed.
        """

    async def patch(self, manifest: Manifest) -> Manifest:
        """Merge what ``manifest`` says into an existing object (JSON merge patch).

        Raises:
            Gone: There is none.
            Conflict: ``metadata.resourceVersion`` or ``uid`` is another one.
        """

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str | None = None,
        orphan: bool = False,
    ) -> None:
        """Delete the object with that uid, if it is still there; ``orphan`` leaves its children.

        Raises:
            Conflict: It is another one by now.
        """

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """Evict the pod with that uid; False: a disruption budget forbids it now.

        One that is gone counts as evicted, also where another one has its name.
        """

    async def record(self, event: Manifest) -> None:
        """Create a core/v1 Event."""
