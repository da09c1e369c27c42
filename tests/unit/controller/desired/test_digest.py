from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from controller.desired import digest, redis
from controller.desired.known import Known, Release
from controller.resource import parse
from tests.unit.controller.desired.specs import (
    FACTS,
    KNOWN,
    LONE,
    PATIENT,
    RELEASE,
    SENTINELS,
    SMALLEST,
    SPECS,
    UID,
    resource,
)

BEFORE = digest.settings(resource(), KNOWN)


def test_the_digest_of_the_smallest_resource_is_what_it_was_in_every_release() -> None:
    """Should it ever be another one, every pod of everybody restarts at the upgrade."""
    assert BEFORE == "9032e27b504c8adb"


@pytest.mark.parametrize(
    "spec",
    [
        {"image": "other:1"},
        {"imagePullSecrets": [{"name": "registry"}]},
        {"chain": SMALLEST["chain"] | {"pollInterval": "1s"}},
        {"signer": {"type": "Keystore", "keystore": {"file": "/k"}}},
        {"aggregation": {"window": "1s"}},
        {"submission": {"mode": "Observe"}},
        {"failover": {"profile": "Fast"}},
        {"redis": {"mode": "None"}},
        SENTINELS,
        {"journal": {"mode": "Ephemeral"}},
        {"service": {"proxyProtocol": {"version": "V1", "trustedCidrs": ["10.0.0.0/8"]}}},
        {"limits": {"connections": 5}},
        {"resources": {}},
        {"template": {"spec": {"nodeSelector": {"a": "b"}}}},
    ],
    ids=lambda spec: next(iter(spec)),
)
def test_what_reaches_a_pod_replaces_it(spec: dict[str, Any]) -> None:
    assert digest.settings(resource(spec), KNOWN) != BEFORE


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 5},
        {"suspend": True},
        {"rollout": {"paused": True}},
        {"networkPolicy": {"mode": "Strict"}},
        {"redis": {"managed": {"image": "valkey:2"}}},
        {"journal": {"size": "9Gi", "retention": {"whenDeleted": "Delete"}}},
        {"service": {"type": "LoadBalancer", "port": 1, "sourceRanges": ["10.0.0.0/8"]}},
    ],
    ids=lambda spec: next(iter(spec)),
)
def test_what_no_pod_sees_replaces_none(spec: dict[str, Any]) -> None:
    assert digest.settings(resource(spec), KNOWN) == BEFORE


@given(SPECS, FACTS)
@PATIENT
def test_what_equals_the_default_counts_as_not_set(spec: dict[str, Any], known: Known) -> None:
    asked = resource(spec)
    filled = asked.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    metadata = {"name": "aggregator", "namespace": "aligned", "uid": UID}
    stored = parse({"metadata": metadata, "spec": filled})
    assert digest.settings(stored, known) == digest.settings(asked, known)


@pytest.mark.parametrize(
    "known",
    [
        replace(KNOWN, running_image="running:1"),
        replace(KNOWN, redis_addresses=("10.96.0.10", "10.96.0.11", "10.96.0.13")),
        replace(KNOWN, restarted_at="2026-11-23T12:00:00Z"),
    ],
)
def test_facts_that_reach_a_pod_replace_it(known: Known) -> None:
    assert digest.settings(resource(), known) != BEFORE


def test_facts_of_others_replace_none() -> None:
    known = replace(KNOWN, term=7, running_redis_image="valkey:2", redis_restarted_at="now")
    assert digest.settings(resource(), known) == BEFORE
    lone = digest.settings(resource(LONE), Known(release=RELEASE))
    assert digest.settings(resource(LONE), KNOWN) == lone


def test_a_new_release_of_the_controller_replaces_no_pod_that_runs() -> None:
    running = replace(KNOWN, running_image=RELEASE.image)
    newer = replace(running, release=Release(image="aggregator:2", redis_image="valkey:2"))
    assert digest.settings(resource(), newer) == digest.settings(resource(), running) == BEFORE


def test_an_image_that_runs_and_is_then_asked_for_replaces_no_pod() -> None:
    assert digest.settings(resource({"image": RELEASE.image}), KNOWN) == BEFORE


def test_an_image_of_the_template_replaces_no_pod_once_it_runs() -> None:
    template = {"spec": {"containers": [{"name": "aggregator", "image": "theirs:1"}]}}
    asked = resource({"template": template})
    running = replace(KNOWN, running_image="theirs:1")
    assert digest.image(asked, KNOWN) == "theirs:1"
    assert digest.settings(asked, running) == digest.settings(asked, KNOWN)


def test_an_image_of_the_redis_template_replaces_no_pod_once_it_runs() -> None:
    template = {"spec": {"containers": [{"name": redis.SERVER, "image": "theirs:1"}]}}
    asked = resource({"redis": {"managed": {"template": template}}})
    running = replace(KNOWN, running_redis_image="theirs:1")
    assert redis.redis_settings(asked, running) == redis.redis_settings(asked, KNOWN)


def test_the_size_of_a_journal_in_the_pod_itself_is_the_pods() -> None:
    small, large = (
        digest.settings(resource({"journal": {"mode": "Ephemeral", "size": size}}), KNOWN)
        for size in ("1Gi", "2Gi")
    )
    assert small != large
