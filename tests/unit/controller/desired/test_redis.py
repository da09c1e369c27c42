from __future__ import annotations

import base64
import itertools
import re
from typing import Any

import pytest

from aggregator.store.keys import COMMANDS, SENTINEL_COMMANDS
from aggregator.store.pause import PAUSE_COMMANDS
from controller import names
from controller.desired import redis, workload
from controller.desired.known import Known
from controller.ports import Manifest
from controller.redis_node.render import TEMPLATES, files, parse_group
from controller.redis_node.rule import Configuration
from tests.unit.controller.desired.specs import ADDRESSES, KNOWN, RELEASE, resource


def group(spec: dict[str, Any] | None = None, known: Known = KNOWN) -> dict[str, Manifest]:
    return {each["kind"]: each for each in redis.redis_group(resource(spec), known)}


def managed(**fields: Any) -> dict[str, Any]:
    return {"redis": {"managed": fields}}


def pod(spec: dict[str, Any] | None = None, known: Known = KNOWN) -> Manifest:
    template: Manifest = group(spec, known)["StatefulSet"]["spec"]["template"]
    return template


def settings_hash(spec: dict[str, Any] | None = None, known: Known = KNOWN) -> str:
    annotations = pod(spec, known)["metadata"]["annotations"]
    return str(annotations[names.SETTINGS_HASH])


def maxmemory(spec: dict[str, Any] | None = None) -> int:
    text = group(spec)["ConfigMap"]["data"]["redis.conf"]
    [line] = re.findall(r"^maxmemory (\d+)$", text, re.MULTILINE)
    return int(line)


def test_every_pod_has_a_service_that_selects_it_alone_ready_or_not() -> None:
    pods = pod()["metadata"]["labels"]
    for ordinal, service in enumerate(redis.redis_services(resource())):
        name = service["metadata"]["name"]
        assert name == f"{names.redis('aggregator')}-{ordinal}"  # as its pod
        selector = dict(service["spec"]["selector"])
        assert selector.pop("statefulset.kubernetes.io/pod-name") == name
        assert selector.items() <= pods.items()
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert "clusterIP" not in service["spec"]


def test_nothing_is_made_before_all_addresses_are_known() -> None:
    for count in range(names.REDIS_PODS):
        known = Known(release=RELEASE, redis_addresses=ADDRESSES[:count])
        assert redis.redis_group(resource(), known) == ()


def test_the_files_render_for_every_pod_and_primary() -> None:
    data = group()["ConfigMap"]["data"]
    passwords = redis.new_passwords(iter(map(str, itertools.count())).__next__)
    for ordinal, primary in itertools.product(range(3), ADDRESSES):
        mine = parse_group(data["nodes"], names.redis_service("aggregator", ordinal))
        paths = {"data": "/data", "listen": "*"}
        rendered = files(mine, Configuration(primary, 3), data, passwords, paths)
        assert set(rendered) == set(TEMPLATES)
        assert not re.search(r"\$\{", "".join(rendered.values()))


def test_sentinels_keep_their_ids_and_differ() -> None:
    ids = [line.split()[1] for line in group()["ConfigMap"]["data"]["nodes"].splitlines()]
    moved = Known(release=RELEASE, redis_addresses=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    again = group(known=moved)["ConfigMap"]["data"]["nodes"].splitlines()
    assert ids == [line.split()[1] for line in again]
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{40}", each) for each in ids)


def rights(file: str, user: str) -> set[str]:
    lines = group()["ConfigMap"]["data"][file].splitlines()
    [line] = [line for line in lines if line.startswith(f"user {user} ")]
    return set(re.findall(r"[+](\S+)", re.sub(r"&\S+", "", line)))


def test_the_aggregator_may_do_what_it_does_and_no_more() -> None:
    assert rights("users.acl", "aggregator") == {*COMMANDS, *PAUSE_COMMANDS}
    assert rights("sentinel-users.acl", "aggregator") == {*SENTINEL_COMMANDS}


@pytest.mark.parametrize("file", ["users.acl", "sentinel-users.acl"])
def test_nobody_may_do_everything_or_forget_the_group(file: str) -> None:
    lines = group()["ConfigMap"]["data"][file].splitlines()
    assert lines[0] == "user default off"
    assert all(" -@all " in line and "+@" not in line for line in lines[1:])
    assert "reset " not in group()["ConfigMap"]["data"]["stop.sh"].lower()
    assert not any("sentinel|reset" in line or "flushall" in line for line in lines)


def test_the_secret_has_a_password_for_every_user_of_the_files() -> None:
    secret = redis.redis_secret(resource(), redis.new_passwords(iter("abcdefgh").__next__))
    data = group()["ConfigMap"]["data"]
    text = "".join(data[name] for name in TEMPLATES)
    assert set(secret["data"]) == set(re.findall(r"\$\{(?:password|sha256)_(\w+)\}", text))
    assert len({base64.b64decode(value) for value in secret["data"].values()}) == len(redis.USERS)
    assert redis.AGGREGATOR_PASSWORD in secret["data"]


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (None, 256 << 20),
        ({"limits": {"memory": "1Gi"}}, 1 << 30),
        ({"requests": {"memory": "512Mi"}}, 512 << 20),
        ({"requests": {"memory": "1Mi"}, "limits": {"memory": "0.5G"}}, 500_000_000),
        ({"limits": {"memory": "1000000"}}, 1_000_000),
        ({"limits": {"cpu": "1"}}, 256 << 20),
    ],
)
def test_data_is_bounded_below_half_of_the_memory(asked: dict[str, Any] | None, limit: int) -> None:
    assert maxmemory(managed(resources=asked) if asked else None) == limit * 40 // 100


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(managed(image="other:1"), id="image"),
        pytest.param(managed(resources={"limits": {"memory": "1Gi"}}), id="resources"),
        pytest.param(managed(template={"spec": {"nodeName": "n"}}), id="template"),
    ],
)
def test_what_a_person_sets_makes_another_pod(change: dict[str, Any]) -> None:
    assert settings_hash(change) != settings_hash()


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(Known(release=RELEASE, redis_addresses=("a", "b", "c")), id="addresses"),
        pytest.param(
            Known(release=RELEASE, redis_addresses=ADDRESSES, redis_restarted_at="now"),
            id="a restart",
        ),
    ],
)
def test_facts_that_pods_depend_on_make_another_pod(known: Known) -> None:
    assert settings_hash(known=known) != settings_hash()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"suspend": True}, id="suspend"),
        pytest.param({"image": "aggregator:2"}, id="the aggregator's image"),
        pytest.param({"replicas": 5}, id="replicas"),
    ],
)
def test_what_is_not_about_redis_makes_no_other_pod(change: dict[str, Any]) -> None:
    assert settings_hash(change) == settings_hash()


def test_an_image_that_runs_stays() -> None:
    known = Known(release=RELEASE, running_redis_image="valkey:0", redis_addresses=ADDRESSES)
    images = {c["name"]: c["image"] for c in pod(known=known)["spec"]["containers"]}
    assert images == {redis.SERVER: "valkey:0", redis.SENTINEL: "valkey:0"}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"image": "asked:1"},
        {"template": {"spec": {"containers": [{"name": names.AGGREGATOR, "image": "theirs:1"}]}}},
    ],
)
def test_pods_are_started_by_the_image_that_the_aggregator_gets(spec: dict[str, Any]) -> None:
    [start] = pod(spec)["spec"]["initContainers"]
    [aggregator] = workload.pod_template(resource(spec), KNOWN)["spec"]["containers"]
    assert start["image"] == aggregator["image"]


def test_a_suspended_group_has_no_pods() -> None:
    assert group({"suspend": True})["StatefulSet"]["spec"]["replicas"] == 0


def test_a_persons_template_is_merged_over_ours() -> None:
    theirs = {"spec": {"containers": [{"name": "redis", "env": [{"name": "A", "value": "b"}]}]}}
    server, sentinel = pod(managed(template=theirs))["spec"]["containers"]
    assert server["env"] == [{"name": "A", "value": "b"}]
    assert server["command"][1].endswith("server.sh")
    assert "env" not in sentinel


def test_every_script_that_a_pod_runs_is_in_the_config_map() -> None:
    spec = pod()["spec"]
    commands = re.findall(r"/config/([\w.]+)", str(spec))
    assert set(commands) <= set(group()["ConfigMap"]["data"])
    assert set(commands) == {"server.sh", "sentinel.sh", "stop.sh", "hold.sh", "probe.sh"}


def test_all_pods_are_restricted_and_know_nothing_of_the_api_server() -> None:
    spec = pod()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in (*spec["initContainers"], *spec["containers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert each["resources"]["limits"]["memory"]
