"""Pure: the page about the resource, made of the CRD's own schema, ``docs/resource.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.api import crd

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# The AlignedAggregator resource

`kubectl apply -f` of one resource yields a running aggregator: see
[examples/aggregator.yaml](../examples/aggregator.yaml) for the smallest,
[aggregator-production.yaml](../examples/aggregator-production.yaml) and
[aggregator-testnet.yaml](../examples/aggregator-testnet.yaml).
`kubectl explain aagg.spec --recursive` tells the same as this page.

Group `aligned-aggregator.io`, version `v1alpha1`, short name `aagg`. Secrets are always references
`{name, key}` into the resource's namespace. Durations are `250ms`, `15s`, `1m30s`, `168h`; fees
`30gwei`, `1.5gwei`. What does not fit is refused by the API server with a message that says what to
write instead.

This page is generated from `controller/api` by `make docs`.
"""


def page() -> str:
    """Return the page."""
    schema = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [_HEAD, *_checked(schema)]
    for name in ("spec", "status"):
        parts += _sections(name, schema["properties"][name])
    return "\n".join(parts)


def _sections(path: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"## `{path}`\n"
    yield f"{schema.get('description', '')}\n"
    required = set(schema.get("required", ()))
    rows = [
        f"| `{key}` | {_default(member, required=key in required)} | {_kind(member)} "
        f"| {member.get('description', '')} |"
        for key, member in schema["properties"].items()
    ]
    yield "\n".join(["| field | default | type | meaning |", "|---|---|---|---|", *rows, ""])
    yield from _checked(schema)
    for key, member in schema["properties"].items():
        if "properties" in member:
            yield from _sections(f"{path}.{key}", member)
        elif "properties" in member.get("items", {}):
            yield from _sections(f"{path}.{key}[]", member["items"])


def _checked(schema: dict[str, Any]) -> Iterator[str]:
    if rules := schema.get("x-kubernetes-validations"):
        yield "\n".join(["Checked:", "", *(f"* {rule['message']}" for rule in rules), ""])


def _default(schema: dict[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    if "default" not in schema or schema["type"] == "object":
        return ""
    value = schema["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema["type"])
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if kind == "object" and "additionalProperties" in schema:
        return "map of text"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{kind}, {least} to {most}"
    return kind
