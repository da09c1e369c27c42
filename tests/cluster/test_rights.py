"""What the API server was asked for, and by whom: no right is missing, and none is idle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import access, names, ports
from controller.access import By, Right
from tests.cluster.conftest import CONTROLLER, Settings
from tests.cluster.group import NAME, Group
from tests.cluster.kubectl import until

CREATED = 201
FORBIDDEN = 403

UNUSED_HERE = {By.GRANT, By.ADMISSION}
"""Rights that nobody asks with: what pods are granted has to be the controller's own, and what some
clusters want for an owner that blocks deletion."""

GROW = Right("", "persistentvolumeclaims", "patch")
"""A StorageClass may not let anybody do that."""


@pytest.fixture
def audit(given: Settings) -> Path:
    if given.audit is None:
        pytest.skip("the API server's audit log is not known: CLUSTER_AUDIT is not set")
    return given.audit


def asked(audit: Path, namespace: str, account: str) -> Iterator[tuple[Right, dict[str, Any]]]:
    """What an account asked for, with the API server's note of it."""
    user = f"system:serviceaccount:{namespace}:{account}"
    with audit.open() as lines:
        for line in lines:
            event = json.loads(line)
            if event["user"]["username"] != user or "objectRef" not in event:
                continue
            what = event["objectRef"]
            resource = what["resource"]
            if "subresource" in what:
                resource += f"/{what['subresource']}"
            yield Right(what.get("apiGroup", ""), resource, event["verb"]), event
            if event["verb"] == "patch" and event["responseStatus"]["code"] == CREATED:
                # An apply of what was not there is also held to the right to create.
                yield Right(what.get("apiGroup", ""), resource, "create"), event


@pytest.mark.last(1)
@pytest.mark.parametrize("account", [CONTROLLER, NAME])
def test_nobody_was_refused_anything(group: Group, audit: Path, account: str) -> None:
    refused: set[tuple[Right, str]] = set()
    granted: set[tuple[Right, str]] = set()
    for right, event in asked(audit, group.kubectl.namespace, account):
        what = right, event["requestURI"].partition("?")[0]
        is_refused = event["responseStatus"]["code"] == FORBIDDEN
        (refused if is_refused and right != GROW else granted).add(what)
    # An API server that has just started refuses what it grants as soon as it has read the roles.
    assert refused - granted == set()


@pytest.mark.last(1)
def test_the_pods_use_every_right_they_have(group: Group, audit: Path) -> None:
    (rule,) = group.kubectl.get("role", NAME)["rules"]
    granted = {
        Right(group_, resource, verb)
        for group_ in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    used = {right for right, _ in asked(audit, group.kubectl.namespace, NAME)}
    assert used == granted
    objects = {
        (event["objectRef"]["resource"], event["objectRef"].get("name"))
        for _, event in asked(audit, group.kubectl.namespace, NAME)
    }
    assert objects == {("leases", NAME)}


@pytest.mark.last(1)
def test_the_controller_uses_every_right_it_has(group: Group, audit: Path) -> None:
    group.steady()
    leave_behind(group)
    used = {right for right, _ in asked(audit, group.kubectl.namespace, CONTROLLER)}
    rights = access.SERVED | access.OWN
    assert used <= rights.keys()
    idle = {right for right, by in rights.items() if by not in UNUSED_HERE} - used
    assert idle == set()


def leave_behind(group: Group) -> None:
    """One object of each kind that is rendered no more, as an older release may leave it."""
    label = f"{names.OWNER}={NAME}"
    for kind in ports.OWNED:
        live = group.kubectl.get(kind.plural, "-l", label)[0]
        metadata = {
            key: value
            for key, value in live["metadata"].items()
            if key in {"labels", "ownerReferences"}
        }
        spec = {key: value for key, value in live.items() if key not in {"metadata", "status"}}
        if kind is ports.SERVICES:
            spec["spec"] = {"clusterIP": "None", "ports": live["spec"]["ports"]}
            for port in spec["spec"]["ports"]:
                port.pop("nodePort", None)
        if kind is ports.STATEFUL_SETS:
            spec["spec"]["replicas"] = 0
        group.kubectl.apply(spec | {"metadata": metadata | {"name": f"old-{kind.plural}"}})

    def are_gone() -> bool:
        kinds = ",".join(kind.plural for kind in ports.OWNED)
        return "old-" not in group.kubectl("get", kinds, "-l", label, "-o", "name")

    until(are_gone, "what an older release left behind is removed")
