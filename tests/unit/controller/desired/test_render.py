from __future__ import annotations

import difflib
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no stubs
import pytest
from hypothesis import given, settings

from controller import desired, names, ports
from controller.desired.known import Known
from controller.ports import Manifest
from tests.unit.controller.desired.specs import (
    FACTS,
    KNOWN,
    LONE,
    PATIENT,
    RELEASE,
    SENTINELS,
    SPECS,
    UID,
    resource,
)
from tests.unit.controller.golden.cases import CASES, Case

KUBERNETES = ("1.29", "1.34", "1.37")


def kinds(manifests: tuple[Manifest, ...]) -> list[str]:
    return [each["kind"] for each in manifests]


def keys(node: Any) -> set[str]:
    if isinstance(node, dict):
        return set(node) | {key for each in node.values() for key in keys(each)}
    return {key for each in node for key in keys(each)} if isinstance(node, list) else set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_rendered_before_is_rendered_still(case: Case) -> None:
    then, now = case.path.read_text(), case.text()
    changed = difflib.unified_diff(then.splitlines(), now.splitlines(), lineterm="", n=2)
    assert then == now, "\n".join(
        ["run `python -m tests.unit.controller.golden` if this is meant:", *changed]
    )


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_object_is_what_its_kind_may_be(case: Case, version: str) -> None:
    for manifest in case.objects():
        kubernetes_validate.validate(manifest, version, strict=True)


@given(SPECS, FACTS)
@settings(PATIENT, max_examples=10)
def test_objects_of_any_resource_are_what_their_kind_may_be(
    spec: dict[str, Any], known: Known
) -> None:
    for manifest in desired.render(resource(spec), known):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


@given(SPECS, FACTS)
@PATIENT
def test_the_same_resource_gives_the_same_objects(spec: dict[str, Any], known: Known) -> None:
    one = desired.render(resource(spec), known)
    assert one == desired.render(resource(spec), known)


@given(SPECS, FACTS)
@PATIENT
def test_objects_are_ours_to_tell_and_to_collect(spec: dict[str, Any], known: Known) -> None:
    manifests = desired.render(resource(spec), known)
    places = {(ports.kind_of(each), each["metadata"]["name"]) for each in manifests}
    assert len(places) == len(manifests)
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "aligned"
        assert metadata["labels"].items() >= names.labels(resource(spec)).items()
        assert names.owner_of(metadata) == UID


@given(SPECS, FACTS)
@PATIENT
def test_what_selects_pods_selects_those_of_its_own_set(spec: dict[str, Any], known: Known) -> None:
    manifests = desired.render(resource(spec), known)
    pods = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in manifests
        if each["kind"] == "StatefulSet"
    ]
    for manifest in manifests:
        selector = _selector(manifest)
        if selector is None or not pods:
            continue
        selector.pop("statefulset.kubernetes.io/pod-name", None)
        chosen = [labels for labels in pods if labels.items() >= selector.items()]
        assert [labels[names.COMPONENT] for labels in chosen] == [
            manifest["metadata"]["labels"][names.COMPONENT]
        ]


def _selector(manifest: Manifest) -> dict[str, str] | None:
    spec = manifest.get("spec", {})
    selector = spec.get("selector") or spec.get("podSelector")
    return None if selector is None else dict(selector.get("matchLabels", selector))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_label_that_argo_cd_takes_for_itself_is_nowhere(case: Case) -> None:
    assert "app.kubernetes.io/instance" not in keys(case.objects())


def test_a_template_can_leave_users_and_groups_to_the_cluster() -> None:
    context = {"securityContext": {"$patch": "replace", "runAsNonRoot": True}}
    template = {"template": {"spec": context}}
    rendered = desired.render(resource(template | {"redis": {"managed": template}}), KNOWN)
    sets = [each for each in rendered if each["kind"] == "StatefulSet"]
    assert len(sets) == 2
    assert not keys(sets) & {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"}


def test_what_others_need_comes_before_them() -> None:
    rendered = kinds(desired.render(resource(), KNOWN))
    order = ["ServiceAccount", "Role", "RoleBinding", "Service", "ConfigMap", "StatefulSet"]
    assert [kind for kind in dict.fromkeys(rendered) if kind in order] == order
    assert rendered[-1] == "StatefulSet"
    assert "Lease" not in rendered


def test_both_sets_wait_for_the_addresses_of_a_managed_redis() -> None:
    waiting = Known(release=RELEASE)
    assert desired.is_waiting(resource(), waiting)
    manifests = desired.render(resource(), waiting)
    assert "StatefulSet" not in kinds(manifests)
    services = [each["metadata"]["name"] for each in manifests if each["kind"] == "Service"]
    assert {
        names.redis_service("aggregator", ordinal) for ordinal in range(names.REDIS_PODS)
    } <= set(services)


@pytest.mark.parametrize("spec", [LONE, SENTINELS])
def test_without_a_managed_redis_nothing_waits_and_nothing_of_it_is_rendered(
    spec: dict[str, Any],
) -> None:
    waiting = Known(release=RELEASE)
    assert not desired.is_waiting(resource(spec), waiting)
    manifests = desired.render(resource(spec), waiting)
    assert kinds(manifests).count("StatefulSet") == 1
    assert {each["metadata"]["labels"][names.COMPONENT] for each in manifests} == {names.AGGREGATOR}
