from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from controller import ports
from controller.compare import differences, manager_of, quantity
from controller.ports import Manifest
from tests.fakes.cluster import FakeCluster

SERVICE: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "one", "namespace": "test", "labels": {"a": "1"}},
    "spec": {
        "ports": [{"name": "rpc", "port": 1}, {"name": "web", "port": 2}],
        "selector": {"b": "2"},
    },
}
POLICY: Manifest = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "one", "namespace": "test"},
    "spec": {
        "podSelector": {},
        "ingress": [{"ports": [{"port": 1, "protocol": "TCP"}]}, {"from": []}],
    },
}


def a_set(**container: Any) -> Manifest:
    pod = {
        "metadata": {"labels": {"a": "1"}},
        "spec": {
            "containers": [{"name": "main", "image": "i", **container}],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "hostNetwork": False,
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "one", "namespace": "test"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "1"}}, "template": pod},
    }


async def applied(manifest: Manifest) -> tuple[FakeCluster, Manifest]:
    cluster = FakeCluster()
    return cluster, await cluster.apply(manifest)


@pytest.mark.parametrize("manifest", [SERVICE, POLICY, a_set()], ids=lambda each: each["kind"])
async def test_what_was_just_applied_is_as_desired(manifest: Manifest) -> None:
    _, live = await applied(manifest)
    assert differences(manifest, live) == ()


async def test_what_the_api_server_leaves_out_is_not_missed() -> None:
    _, live = await applied(a_set(env=[], resources={}))
    container = live["spec"]["template"]["spec"]["containers"][0]
    del container["env"], container["resources"], live["spec"]["template"]["spec"]["hostNetwork"]
    assert differences(a_set(env=[], resources={}), live) == ()


@pytest.mark.parametrize(
    ("asked", "stored", "same"),
    [("1000m", "1", True), ("1024Mi", "1Gi", True), ("0.5", "500m", True), ("1", "2", False)],
)
async def test_a_quantity_is_the_same_however_it_is_written(
    asked: str, stored: str, same: bool
) -> None:
    desired = a_set(resources={"requests": {"cpu": asked}})
    _, live = await applied(desired)
    live["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = stored
    assert (differences(desired, live) == ()) == same


async def test_other_texts_are_never_taken_for_quantities() -> None:
    desired = a_set(env=[{"name": "X", "value": "1000m"}])
    _, live = await applied(desired)
    live["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "1"
    [path] = differences(desired, live)
    assert path == ("spec", "template", "spec", "containers", "main", "env", "X", "value")


async def test_what_others_add_is_not_our_business() -> None:
    cluster, live = await applied(a_set())
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "s"})
    live["metadata"]["annotations"] = {"theirs": "1"}
    live = cluster.edit(live, "injector")
    assert differences(a_set(), live) == ()


async def test_what_we_set_once_and_do_not_want_any_more_is_a_difference() -> None:
    more = deepcopy(SERVICE)
    more["metadata"]["annotations"] = {"ours": "1"}
    more["spec"]["ports"].append({"name": "old", "port": 3})
    cluster, live = await applied(more)
    assert differences(SERVICE, live) == (
        ("metadata", "annotations"),
        ("spec", "ports", "3/TCP"),
    )
    assert differences(SERVICE, await cluster.apply(SERVICE)) == ()


async def test_who_changed_a_field_is_named() -> None:
    cluster, live = await applied(SERVICE)
    cluster.edit({**live, "spec": {"selector": {"b": "3"}}}, "their-controller")
    changed = cluster.read(ports.SERVICES, "test", "one")
    assert changed is not None
    [path] = differences(SERVICE, changed)
    assert path == ("spec", "selector", "b")
    assert manager_of(changed, path) == "their-controller"
    assert manager_of(changed, ("spec", "type")) == ""


LEAVES = st.sampled_from(["x", "y", 1, 2])
NAMES = st.sampled_from("abc")


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Nothing is empty: the API server leaves that out, which counts as the same."""
    items = draw(st.dictionaries(NAMES, st.dictionaries(NAMES, LEAVES, min_size=1), min_size=1))
    return {
        "apiVersion": "apps/v1",
        "kind": "Other",
        "metadata": {
            "name": "one",
            "namespace": "test",
            "labels": draw(st.dictionaries(NAMES, st.sampled_from("xy"), min_size=1)),
        },
        "spec": {
            "map": draw(st.dictionaries(NAMES, LEAVES, min_size=1)),
            "plain": draw(st.lists(LEAVES, min_size=1, max_size=3)),
            "containers": [{"name": name, **item} for name, item in items.items()],
        },
    }


@given(st.lists(manifests(), min_size=1, max_size=4), manifests())
async def test_something_differs_exactly_when_applying_changes_something(
    before: list[Manifest], desired: Manifest
) -> None:
    cluster = FakeCluster()
    live: Manifest = {}
    for each in before:
        live = await cluster.apply(each)
    found = differences(desired, live)
    after = await cluster.apply(desired)
    changed = after["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]
    assert bool(found) == changed
    assert differences(desired, after) == ()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("1.5Gi", 1.5 * 2**30),
        ("250m", 0.25),
        ("2k", 2000),
        (3, 3),
        ("x", None),
        ("", None),
    ],
)
def test_quantities(text: object, number: float | None) -> None:
    found = quantity(text)
    assert found == (None if number is None else Decimal(str(number)))
