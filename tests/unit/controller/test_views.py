from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controller import names, views
from controller.ports import Manifest

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
IMAGE = "registry.example.org/aggregator:1"


def pod(name: str = "agg-0", *, about: dict[str, Any] | None = None, **status: Any) -> Manifest:
    metadata = {
        "name": name,
        "namespace": "test",
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-03-01T11:59:00Z",
        "annotations": {names.SETTINGS_HASH: "abc"},
        "labels": {"controller-revision-hash": "agg-1"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | (about or {}),
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": "start", "image": "start:1"}],
            "containers": [{"name": "aggregator", "image": IMAGE}],
        },
        "status": status,
    }


def container(state: dict[str, Any], **about: Any) -> dict[str, Any]:
    return {"name": "aggregator", "state": state, "ready": False, "restartCount": 0} | about


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def test_a_ready_pod() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T11:59:30Z"}
    seen = views.pod_view(pod(podIP="10.0.0.1", conditions=[ready]), "agg", NOW)
    assert seen is not None
    assert (seen.ready, seen.terminating, seen.ordinal, seen.seconds) == (True, False, 0, 30.0)
    assert (seen.settings_hash, seen.revision, seen.resource_uid) == ("abc", "agg-1", "")
    assert (seen.node, seen.address, seen.trouble) == ("node-1", "10.0.0.1", "")


def test_a_pod_that_was_just_made_counts_from_then() -> None:
    seen = views.pod_view(pod(), "agg", NOW)
    assert seen is not None
    assert (seen.ready, seen.seconds) == (False, 60.0)


@pytest.mark.parametrize("name", ["agg-redis-0", "agg", "agg-x", "other-0"])
def test_pods_of_other_sets_are_not_taken_for_this_ones(name: str) -> None:
    assert views.pod_view(pod(name), "agg", NOW) is None


CRASHED = {"exitCode": 2, "reason": "Error", "message": "a log with times in it"}


def run(began: str, ended: str, **about: Any) -> dict[str, Any]:
    """A run of a container that ended badly."""
    times = {"startedAt": f"2026-03-01T{began}Z", "finishedAt": f"2026-03-01T{ended}Z"}
    return {"terminated": CRASHED | times | about}


def running(since: str) -> dict[str, Any]:
    return {"running": {"startedAt": f"2026-03-01T{since}Z"}}


WITH_ITS_NODE = {"exitCode": 255, "reason": "Unknown"}


@pytest.mark.parametrize(
    ("status", "trouble", "message"),
    [
        (container(waiting("ErrImagePull", "429")), "ImagePullBackOff", IMAGE),
        (container(waiting("ImagePullBackOff", "back-off 5m")), "ImagePullBackOff", IMAGE),
        (container(waiting("InvalidImageName", "bad name")), "InvalidImageName", "bad name"),
        (container(waiting("ContainerCreating")), "ContainerCreating", ""),
        (container(waiting("PodInitializing")), "", ""),
        (
            container(waiting("CreateContainerConfigError", 'secret "key" not found')),
            "CreateContainerConfigError",
            'secret "key" not found',
        ),
        (
            container(waiting("CrashLoopBackOff"), lastState={"terminated": CRASHED}),
            "CrashLoopBackOff",
            "Error, exit status 2",
        ),
        (
            container(running("11:59:30"), lastState=run("11:59:00", "11:59:10"), restartCount=2),
            "CrashLoopBackOff",
            "exit status 2",
        ),
        (
            container(running("11:59:58"), lastState=run("11:54:30", "11:54:40"), restartCount=9),
            "CrashLoopBackOff",
            "exit status 2",
        ),
        (
            container(running("11:57:00"), lastState=run("11:51:00", "11:56:30"), restartCount=9),
            "CrashLoopBackOff",
            "exit status 2",
        ),
        (
            container(running("11:57:00"), lastState=run("11:56:00", "11:56:30"), restartCount=2),
            "",
            "",
        ),
        (
            container(running("11:59:00"), lastState=run("11:40:00", "11:45:00"), restartCount=2),
            "",
            "",
        ),
        (
            container(
                running("11:59:00"),
                lastState=run("08:00:00", "11:58:30", **WITH_ITS_NODE),
                restartCount=2,
            ),
            "",
            "",
        ),
        (
            container(
                waiting("PodInitializing"),
                lastState=run("08:00:00", "11:58:30", **WITH_ITS_NODE),
                restartCount=2,
            ),
            "",
            "",
        ),
        (container({"terminated": CRASHED}, restartCount=3), "CrashLoopBackOff", "status 2"),
        (container(run("08:00:00", "11:59:58", **WITH_ITS_NODE), restartCount=3), "", ""),
        (container({"running": {}}, lastState={"terminated": CRASHED}, restartCount=1), "", ""),
        (
            container(
                {"running": {}}, lastState={"terminated": CRASHED}, restartCount=9, ready=True
            ),
            "",
            "",
        ),
        (container({"running": {}}), "", ""),
    ],
)
def test_troubles_have_one_name_that_does_not_change_by_the_minute(
    status: dict[str, Any], trouble: str, message: str
) -> None:
    found = views.trouble_of(pod(containerStatuses=[status]), NOW)
    assert found[0] == trouble
    assert message in found[1]
    assert "back-off" not in found[1]
    assert "a log" not in found[1]


def test_a_pod_that_no_node_takes_says_so() -> None:
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    assert views.trouble_of(pod(conditions=[unscheduled]), NOW) == (
        "Unschedulable",
        "no node takes it: 0/3 nodes are available",
    )


def test_a_container_that_starts_first_is_looked_at_first() -> None:
    first = {"name": "start", "state": waiting("ImagePullBackOff"), "restartCount": 0}
    main = container(waiting("PodInitializing"))
    found = views.trouble_of(pod(initContainerStatuses=[first], containerStatuses=[main]), NOW)
    assert found == ("ImagePullBackOff", "image start:1 cannot be pulled.")


def lease(spec: dict[str, Any] | None = None, **annotations: str) -> Manifest:
    marked = {
        f"{names.DOMAIN}/{name.replace('_', '-')}": text for name, text in annotations.items()
    }
    return {"metadata": {"resourceVersion": "7", "annotations": marked}, "spec": spec or {}}


def test_a_lease_as_the_replicas_write_it() -> None:
    written = lease(
        {
            "holderIdentity": "agg-1.ab12cd34",
            "leaseTransitions": 4,
            "acquireTime": "2026-03-01T11:00:00.000000Z",
            "leaseDurationSeconds": 2,
        },
        lease_milliseconds="1500",
        handover_to=" agg-2 ",
        fenced="agg-0, agg-3,",
    )
    seen = views.lease_view(written, 1.0)
    assert (seen.pod, seen.holder, seen.term) == ("agg-1", "agg-1.ab12cd34", 4)
    assert (seen.lease_seconds, seen.handover_to) == (1.5, "agg-2")
    assert seen.fenced == {"agg-0", "agg-3"}


def test_a_lease_that_nobody_holds_or_that_makes_no_sense() -> None:
    assert views.lease_view(lease(), 0.0).pod == ""
    odd = views.lease_view(lease({"leaseTransitions": "x"}, lease_milliseconds="y"), 0.0)
    assert (odd.term, odd.lease_seconds) == (0, 0.0)


def test_a_set_takes_its_pods_and_those_that_lost_their_owner() -> None:
    theirs = {"ownerReferences": [{"uid": "other", "controller": True}]}
    ours = {"ownerReferences": [{"uid": "set", "controller": True}]}
    template = {
        "metadata": {
            "labels": {names.COMPONENT: names.AGGREGATOR},
            "annotations": {names.SETTINGS_HASH: "abc", names.RESTARTED_AT: "then"},
        },
        "spec": {
            "containers": [
                {"name": "proxy", "image": "proxy:9"},
                {"name": "aggregator", "image": IMAGE},
            ]
        },
    }
    manifest = {
        "metadata": {"name": "agg", "uid": "set"},
        "spec": {"replicas": 2, "template": template},
    }
    pods = [pod("agg-2", about=theirs), pod("agg-1"), pod("agg-0", about=ours), pod("agg-redis-0")]
    seen = views.set_view(manifest, pods, NOW)
    assert [each.name for each in seen.pods] == ["agg-0", "agg-1"]
    assert (seen.replicas, seen.settings_hash, seen.restarted_at) == (2, "abc", "then")
    assert (seen.image, seen.missing, seen.outdated) == (IMAGE, (), ())


def test_without_its_set_a_pod_tells_what_it_was_made_from_unless_it_goes_or_is_anothers() -> None:
    def left(name: str, **metadata: Any) -> Manifest:
        return pod(name, about={"annotations": {names.RESTARTED_AT: name}} | metadata)

    of_this, of_another = ({"labels": {names.OWNER_UID: uid}} for uid in ("this", "another"))
    going = left("agg-1", deletionTimestamp="2026-03-01T11:59:59Z", **of_this)
    gone, old = [going, left("agg-2", **of_another), left("agg-redis-0")], left("agg-0", **of_this)
    assert views.restarted_at(views.template({}, [*gone, old], "agg", "this")) == "agg-0"
    assert views.restarted_at(views.template({}, gone, "agg", "this")) is None


@pytest.mark.parametrize(
    ("status", "revision"),
    [
        ({"observedGeneration": 4, "updateRevision": "agg-2"}, "agg-2"),
        ({"observedGeneration": 3, "updateRevision": "agg-1"}, ""),
        ({}, ""),
    ],
    ids=["told", "of a former template", "not told yet"],
)
def test_a_sets_revision_is_that_of_its_present_template(
    status: dict[str, Any], revision: str
) -> None:
    manifest = {
        "metadata": {"name": "agg", "namespace": "test", "uid": "set-uid", "generation": 4},
        "spec": {"replicas": 2, "template": {"metadata": {}, "spec": {"containers": []}}},
        "status": status,
    }
    assert views.set_view(manifest, (), NOW).revision == revision


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-03-01T11:59:58Z", 2.0),
        ("2026-03-01T11:59:58.500000Z", 1.5),
        ("2026-03-01T13:00:00+02:00", 3600.0),
        ("2026-03-01T12:00:05Z", 0.0),
        ("soon", 0.0),
        (None, 0.0),
    ],
)
def test_how_long_ago_a_time_was(text: str | None, seconds: float) -> None:
    assert views.seconds_since(text, NOW) == seconds
