from __future__ import annotations

from typing import Any

import pytest

from controller.ports import Manifest
from controller.volumes import claims_to_grow, settled_set


def a_set(size: str | None, storage: str | None = None) -> Manifest:
    spec: dict[str, Any] = {"replicas": 3}
    if size is not None:
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "journal"}, "spec": wanted(size)}]
        if storage is not None:
            spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] = storage
    return {"kind": "StatefulSet", "metadata": {"name": "agg"}, "spec": spec}


def wanted(size: str) -> dict[str, Any]:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


def claim(name: str, size: str) -> Manifest:
    metadata = {"name": name, "namespace": "test", "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": wanted(size)}


@pytest.mark.parametrize(
    ("asked", "given", "grows", "applied"),
    [
        ("1Gi", "1Gi", False, "1Gi"),
        ("1024Mi", "1Gi", False, "1024Mi"),
        ("2Gi", "1Gi", True, "1Gi"),
        ("1Gi", "2Gi", False, "2Gi"),
        (None, "1Gi", False, "1Gi"),
    ],
)
def test_a_set_keeps_its_claims_until_it_is_made_again(
    asked: str | None, given: str, grows: bool, applied: str
) -> None:
    settled, found = settled_set(a_set(asked), a_set(given))
    assert found == grows
    [template] = settled["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == applied


def test_a_set_without_claims_gets_none() -> None:
    settled, grows = settled_set(a_set("1Gi"), a_set(None))
    assert not grows
    assert "volumeClaimTemplates" not in settled["spec"]


def test_only_claims_of_the_set_that_are_smaller_are_changed() -> None:
    claims = [
        claim("journal-agg-0", "1Gi"),
        claim("journal-agg-1", "2Gi"),
        claim("journal-agg-2", "4Gi"),
        claim("journal-agg-x", "1Gi"),
        claim("journal-agg-redis-0", "1Gi"),
        claim("other-agg-0", "1Gi"),
    ]
    [patch] = claims_to_grow(a_set("2Gi"), claims)
    assert patch["metadata"] == {
        "name": "journal-agg-0",
        "namespace": "test",
        "uid": "uid-journal-agg-0",
    }
    assert patch["spec"] == {"resources": {"requests": {"storage": "2Gi"}}}
