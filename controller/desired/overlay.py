"""Pure: a person's partial pod template over ours.

Strategic merge, as ``kubectl patch`` has it: maps are merged by key, the lists below by the key of
their items, every other list is replaced. An item that ours has stays where it is, new ones follow
in their order. Null removes a key; as many tools drop nulls on their way, ``$patch: delete`` in an
item removes it, and ``$patch: replace`` in an item or a map puts it in the place of ours.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from controller.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.ports import Manifest

Path = tuple[str, ...]
"""Of a field, without the items of lists."""

_CONTAINER = {
    "env": "name",
    "ports": "containerPort",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
}

MERGE_KEYS: Mapping[Path, str] = {
    ("spec", "containers"): "name",
    ("spec", "hostAliases"): "ip",
    ("spec", "imagePullSecrets"): "name",
    ("spec", "initContainers"): "name",
    ("spec", "resourceClaims"): "name",
    ("spec", "schedulingGates"): "name",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    ("spec", "volumes"): "name",
    **{
        ("spec", kind, field): key
        for kind in ("containers", "initContainers")
        for field, key in _CONTAINER.items()
    },
}
"""Key that tells the items of a list of a pod template apart.

Source: ``x-kubernetes-patch-merge-key`` in the OpenAPI description of ``PodTemplateSpec``.
"""

_DIRECTIVE = "$patch"


def merge(template: Mapping[str, Any], overlay: Mapping[str, Any] | None, path: str) -> Manifest:
    """Return ``template`` with ``overlay`` merged over it; neither is changed.

    Labels and annotations of ours stay as they are: sets select by them, and rolls go by them.

    Args:
        template: A whole pod template.
        overlay: A partial one; None changes nothing.
        path: Of the overlay in the resource, for messages.

    Raises:
        InvalidSpec: Something in the overlay is not of the kind that the template has there.
    """
    merged = _map(template, overlay or {}, (), path)
    ours = template["metadata"]
    metadata = _expected(dict, merged.setdefault("metadata", {}), f"{path}.metadata")
    for kind in ("labels", "annotations"):
        asked = _expected(dict, metadata.get(kind, {}), f"{path}.metadata.{kind}")
        if both := asked | ours.get(kind, {}):
            metadata[kind] = both
    return merged


def image(overlay: Mapping[str, Any] | None, container: str) -> str | None:
    """Return the image that an overlay asks for in place of ours; None: it leaves it."""
    containers = _below(overlay, "spec", "containers")
    for each in containers if isinstance(containers, list) else ():
        if _below(each, "name") == container and isinstance(asked := _below(each, "image"), str):
            return asked
    return None


def _below(node: Any, *path: str) -> Any:
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _map(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: Path, path: str) -> Manifest:
    theirs = dict(theirs)
    if _directive(theirs, path) == "replace":
        ours = {}
    merged = deepcopy(dict(ours))
    for key, value in theirs.items():
        here = f"{path}.{key}"
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _value(merged.get(key), value, (*at, key), here)
    return merged


def _value(ours: Any, theirs: Any, at: Path, path: str) -> Any:
    if at in MERGE_KEYS:
        return _list([] if ours is None else ours, _expected(list, theirs, path), at, path)
    if isinstance(theirs, dict) and (ours is None or isinstance(ours, dict)):
        return _map(ours or {}, theirs, at, path)
    if isinstance(ours, dict | list):
        _expected(type(ours), theirs, path)
    return deepcopy(theirs)


def _list(ours: list[Any], theirs: list[Any], at: Path, path: str) -> list[Any]:
    key = MERGE_KEYS[at]
    merged = {item[key]: item for item in ours}
    for index, each in enumerate(theirs):
        here = f"{path}[{index}]"
        item = dict(_expected(dict, each, here))
        name = item.get(key)
        if not isinstance(name, str | int):
            raise InvalidSpec((f"{here}.{key}: required, it tells the items apart",))
        if item.get(_DIRECTIVE) == "delete":
            merged.pop(name, None)
        else:
            merged[name] = _map(merged.get(name, {}), item, at, here)
    return list(merged.values())


def _directive(theirs: dict[str, Any], path: str) -> object:
    directive = theirs.pop(_DIRECTIVE, None)
    if directive not in (None, "merge", "replace"):  # anything may be there, also what has no hash
        problem = "must be merge or replace, or, in an item of a list with a key, delete"
        raise InvalidSpec((f"{path}.{_DIRECTIVE}: {problem}",))
    return directive


def _expected(kind: type[Any], value: Any, path: str) -> Any:
    if not isinstance(value, kind):
        what = "a list" if kind is list else "a mapping"
        raise InvalidSpec((f"{path}: must be {what}",))
    return value
