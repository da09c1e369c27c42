from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, strategies as st

from controller.desired import overlay, workload
from controller.errors import InvalidSpec
from tests.unit.controller.desired.specs import KNOWN, PATIENT, resource

DIRECTIVES = "must be merge or replace, or, in an item of a list with a key, delete"
OURS: dict[str, Any] = {
    "metadata": {"labels": {"ours": "1"}, "annotations": {"hash": "1"}},
    "spec": {
        "grace": 40,
        "securityContext": {"fsGroup": 1, "runAsNonRoot": True},
        "tolerations": [{"key": "a"}],
        "containers": [
            {
                "name": "main",
                "image": "ours",
                "command": ["run", "--config"],
                "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 1, "name": "one"}],
                "volumeMounts": [{"mountPath": "/x", "name": "tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1"}}, {"name": "data"}],
    },
}


def merged(theirs: dict[str, Any]) -> dict[str, Any]:
    return overlay.merge(OURS, theirs, "spec.template")


def main(container: dict[str, Any]) -> dict[str, Any]:
    (found,) = merged({"spec": {"containers": [{"name": "main"} | container]}})["spec"][
        "containers"
    ]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("nothing", [None, {}, {"spec": {}}, {"metadata": {}}])
def test_nothing_changes_nothing(nothing: dict[str, Any] | None) -> None:
    assert overlay.merge(OURS, nothing, "spec.template") == OURS


def test_maps_are_merged_and_null_removes() -> None:
    spec = merged({"spec": {"securityContext": {"fsGroup": None, "runAsUser": 5}, "grace": 60}})
    assert spec["spec"]["securityContext"] == {"runAsNonRoot": True, "runAsUser": 5}
    assert spec["spec"]["grace"] == 60


def test_a_container_of_ours_is_changed_where_it_stands_and_others_follow() -> None:
    containers = [{"name": "side"}, {"name": "main", "image": "theirs"}]
    found = merged({"spec": {"containers": containers}})["spec"]["containers"]
    assert [each["name"] for each in found] == ["main", "side"]
    assert (found[0]["image"], found[0]["env"]) == ("theirs", [{"name": "A", "value": "1"}])


@pytest.mark.parametrize(
    ("field", "theirs", "result"),
    [
        ("env", {"name": "A", "value": "2"}, [{"name": "A", "value": "2"}]),
        ("env", {"name": "B"}, [{"name": "A", "value": "1"}, {"name": "B"}]),
        ("ports", {"containerPort": 1, "hostPort": 2}, [
            {"containerPort": 1, "name": "one", "hostPort": 2}
        ]),
        ("volumeMounts", {"mountPath": "/x", "name": "x"}, [{"mountPath": "/x", "name": "x"}]),
        ("volumeMounts", {"mountPath": "/y", "name": "tmp"}, [
            {"mountPath": "/x", "name": "tmp"}, {"mountPath": "/y", "name": "tmp"}
        ]),
    ],
)  # fmt: skip
def test_lists_of_a_container_are_merged_by_their_key(
    field: str, theirs: dict[str, Any], result: list[dict[str, Any]]
) -> None:
    assert main({field: [theirs]})[field] == result


def test_other_lists_are_replaced() -> None:
    assert main({"command": ["sleep"]})["command"] == ["sleep"]
    tolerations = merged({"spec": {"tolerations": [{"key": "b"}]}})["spec"]["tolerations"]
    assert tolerations == [{"key": "b"}]


def test_a_patch_directive_removes_or_replaces_what_cannot_be_merged() -> None:
    volumes = [
        {"name": "data", "$patch": "delete"},
        {"name": "tmp", "$patch": "replace", "hostPath": {"path": "/x"}},
    ]
    context = {"$patch": "replace", "runAsNonRoot": True}
    spec = merged({"spec": {"volumes": volumes, "securityContext": context}})["spec"]
    assert spec["volumes"] == [{"name": "tmp", "hostPath": {"path": "/x"}}]
    assert spec["securityContext"] == {"runAsNonRoot": True}


def test_what_sets_and_rolls_go_by_stays_ours() -> None:
    theirs = {"labels": {"ours": "2", "mine": "3"}, "annotations": {"hash": "2"}}
    assert merged({"metadata": theirs})["metadata"] == {
        "labels": {"ours": "1", "mine": "3"},
        "annotations": {"hash": "1"},
    }
    assert merged({"metadata": {"labels": None}}) == OURS
    assert merged({"metadata": None}) == OURS


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        ({"spec": 5}, "spec.template.spec: must be a mapping"),
        ({"metadata": {"labels": []}}, "spec.template.metadata.labels: must be a mapping"),
        ({"spec": {"containers": {}}}, "spec.template.spec.containers: must be a list"),
        ({"spec": {"containers": ["x"]}}, "spec.template.spec.containers[0]: must be a mapping"),
        (
            {"spec": {"volumes": [{"emptyDir": {}}]}},
            "spec.template.spec.volumes[0].name: required, it tells the items apart",
        ),
        (
            {"spec": {"tolerations": {"key": "a"}}},
            "spec.template.spec.tolerations: must be a list",
        ),
        (
            {"spec": {"$patch": "delete"}},
            "spec.template.spec.$patch: " + DIRECTIVES,
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_path(theirs: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        merged(theirs)
    assert caught.value.problems == (problem,)


KEYED = {path[-1]: key for path, key in overlay.MERGE_KEYS.items()}
_scalars = st.integers(0, 3) | st.sampled_from(["x", "y"])


def _items(field: str, inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Any]:
    key = KEYED[field]
    item = st.builds(lambda name, rest: rest | {key: name}, st.sampled_from(["a", "b", "c"]), inner)
    return st.lists(item, max_size=3, unique_by=lambda each: str(each[key]))


_flat = st.dictionaries(st.sampled_from(["k", "l"]), _scalars, max_size=2)
_container = st.fixed_dictionaries(
    {}, optional={"env": _items("env", _flat), "k": _flat, "args": st.lists(_scalars, max_size=2)}
)
_pods = st.fixed_dictionaries(
    {},
    optional={
        "containers": _items("containers", _container),
        "volumes": _items("volumes", _flat),
        "tolerations": st.lists(_flat, max_size=2),
        "securityContext": _flat,
    },
)
TEMPLATES = st.fixed_dictionaries(
    {"metadata": st.just({"labels": {}, "annotations": {}}), "spec": _pods}
)


@given(TEMPLATES, TEMPLATES)
@PATIENT
def test_merging_twice_is_merging_once(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    once = overlay.merge(ours, theirs, "t")
    assert overlay.merge(once, theirs, "t") == once


@given(TEMPLATES, TEMPLATES)
@PATIENT
def test_everything_asked_for_is_in_the_result(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert_within(theirs, overlay.merge(ours, theirs, "t"))


def assert_within(asked: Any, found: Any) -> None:
    if isinstance(asked, dict):
        for key, value in asked.items():
            if key in KEYED:
                by_key = {each[KEYED[key]]: each for each in found[key]}
                for item in value:
                    assert_within(item, by_key[item[KEYED[key]]])
            else:
                assert_within(value, found[key])
    else:
        assert asked == found


@given(TEMPLATES, TEMPLATES)
@PATIENT
def test_neither_template_is_changed(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    before = copy.deepcopy((ours, theirs))
    result = overlay.merge(ours, theirs, "t")
    _spoil(result)
    assert (ours, theirs) == before


def _spoil(node: Any) -> None:
    for each in list(node.values() if isinstance(node, dict) else node):
        if isinstance(each, dict | list):
            _spoil(each)
    node.clear()


@given(TEMPLATES)
@PATIENT
def test_what_is_not_spoken_of_stays(theirs: dict[str, Any]) -> None:
    ours = workload.pod_template(resource(), KNOWN)
    found = overlay.merge(ours, theirs, "t")
    assert {key: found["spec"][key] for key in ours["spec"] if key not in theirs["spec"]} == {
        key: value for key, value in ours["spec"].items() if key not in theirs["spec"]
    }
    names = [each["name"] for each in found["spec"]["containers"]]
    assert names[0] == workload.CONTAINER


@pytest.mark.parametrize(
    ("laid", "path"),
    [
        ({"metadata": {"$patch": "replace", "labels": "x"}}, "spec.template.metadata.labels"),
        ({"$patch": "replace", "metadata": "x"}, "spec.template.metadata"),
        ({"spec": {"$patch": ["x"]}}, "spec.template.spec.$patch"),
        ({"spec": {"containers": [{"name": "main", "$patch": {}}]}}, "containers[0].$patch"),
    ],
)
def test_nothing_that_a_person_writes_is_a_defect_of_ours(laid: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        overlay.merge(OURS, laid, "spec.template")
    assert path in str(error.value)
