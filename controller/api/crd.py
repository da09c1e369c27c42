"""Pure: the CustomResourceDefinition, made of the models.

A structural schema as ``apiextensions.k8s.io/v1`` wants it: references inlined, no ``anyOf`` with
null, no titles. Defaults are shown where a person would look for them, parents default to ``{}``,
and there are none inside list items: tools that compare what was applied with what is stored
would see a difference for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from controller.api.rules import ROOT, RULES
from controller.api.spec import AggregatorSpec
from controller.api.status import AggregatorStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.api.fields import Part
    from controller.api.rules import Rule

GROUP = "aligned-aggregator.io"
VERSION = "v1alpha1"
KIND = "AlignedAggregator"
PLURAL = "alignedaggregators"

_DROPPED = frozenset({"title", "$defs", "overlay"})
_READY = '.status.conditions[?(@.type=="Ready")]'

_COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("Ready", "string", f"{_READY}.status", 0),
    ("Leader", "string", ".status.leader.pod", 0),
    ("Term", "integer", ".status.leader.term", 0),
    ("Reason", "string", f"{_READY}.reason", 0),
    ("Redis", "string", '.status.conditions[?(@.type=="StoreHealthy")].status', 0),
    ("Last-Failover", "date", ".status.failovers[0].at", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Replicas", "integer", ".status.readyReplicas", 1),
    ("Image", "string", ".status.image", 1),
)
"""Name, type, path, priority: 1 is shown with ``-o wide`` only."""


def crd() -> dict[str, Any]:
    """Return the definition; the same models give the same bytes."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["aagg"],
                "categories": ["aligned"],
            },
            "versions": [_version()],
        },
    }


def text() -> str:
    """Return the definition as the file in ``crds/`` has it."""
    return f"# Made of controller/api by `make docs`.\n{yaml.safe_dump(crd(), sort_keys=False)}"


def _version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} | ({"priority": low} if low else {})
            for name, kind, path, low in _COLUMNS
        ],
        "schema": {
            "openAPIV3Schema": {
                "description": "A highly available BLS aggregator for one Aligned deployment.",
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": schema_of(AggregatorSpec),
                    "status": schema_of(AggregatorStatus),
                },
                "x-kubernetes-validations": _validations(ROOT),
            }
        },
    }


def schema_of(model: type[Part]) -> dict[str, Any]:
    """Return the structural schema of a model."""
    source = model.model_json_schema(by_alias=True)
    return _Inliner(source.get("$defs", {})).convert(source, name=model.__name__)


def _validations(rules: Iterable[Rule]) -> list[dict[str, str]]:
    return [
        {"rule": rule.rule, "message": rule.message}
        | ({"fieldPath": rule.field} if rule.field else {})
        for rule in rules
    ]


class _Inliner:
    """Turns one JSON schema of pydantic's into a structural one."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions

    def convert(
        self, schema: dict[str, Any], *, name: str = "", in_list: bool = False
    ) -> dict[str, Any]:
        """Return the schema without references; ``name`` is of the model it came from."""
        schema = _without_null(schema)
        if "$ref" in schema:
            return self._inlined(schema, in_list=in_list)
        if schema.get("overlay"):
            return _overlay(schema)
        result = {key: value for key, value in schema.items() if key not in _DROPPED}
        if not _is_shown(result.get("default"), in_list=in_list):
            result.pop("default", None)
        if "description" in result:
            result["description"] = _one_line(result["description"])
        if name in RULES:
            result["x-kubernetes-validations"] = _validations(RULES[name])
        return result | self._members(result, in_list=in_list)

    def _members(self, schema: dict[str, Any], *, in_list: bool) -> dict[str, Any]:
        members: dict[str, Any] = {
            key: self.convert(schema[key], in_list=True)
            for key in ("items", "additionalProperties")
            if isinstance(schema.get(key), dict)
        }
        if "properties" in schema:
            members["properties"] = {
                key: self.convert(value, in_list=in_list)
                for key, value in schema["properties"].items()
            }
        return members

    def _inlined(self, schema: dict[str, Any], *, in_list: bool) -> dict[str, Any]:
        name = schema["$ref"].rsplit("/", 1)[-1]
        found = self._definitions[name]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        default = beside.pop("default", None)
        result = self.convert({**found, **beside}, name=name, in_list=in_list)
        if default is not None and not in_list:
            result["default"] = _parent_default(result, default)
        return result


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the one alternative that is not null."""
    alternatives = schema.get("anyOf")
    if alternatives is None:
        return schema
    (real,) = (one for one in alternatives if one.get("type") != "null")
    beside = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**real, **beside}


def _overlay(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": _one_line(schema["description"]),
        "x-kubernetes-preserve-unknown-fields": True,
    }


def _parent_default(schema: dict[str, Any], default: object) -> object:
    """Return the default of an object: ``{}``, as its members have their own.

    Rules see a default before its members have theirs, so where there are any it has the members
    that they may speak of.
    """
    if schema.get("type") != "object":
        return default
    if "x-kubernetes-validations" not in schema:
        return {}
    return {
        key: member["default"]
        for key, member in schema["properties"].items()
        if "default" in member and member["type"] != "object"
    }


def _one_line(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "")


def _is_shown(default: object, *, in_list: bool) -> bool:
    """Tell whether a default is more than "absent"."""
    return not in_list and default not in (None, "", [], {}, ())
