"""Pure: one ``AlignedAggregator`` as it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from controller.api import checks
from controller.api.spec import AggregatorSpec
from controller.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource whose spec was understood."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: AggregatorSpec
    annotations: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    """As it is stored; compared and carried on, not believed."""


def parse(manifest: Mapping[str, Any]) -> Resource:
    """Return the resource that a manifest describes.

    Raises:
        InvalidSpec: Its spec cannot be understood, although the API server took it.
    """
    metadata = manifest["metadata"]
    try:
        spec = AggregatorSpec.model_validate(manifest.get("spec") or {})
    except ValidationError as invalid:
        problems = tuple(
            f"spec.{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in invalid.errors()
        )
        raise InvalidSpec(problems) from invalid
    if misfits := checks.problems(spec):
        raise InvalidSpec(misfits)
    return Resource(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=spec,
        annotations=metadata.get("annotations") or {},
        status=manifest.get("status") or {},
    )
