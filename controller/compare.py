"""Pure: whether an object is as it should be, although the API server wrote more into it.

An object is as it should be when everything that is desired is in it, and nothing is left in it
that we set once and do not desire any more. The second is known from ``managedFields``, so no
digest has to be stored and other managers' fields are not our business.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from controller import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Path = tuple[str, ...]
"""Field names and list items, from the top."""

_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
}
"""Lists whose items have an identity: others may add to them. ``ports`` has two forms.

Source: ``x-kubernetes-list-map-keys`` of the API server's schema."""

_QUANTITIES = frozenset({"requests", "limits", "sizeLimit", "capacity", "hard"})
"""Below these, values are quantities, which the API server rewrites."""

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}

_OURS_ALONE = frozenset({"apiVersion", "kind", "status"})
"""Not compared: they say which object it is, or are not applied."""


def differences(desired: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the fields of ``live`` that are not as desired, in order; none: nothing to do."""
    body = {name: value for name, value in desired.items() if name not in _OURS_ALONE}
    body["metadata"] = {
        name: value
        for name, value in desired["metadata"].items()
        if name in {"labels", "annotations", "ownerReferences"}
    }
    wrong = {*_missing(body, live, ()), *_left(_ours(live), desired, ())}
    return tuple(sorted(wrong))


def manager_of(live: Mapping[str, Any], path: Path) -> str:
    """Return who else set a field last; empty: nobody says so."""
    others = [
        (str(entry.get("time", "")), str(entry["manager"]))
        for entry in live["metadata"].get("managedFields") or ()
        if entry.get("manager") != names.MANAGER and _sets(entry.get("fieldsV1") or {}, path)
    ]
    return max(others, default=("", ""))[1]


def quantity(text: object) -> Decimal | None:
    """Return a Kubernetes quantity as a number; None: it is none."""
    written = str(text)
    digits = written.rstrip("numkMGTPEi")
    try:
        return Decimal(digits) * _SUFFIXES[written[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None


def _missing(desired: Any, live: Any, path: Path) -> Iterator[Path]:
    if isinstance(desired, dict) and isinstance(live, dict):
        for name, value in desired.items():
            if name in live:
                yield from _missing(value, live[name], (*path, name))
            elif value not in (None, {}, [], "", False, 0):  # the API server leaves those out
                yield (*path, name)
    elif isinstance(desired, list) and isinstance(live, list):
        yield from _missing_of_list(desired, live, path)
    elif desired != live and not _is_same_quantity(desired, live, path):
        yield path


def _missing_of_list(desired: list[Any], live: list[Any], path: Path) -> Iterator[Path]:
    keys = _keys_of(path[-1], desired)
    if keys is None:
        if len(desired) != len(live):
            yield path
            return
        for index, (one, other) in enumerate(zip(desired, live, strict=True)):
            yield from _missing(one, other, (*path, str(index)))
        return
    for each in desired:
        item = _identity(each, keys)
        found = _item(live, item)
        if found is None:
            yield (*path, _named(item))
        else:
            yield from _missing(each, found, (*path, _named(item)))


def _keys_of(name: str, items: Sequence[Any]) -> tuple[str, ...] | None:
    if not items or not all(isinstance(each, dict) for each in items):
        return None
    if name == "ports":
        number = "containerPort" if "containerPort" in items[0] else "port"
        # A policy's ports are a plain list: their order counts, and some have no number.
        return (number, "protocol") if all("name" in each for each in items) else None
    return _KEYS.get(name)


def _identity(item: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}


def _item(items: Sequence[Any], identity: Mapping[str, Any]) -> Any:
    for each in items:
        if isinstance(each, dict) and _identity(each, tuple(identity)) == identity:
            return each
    return None


def _named(identity: Mapping[str, Any]) -> str:
    return "/".join(str(value) for value in identity.values())


def _is_same_quantity(desired: object, live: object, path: Path) -> bool:
    if not _QUANTITIES.intersection(path):
        return False
    return (asked := quantity(desired)) is not None and asked == quantity(live)


def _ours(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields that we applied, as ``FieldsV1``."""
    for entry in live["metadata"].get("managedFields") or ():
        who = entry.get("manager"), entry.get("operation"), entry.get("subresource", "")
        if who == (names.MANAGER, "Apply", ""):
            return entry.get("fieldsV1") or {}
    return {}


def _left(fields: Mapping[str, Any], desired: Any, path: Path) -> Iterator[Path]:
    """Return what of ``fields`` is not desired."""
    for name, below in fields.items():
        kind, _, rest = name.partition(":")
        if kind == "f" and isinstance(desired, dict):
            found, step = desired.get(rest), rest
        elif kind == "k" and isinstance(desired, list):
            identity = json.loads(rest)
            found, step = _item(desired, identity), _named(identity)
        else:
            continue
        if found is None:
            yield (*path, step)
        elif isinstance(below, dict):
            yield from _left(below, found, (*path, step))


def _sets(fields: Mapping[str, Any], path: Path) -> bool:
    """Return whether ``fields`` names the path, or something above or below it."""
    at = fields
    for step in path:
        if not at:
            return True
        below = at.get(f"f:{step}", _keyed(at, step))
        if below is None:
            return False
        at = below
    return True


def _keyed(fields: Mapping[str, Any], step: str) -> Any:
    for name, below in fields.items():
        if name.startswith("k:") and _named(json.loads(name[2:])) == step:
            return below
    return None
