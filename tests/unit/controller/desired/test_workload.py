from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from hypothesis import given

from controller import desired, names
from controller.desired import access, config, deployments, workload
from controller.desired.known import Known
from controller.errors import InvalidSpec
from controller.ports import Manifest
from tests.unit.controller.desired.specs import (
    FACTS,
    KNOWN,
    LONE,
    MORE,
    PATIENT,
    RELEASE,
    SENTINELS,
    SPECS,
    resource,
)


def pod(spec: dict[str, Any] | None = None, known: Known = KNOWN) -> Manifest:
    template = workload.pod_template(resource(spec), known)["spec"]
    assert isinstance(template, dict)
    return template


def container(spec: dict[str, Any] | None = None) -> Manifest:
    (found,) = pod(spec)["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("spec", "count"),
    [({}, 3), ({"replicas": 5}, 5), (LONE | {"replicas": 4}, 1), ({"suspend": True}, 0)],
)
def test_there_are_as_many_pods_as_asked_for(spec: dict[str, Any], count: int) -> None:
    assert workload.stateful_set(resource(spec), KNOWN)["spec"]["replicas"] == count


@pytest.mark.parametrize(
    ("spec", "count"), [({}, 1), ({"suspend": True}, 1), ({"replicas": 1}, 0), (LONE, 0)]
)
def test_a_single_replica_has_no_budget_that_would_hold_up_a_drain(
    spec: dict[str, Any], count: int
) -> None:
    assert len(workload.budget(resource(spec))) == count


def test_the_set_replaces_no_pod_by_itself() -> None:
    spec = workload.stateful_set(resource(), KNOWN)["spec"]
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["serviceName"] == names.headless("aggregator")


@given(SPECS, FACTS)
@PATIENT
def test_every_file_that_the_configuration_names_is_mounted(
    spec: dict[str, Any], known: Known
) -> None:
    asked = resource(spec)
    template = workload.pod_template(asked, known)["spec"]
    (main,) = (each for each in template["containers"] if each["name"] == workload.CONTAINER)
    mounts = {each["name"]: each["mountPath"] for each in main["volumeMounts"]}
    there = {
        f"{mounts['secrets']}/{item['path']}"
        for volume in template["volumes"]
        if volume["name"] == "secrets"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    document = yaml.safe_load(config.configuration(asked, known).text)
    journal = PurePosixPath(document.pop("journal")["path"])
    assert journal.is_relative_to(mounts["journal"])
    assert {path for path in texts(document) if path.startswith("/")} == there
    volumes = {each["name"] for each in template["volumes"]}
    if asked.spec.journal.mode == "Persistent":
        volumes.add("journal")
    assert mounts.keys() - {MORE} <= volumes  # what a template mounts is for its author to add


def texts(node: Any) -> list[str]:
    if isinstance(node, dict | list):
        inner = node.values() if isinstance(node, dict) else node
        return [text for each in inner for text in texts(each)]
    return [str(node)]


def test_the_configuration_that_is_mounted_is_the_one_that_is_rendered() -> None:
    rendered = desired.render(resource(), KNOWN)
    (mounted,) = (each for each in pod()["volumes"] if each["name"] == "config")
    maps = {each["metadata"]["name"]: each for each in rendered if each["kind"] == "ConfigMap"}
    held = maps[mounted["configMap"]["name"]]
    assert (held["immutable"], list(held["data"])) == (True, [config.FILE])
    assert container()["command"][-1] == f"{config.FOLDER}/{config.FILE}"


def test_other_content_has_another_name() -> None:
    one = config.config_map(resource(), KNOWN)["metadata"]["name"]
    other = config.config_map(resource({"limits": {"connections": 5}}), KNOWN)["metadata"]["name"]
    assert one != other


@pytest.mark.parametrize("case", ["Persistent", "Ephemeral"])
def test_the_journal_is_on_a_volume_of_its_kind(case: str) -> None:
    asked = resource({"journal": {"mode": case, "size": "3Gi"}})
    spec = workload.stateful_set(asked, KNOWN)["spec"]
    in_pod = [each for each in spec["template"]["spec"]["volumes"] if each["name"] == "journal"]
    claims = spec.get("volumeClaimTemplates", [])
    assert (len(in_pod), len(claims)) == ((0, 1) if case == "Persistent" else (1, 0))
    assert "3Gi" in texts([in_pod, claims])


@pytest.mark.parametrize(
    ("suspend", "policy"),
    [
        (False, {"whenDeleted": "Delete", "whenScaled": "Delete"}),
        (True, {"whenDeleted": "Delete", "whenScaled": "Retain"}),
    ],
)
def test_journals_outlive_a_suspension_whatever_becomes_of_them_when_scaled_away(
    suspend: bool, policy: dict[str, str]
) -> None:
    retention = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    asked = resource({"suspend": suspend, "journal": {"retention": retention}})
    spec = workload.stateful_set(asked, KNOWN)["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == policy


def test_only_pods_with_an_election_may_speak_to_the_api_server() -> None:
    assert pod()["automountServiceAccountToken"]
    assert pod(SENTINELS)["automountServiceAccountToken"]
    assert not pod(LONE)["automountServiceAccountToken"]


def test_the_image_that_runs_stays_until_another_one_is_asked_for() -> None:
    running = Known(release=RELEASE, running_image="running:1")
    images = [
        pod(spec, known)["containers"][0]["image"]
        for spec, known in [
            ({}, Known(release=RELEASE)),
            ({}, running),
            ({"image": "asked:1"}, running),
        ]
    ]
    assert images == [RELEASE.image, "running:1", "asked:1"]


def test_resources_that_are_asked_for_replace_ours() -> None:
    assert container()["resources"]["limits"] == {"memory": "512Mi"}
    assert container({"resources": {"requests": {"cpu": "1"}}})["resources"] == {
        "requests": {"cpu": "1"}
    }


def test_a_restart_asked_for_at_the_set_is_carried_on() -> None:
    known = Known(release=RELEASE, restarted_at="2026-11-23T12:00:00Z")
    template = workload.pod_template(resource(LONE), known)
    assert template["metadata"]["annotations"][names.RESTARTED_AT] == "2026-11-23T12:00:00Z"


def test_pods_run_as_any_user_who_is_not_root_and_change_no_image_file() -> None:
    context = pod()["securityContext"]
    assert context["runAsNonRoot"]
    assert "runAsUser" not in context
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_a_pod_has_the_time_for_a_stop_in_order() -> None:
    daemons = config.DRAIN_DELAY_SECONDS + config.DRAIN_TIMEOUT_SECONDS
    assert pod()["terminationGracePeriodSeconds"] > daemons + 10


def test_pods_may_get_watch_and_update_their_lease_and_nothing_else() -> None:
    account, role, binding = access.access(resource())
    (rule,) = role["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["leases"], ["aggregator"])
    assert rule["verbs"] == ["get", "update", "watch"]
    (subject,) = binding["subjects"]
    assert subject["name"] == account["metadata"]["name"] == pod()["serviceAccountName"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_a_lease_begins_at_the_highest_term_ever_seen() -> None:
    lease = access.lease(resource(), Known(release=RELEASE, term=41))
    assert lease is not None
    assert lease["spec"] == {"leaseTransitions": 41}


def test_one_replica_alone_has_no_lease_and_no_rights() -> None:
    assert access.lease(resource(LONE), KNOWN) is None
    assert [each["kind"] for each in access.access(resource(LONE))] == ["ServiceAccount"]


@pytest.mark.parametrize(
    ("spec", "chain", "block"),
    [
        ({}, 1, 21289146),
        ({"network": {"preset": "Devnet"}}, 31337, 0),
        (
            {"chain": {"endpoints": [{"name": "a", "url": "http://a"}], "deploymentBlock": 7}},
            1,
            7,
        ),
    ],
)
def test_a_preset_brings_its_addresses_and_block(
    spec: dict[str, Any], chain: int, block: int
) -> None:
    found = deployments.resolve(resource(spec).spec)
    assert (found.chain_id, found.deployment_block) == (chain, block)


def test_a_deployment_that_is_not_named_cannot_be_rendered() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec\.network: "):
        desired.render(resource({"network": {}}), KNOWN)
