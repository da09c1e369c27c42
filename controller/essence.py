"""Pure: what of a watched object matters to us, and to which resource.

Most events say nothing new: a Lease that was renewed, a pod whose probe ran, a manager that was
noted. They must cost next to nothing, however many leaders renew.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from controller import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REMEMBERED = 20_000
"""Objects whose essence is kept; one that was forgotten costs one pass too many."""

_HANDOVER = (f"{names.DOMAIN}/handover-to", f"{names.DOMAIN}/fenced")
"""Annotations of a Lease that people set, or the elector for them."""


class Key(NamedTuple):
    """One resource of ours."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(manifest: Mapping[str, Any]) -> Key | None:
    """Return the resource that an object is, or belongs to: by its owner, else by its label."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    if manifest.get("kind") == names.KIND:
        return Key(namespace, metadata["name"])
    owner = names.owner_name(metadata)
    name = owner if owner is not None else (metadata.get("labels") or {}).get(names.OWNER)
    return Key(namespace, name) if name else None


class Seen:
    """What was last seen of each object."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._digests: OrderedDict[str, bytes] = OrderedDict()
        self._remembered = remembered

    def is_news(self, event: str | None, manifest: Mapping[str, Any]) -> bool:
        """Tell whether anybody should look, and remember what was seen.

        Args:
            event: ``ADDED``, ``MODIFIED`` or ``DELETED``; None: of a list.
            manifest: The object.
        """
        uid = str(manifest["metadata"].get("uid"))
        if event == "DELETED":
            self._digests.pop(uid, None)
            return True
        digest = _digest(manifest)
        before = self._digests.pop(uid, None)
        self._digests[uid] = digest
        if len(self._digests) > self._remembered:
            self._digests.popitem(last=False)
        return digest != before


def _digest(manifest: Mapping[str, Any]) -> bytes:
    text = json.dumps(essence(manifest), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def essence(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an object matters; two that have the same are the same to us."""
    metadata = manifest["metadata"]
    kept = {
        "deleted": "deletionTimestamp" in metadata,
        "labels": metadata.get("labels"),
        "owners": metadata.get("ownerReferences"),
    }
    special = _SPECIAL.get(str(manifest.get("kind")))
    if special is not None:
        return kept | special(manifest)
    rest = {part: value for part, value in manifest.items() if part != "metadata"}
    return kept | rest | {"annotations": metadata.get("annotations")}


def _of_lease(lease: Mapping[str, Any]) -> dict[str, Any]:
    spec = lease.get("spec") or {}
    annotations = lease["metadata"].get("annotations") or {}
    return {
        "holder": spec.get("holderIdentity") or "",
        "term": spec.get("leaseTransitions") or 0,
        "asked": [annotations.get(name) for name in _HANDOVER],
    }


def _of_pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    status = pod.get("status") or {}
    containers = (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    )
    return {
        "annotations": pod["metadata"].get("annotations"),
        "spec": pod.get("spec"),
        "phase": status.get("phase"),
        "address": status.get("podIP"),
        "conditions": [
            [each.get(part) for part in ("type", "status", "reason")]
            for each in status.get("conditions") or ()
        ],
        "containers": [_of_container(each) for each in containers],
    }


def _of_container(status: Mapping[str, Any]) -> list[Any]:
    state = status.get("state") or {}
    reasons = {name: (said or {}).get("reason") for name, said in state.items()}
    return [*(status.get(part) for part in ("name", "ready", "image", "restartCount")), reasons]


_SPECIAL: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "Lease": _of_lease,
    "Pod": _of_pod,
}
