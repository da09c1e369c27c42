"""What people do: drains, roll-outs, mistakes and their repair, scaling, suspending, deleting.

In each story batches go on, nothing acknowledged is lost, and no batch is answered twice. How long
clients waited is recorded in a table.
"""

from __future__ import annotations

import pytest

from controller import names
from tests.cluster.conftest import Settings
from tests.cluster.faults import Faults, tag
from tests.cluster.group import NAME, RESOURCE, Group, Manifest, nodes_of
from tests.cluster.kubectl import until
from tests.integration.controlled import says_ready

OTHER = "other"
ANY_USER = 1000700000
"""As OpenShift assigns them: nobody whom the image knows."""


@pytest.mark.parametrize(
    "replicas",
    [3, pytest.param(2, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.long)],
)
def test_the_leaders_node_is_drained(group: Group, replicas: int) -> None:
    with group.story(f"node of the leader drained, of {replicas} replicas", replicas):
        node, term = group.node_of_leader(), group.term()
        group.broken[node] = "drained"
        group.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
            "--timeout=240s",
        )  # fmt: skip
        group.mend()
        until(lambda: group.term() > term, "another term")
        group.traffic.flow()


def test_a_new_image_is_rolled_out(group: Group, breaking: Faults, given: Settings) -> None:
    renamed = f"{given.image.rpartition(':')[0]}:next"
    for node in nodes_of(group.kubectl):
        tag(breaking, node, given.image, renamed)
    with group.story("image changed, and rolled out"):
        leader = group.leader()
        group.change(image=renamed)
        group.wait("Ready")
        assert {image_of(pod) for pod in group.pods()} == {renamed}
        assert group.status()["image"] == renamed
        last = max(group.pods(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        assert last["metadata"]["name"] == leader


@pytest.mark.long
def test_an_image_that_is_not_there_stops_the_roll_and_is_mended(group: Group) -> None:
    former = group.kubectl.get(RESOURCE)["spec"].get("image")
    with group.story("image that is not there, then the former one"):
        group.change(image="localhost/nobody-has-this:1")
        group.wait("Stalled")
        assert sum("nobody" in image_of(pod) for pod in group.pods()) == 1
        group.traffic.flow()
        group.change(image=former)
        group.wait("Ready")
        group.wait("Stalled", "False")
        assert not any("nobody" in image_of(pod) for pod in group.pods())


@pytest.mark.long
def test_scaling_moves_nothing_but_what_it_must(group: Group) -> None:
    with group.story("scaled from three to two and back"):
        kept = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in group.pods()}
        group.scale(2)
        until(lambda: len(group.pods()) == 2, "two pods")
        group.wait("Ready")
        for pod in group.pods():
            assert kept[pod["metadata"]["name"]] == pod["metadata"]["uid"]
        scale = group.kubectl.get(RESOURCE, "--subresource=scale")
        assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 2)
        group.scale(3)
        group.wait("Ready")


def test_a_suspended_group_forgets_nothing(group: Group) -> None:
    with group.story("suspended, then resumed"):
        # That is about replicas that are scaled away for good.
        group.change(journal={"retention": {"whenScaled": "Delete"}})
        until(lambda: when_scaled(group) == "Delete", "journals go with replicas")
        kept = claims(group)
        group.change(suspend=True)
        group.wait("Ready", "False", "Suspended")
        until(lambda: not group.pods() + group.pods(names.REDIS), "no pods")
        group.change(suspend=False)
        group.wait("Ready")
        assert claims(group) == kept
        group.change(journal={"retention": {"whenScaled": "Retain"}})


def test_volumes_grow_or_it_is_said_that_they_cannot(group: Group) -> None:
    class_name = group.kubectl.get("pvc")[0]["spec"]["storageClassName"]
    if group.kubectl.get("storageclass", class_name).get("allowVolumeExpansion"):
        with group.story("journals grown"):
            group.change(journal={"size": "96Mi"})
            group.wait("Ready")
            until(lambda: asked_sizes(group) == {"96Mi"}, "every claim asks for more")
        return
    with group.story("journals larger than volumes can be, then set back"):
        group.change(journal={"size": "96Mi"})
        group.wait("Stalled", "True", "VolumeCannotGrow")
        group.traffic.flow()
        group.change(journal={"size": "64Mi"})
        group.wait("Stalled", "False")
        assert asked_sizes(group) == {"64Mi"}


def test_any_user_may_run_it(group: Group) -> None:
    other = group.resource()
    other["metadata"]["name"] = OTHER
    other["spec"] |= {
        "replicas": 1,
        "redis": {"mode": "None"},
        "submission": {"mode": "Observe"},  # the key is the group's, which goes on
        "service": {"type": "ClusterIP"},
        "template": {"spec": {"securityContext": {"runAsUser": ANY_USER}}},
    }
    other["spec"]["journal"]["retention"] = {"whenDeleted": "Delete"}
    before = claims(group)
    group.kubectl.apply(other)
    try:
        until(lambda: says_ready(group.kubectl.get("aagg", OTHER)), f"{OTHER} is ready")
        pod = group.pod(f"{OTHER}-0")
        assert pod["spec"]["securityContext"]["runAsUser"] == ANY_USER
    finally:
        group.kubectl("delete", f"aagg/{OTHER}")
    until(lambda: claims(group) == before, "its journal is gone")


def image_of(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def when_scaled(group: Group) -> str:
    policy = group.kubectl.get("statefulset", NAME)["spec"]["persistentVolumeClaimRetentionPolicy"]
    return str(policy["whenScaled"])


def claims(group: Group) -> dict[str, str]:
    """Uids by name."""
    found = group.kubectl.get("pvc")
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}


def asked_sizes(group: Group) -> set[str]:
    return {claim["spec"]["resources"]["requests"]["storage"] for claim in group.kubectl.get("pvc")}


@pytest.mark.last(
    2
)  # pods on their way out are refused what was theirs: rights are looked at before
def test_a_group_deleted_without_its_controller_leaves_only_its_journals(group: Group) -> None:
    with group.story("deleted while there is no controller, then made again"):
        group.scale_controller(0)
        service = group.kubectl.get("service", NAME)
        group.kubectl("delete", RESOURCE, "--timeout=60s")
        label = f"{names.OWNER}={NAME}"

        def is_gone() -> bool:
            kinds = "pods,services,configmaps,leases,secrets,statefulsets,roles,rolebindings"
            return not group.kubectl.get(kinds, "-l", label)

        until(is_gone, "its objects are gone")
        assert group.kubectl.get("pvc")
        again = group.resource()
        again["spec"]["service"]["nodePort"] = service["spec"]["ports"][0]["nodePort"]
        group.kubectl.apply(again)
        group.scale_controller(2)
        group.wait("Ready")
