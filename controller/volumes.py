"""Pure: a set's claims, of which hardly anything can be changed.

A set's claim templates are for ever. Volumes grow by their claims; then the set is deleted without
its pods and made again, so that later replicas get the new size as well.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from controller import compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from controller.ports import Manifest


def settled_set(desired: Manifest, live: Manifest) -> tuple[Manifest, bool]:
    """Return the set as it can be applied, and whether its volumes are to grow.

    A set keeps the claims it was made with until it is made again, for larger ones; volumes never
    shrink.
    """
    asked, given = _templates(desired), _templates(live)
    is_same = asked.keys() == given.keys()
    grows = is_same and any(_is_more(_size(asked[name]), _size(given[name])) for name in asked)
    shrinks = is_same and any(_is_more(_size(given[name]), _size(asked[name])) for name in asked)
    if is_same and not grows and not shrinks:
        return desired, False
    kept = deepcopy(desired)
    kept["spec"].pop("volumeClaimTemplates", None)
    if given:
        kept["spec"]["volumeClaimTemplates"] = [
            {
                "metadata": {"name": name},
                "spec": deepcopy(template["spec"]),
            }
            for name, template in given.items()
        ]
    return kept, grows


def is_bound(claim: Manifest) -> bool:
    """Tell whether a claim has a volume; the API server lets no other one grow."""
    return (claim.get("status") or {}).get("phase") == "Bound"


def claims_to_grow(statefulset: Manifest, claims: Sequence[Manifest]) -> Iterable[Manifest]:
    """Return a patch for each claim of the set that is smaller than asked for."""
    for template, asked in _templates(statefulset).items():
        prefix = f"{template}-{statefulset['metadata']['name']}-"
        for claim in claims:
            name = claim["metadata"]["name"]
            if not name.startswith(prefix) or not name.removeprefix(prefix).isdigit():
                continue
            if _is_more(_size(asked), _size(claim)):
                yield {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {
                        "name": name,
                        "namespace": claim["metadata"]["namespace"],
                        "uid": claim["metadata"]["uid"],
                    },
                    "spec": {"resources": {"requests": {"storage": _size(asked)}}},
                }


def _templates(statefulset: Manifest) -> dict[str, Manifest]:
    templates = statefulset["spec"].get("volumeClaimTemplates") or ()
    return {template["metadata"]["name"]: template for template in templates}


def _size(claim: Mapping[str, Any]) -> str:
    requests = claim["spec"].get("resources", {}).get("requests", {})
    return str(requests.get("storage", "0"))


def _is_more(one: str, other: str) -> bool:
    more, less = compare.quantity(one), compare.quantity(other)
    return more is not None and less is not None and more > less
