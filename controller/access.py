"""Pure: which rights the controller needs, each with who uses it. Roles are made of this.

A test runs the stories of a pass against a recording API server, and compares: a right that is
missing here fails it, and so does one that nothing uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from controller import ports

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.ports import Kind


class By(StrEnum):
    """Who uses a right."""

    PASS = "pass"  # noqa: S105 - no password
    """A pass over a resource."""
    WATCH = "watch"
    """The watches."""
    GRANT = "grant"
    """Nobody: rights that pods are given must be the controller's own."""
    ADMISSION = "admission"
    """Nobody: some clusters ask for it when an object gets a blocking owner."""
    LEAD = "lead"
    """The election among replicas of the controller."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one kind of object."""

    group: str
    """API group; empty: core."""
    resource: str
    """Plural, with the subresource behind a slash."""
    verb: str


def _rights(kind: Kind, by: By, *verbs: str, subresource: str = "") -> dict[Right, By]:
    group = kind.api_version.rpartition("/")[0]
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    return {Right(group, resource, verb): by for verb in verbs}


_WATCHED = ("list", "watch")
_RENDERED = ("get", "list", "create", "patch", "delete")
"""A server-side apply needs create and patch."""

SERVED: dict[Right, By] = {
    **_rights(ports.AGGREGATORS, By.WATCH, *_WATCHED),
    **_rights(ports.AGGREGATORS, By.PASS, "get"),
    **_rights(ports.AGGREGATORS, By.PASS, "patch", subresource="status"),
    **_rights(ports.AGGREGATORS, By.ADMISSION, "update", subresource="finalizers"),
    **{
        right: by
        for kind in ports.OWNED
        for right, by in (
            _rights(kind, By.WATCH, "watch") | _rights(kind, By.PASS, *_RENDERED)
        ).items()
    },
    **_rights(ports.LEASES, By.GRANT, "update"),
    **_rights(ports.PODS, By.WATCH, "watch"),
    **_rights(ports.PODS, By.PASS, "get", "list"),
    **_rights(ports.PODS, By.PASS, "create", subresource="eviction"),
    **_rights(ports.VOLUME_CLAIMS, By.PASS, "list", "patch"),
    **_rights(ports.SECRETS, By.PASS, "create"),
    Right("", "events", "create"): By.PASS,
}
"""In each namespace whose resources are served."""

OWN: dict[Right, By] = _rights(ports.LEASES, By.LEAD, "get", "create", "update", "watch")
"""In the namespace of the controller's own Lease."""


def rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    """Return rights as the rules of a Role, in a fixed order."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in sorted(rights):
        verbs.setdefault((right.group, right.resource), []).append(right.verb)
    resources: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), allowed in verbs.items():
        resources.setdefault((group, tuple(allowed)), []).append(resource)
    return [
        {"apiGroups": [group], "resources": names, "verbs": list(allowed)}
        for (group, allowed), names in sorted(resources.items())
    ]
