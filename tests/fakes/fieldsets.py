"""Which fields a manifest sets, as server-side apply counts them. For the fake API server only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "endpoints": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists that are merged by key; every other one is a value. ``ports`` has two forms."""

Item = tuple[tuple[str, Any], ...]
"""An item of a list, by the values of its keys."""
Path = tuple[str | Item, ...]

IDENTITY = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
    ("metadata", "resourceVersion"),
    ("metadata", "generation"),
    ("metadata", "creationTimestamp"),
    ("metadata", "deletionTimestamp"),
    ("metadata", "managedFields"),
}


def fields(manifest: dict[str, Any]) -> dict[Path, Any]:
    """Return the fields that a manifest sets; items of keyed lists count as fields themselves."""
    return {path: value for path, value in _walk(manifest, ()) if path not in IDENTITY}


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path in IDENTITY:
        return
    if isinstance(value, dict) and (value or not path):
        for name, below in value.items():
            yield from _walk(below, (*path, name))
        return
    keys = _keys(value, path)
    if keys is None:
        yield path, value
        return
    for each in value:
        item = (*path, _item(each, keys))
        yield item, None
        for name, below in each.items():
            yield from _walk(below, (*item, name))


def _keys(value: Any, path: Path) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not value or not path or not isinstance(path[-1], str):
        return None
    if path[-1] == "ports":
        keys = ("containerPort" if "containerPort" in value[0] else "port", "protocol")
        return keys if isinstance(value[0], dict) and keys[0] in value[0] else None
    known = KEYS.get(path[-1])
    if known and all(isinstance(each, dict) and known[0] in each for each in value):
        return known
    return None


def _item(each: dict[str, Any], keys: tuple[str, ...]) -> Item:
    defaults = {"protocol": "TCP"}
    return tuple((key, each.get(key, defaults.get(key))) for key in keys)


def put(manifest: dict[str, Any], path: Path, value: Any) -> None:
    """Set one field; items that are missing on the way are made."""
    at: Any = manifest
    for step, following in zip(path, (*path[1:], None), strict=True):
        if isinstance(step, tuple):
            at = _entry(at, step)
        elif following is None:
            at[step] = value
        else:
            empty: Any = [] if isinstance(following, tuple) else {}
            if not isinstance(at.get(step), type(empty)):
                at[step] = empty
            at = at[step]


def _entry(items: list[dict[str, Any]], item: Item) -> dict[str, Any]:
    for each in items:
        if _item(each, tuple(key for key, _ in item)) == item:
            return each
    items.append(dict(item))
    return items[-1]


def drop(manifest: dict[str, Any], path: Path) -> None:
    """Remove one field, and maps and lists that are empty then."""
    trail: list[Any] = [manifest]
    for step in path[:-1]:
        below = _find(trail[-1], step)
        if below is None:
            return
        trail.append(below)
    _remove(trail[-1], path[-1])
    for depth in range(len(path) - 1, 0, -1):
        if trail[depth] not in ({}, []) or isinstance(path[depth - 1], tuple):
            return
        _remove(trail[depth - 1], path[depth - 1])


def _find(at: Any, step: str | Item) -> Any:
    if isinstance(step, str):
        return at.get(step)
    keys = tuple(key for key, _ in step)
    return next((each for each in at if _item(each, keys) == step), None)


def _remove(at: Any, step: str | Item) -> None:
    if isinstance(step, str):
        at.pop(step, None)
    elif (each := _find(at, step)) is not None:
        at.remove(each)


def fields_v1(paths: set[Path]) -> dict[str, Any]:
    """Return paths as ``managedFields`` has them."""
    tree: dict[str, Any] = {}
    for path in sorted(paths, key=repr):
        at = tree
        for step in path:
            name = (
                f"f:{step}"
                if isinstance(step, str)
                else "k:" + json.dumps(dict(step), separators=(",", ":"), sort_keys=True)
            )
            at = at.setdefault(name, {})
        if isinstance(path[-1], tuple):
            at["."] = {}
    return tree
