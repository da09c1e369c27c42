"""The controller renders what the daemon reads: of this release, and of releases before it.

`rendered/RELEASE/` holds what the controller of a release rendered; never changed. At a release
`python -m tests.contracts.test_rendered_settings` writes the folder of that release.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings

from aggregator import configure
from aggregator.replicas import Backend
from aggregator.sections import split_address
from aggregator.settings import KeystoreSigner, Settings, Web3Signer as RemoteSigner
from controller import desired, names
from controller.desired import config, deployments, workload
from controller.desired.known import Known
from controller.errors import InvalidSpec
from tests.unit.controller.desired.specs import (
    FACTS,
    KNOWN,
    LONE,
    ODD_SPECS,
    PATIENT,
    SENTINELS,
    SPECS,
    resource,
)
from tests.unit.controller.golden.cases import CASES, Case

RENDERED = Path(__file__).parent / "rendered"
RELEASES = sorted(RENDERED.glob("*/*.yaml"))
KEYSTORE = json.dumps({"version": 3, "crypto": {}})
PATH = re.compile(r"(?<=: )/(?:etc|vault)/\S+$", re.MULTILINE)


def content(path: str) -> str:
    """What a Secret would hold for a file of that name."""
    if "/endpoints/" in path:
        return "https://ethereum.example.org/key"
    return KEYSTORE if path.endswith("keystore.json") else "secret"


def read(text: str, environment: dict[str, str] | None = None) -> Settings:
    """Read a rendered file as the daemon does in its pod, with all secrets mounted."""
    with TemporaryDirectory() as folder:
        for path in PATH.findall(text):
            file = Path(folder + path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(path))
        text = PATH.sub(lambda path: folder + path.group(), text)
        return configure.read(text, environment or {}, folder=Path(folder), name="test")


def environment(case: Case) -> dict[str, str]:
    """What the pod's container finds of ours in its environment."""
    template = workload.pod_template(case.resource, case.known)
    (container,) = (
        each for each in template["spec"]["containers"] if each["name"] == workload.CONTAINER
    )
    return {each["name"]: each.get("value", "pod-0") for each in container["env"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_daemon_reads_what_is_rendered_without_a_word(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read(case.configuration(), environment(case))
    assert caplog.messages == []
    assert found.rendered_by == "controller"
    assert found.election.replica == "pod-0"


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_daemon_reads_what_earlier_releases_rendered_without_a_word(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(path.read_text()).rendered_by == "controller"
    assert caplog.messages == []


def test_there_is_a_release_to_compare_with() -> None:
    assert {path.stem for path in RELEASES} >= {case.name for case in CASES}


@given(SPECS, FACTS)
@PATIENT
def test_the_daemon_does_what_any_resource_asks_for(spec: dict[str, Any], known: Known) -> None:
    asked = resource(spec)
    if desired.is_waiting(asked, known):
        return
    found = read(config.configuration(asked, known).text)
    theirs, ours = asked.spec, found
    assert ours.network.chain_id == deployments.resolve(theirs).chain_id
    assert ours.chain.deployment_block == deployments.resolve(theirs).deployment_block
    assert [each.name for each in ours.chain.endpoints] == [
        each.name for each in theirs.chain.endpoints
    ]
    assert ours.submission.mode == theirs.submission.mode.lower()
    assert ours.submission.bump_percent == theirs.submission.bump_percent
    assert ours.submission.max_in_flight == theirs.submission.max_in_flight
    assert ours.listen.max_connections == theirs.limits.connections
    assert ours.listen.max_calls_per_connection == theirs.limits.calls_per_connection
    assert ours.listen.max_connections_per_source == theirs.limits.connections_per_source
    version = theirs.service.proxy_protocol.version.lower()
    assert ours.listen.proxy_protocol == ("off" if version == "disabled" else version)
    assert ours.election.profile == (
        theirs.failover.profile.lower() if ours.redis is not None else "normal"
    )
    if ours.redis is not None and theirs.redis.external is not None:
        assert ours.redis.copies == theirs.redis.external.copies
        assert ours.redis.master_name == theirs.redis.external.master_name


@given(ODD_SPECS)
@settings(PATIENT, max_examples=300)
def test_what_is_not_refused_the_daemon_begins_with(spec: dict[str, Any]) -> None:
    try:
        asked = resource(spec)
    except InvalidSpec:
        return
    assert read(config.configuration(asked, KNOWN).text).rendered_by == "controller"


def test_defaults_of_the_resource_are_those_of_the_daemon() -> None:
    """What equals the default is left out, so the two have to agree."""
    found = read(config.configuration(resource(), KNOWN).text)
    schema = resource().spec
    durations = Settings.model_validate(
        {
            "network": found.network,
            "chain": {
                "endpoints": found.chain.endpoints,
                "poll_interval": schema.chain.poll_interval,
                "request_timeout": schema.chain.request_timeout,
            },
            "signer": found.signer,
            "aggregation": schema.aggregation.model_dump(),
            "submission": schema.submission.model_dump() | {"mode": "active"},
        }
    )
    assert found.chain.poll_interval == durations.chain.poll_interval
    assert found.chain.request_timeout == durations.chain.request_timeout
    assert found.aggregation == durations.aggregation
    assert found.submission == durations.submission
    assert found.election.profile == schema.failover.profile.lower()
    assert found.listen.drain_timeout == config.DRAIN_TIMEOUT_SECONDS


def test_the_managed_redis_is_reached_at_every_sentinel() -> None:
    known = Known(release=KNOWN.release, redis_addresses=("fd00::1", "fd00::2", "fd00::3"))
    found = read(config.configuration(resource(), known).text)
    assert found.redis is not None
    assert [split_address(each) for each in found.redis.sentinels] == [
        (host, names.SENTINEL_PORT) for host in known.redis_addresses
    ]
    assert found.redis.master_name == names.MASTER_NAME
    assert (found.election.backend, found.election.lease_name) == (Backend.KUBERNETES, "aggregator")


def test_one_replica_alone_leads_without_an_election() -> None:
    found = read(config.configuration(resource(LONE), KNOWN).text)
    assert (found.redis, found.election.backend) == (None, None)


def test_an_external_redis_is_reached_as_it_is_described() -> None:
    tls = {"caSecretRef": {"name": "tls", "key": "ca.crt"}, "checkHostname": False}
    external = SENTINELS["redis"]["external"] | {"copies": 0, "tls": tls}
    spec = {"redis": {"mode": "External", "external": external}}
    found = read(config.configuration(resource(spec), KNOWN).text)
    assert found.redis is not None
    assert found.redis.sentinels == ("redis.example.org:26379",)
    assert (found.redis.copies, found.redis.tls, found.redis.check_hostname) == (0, True, False)


@pytest.mark.parametrize(
    ("signer", "kind"),
    [
        ({"type": "Keystore", "keystore": {"file": "/vault/keystore.json"}}, KeystoreSigner),
        (
            {
                "type": "Web3Signer",
                "web3Signer": {"url": "https://signer:9000", "address": "0x" + "ab" * 20},
            },
            RemoteSigner,
        ),
    ],
)
def test_every_kind_of_signer_is_understood(signer: dict[str, Any], kind: type) -> None:
    found = read(config.configuration(resource({"signer": signer}), KNOWN).text)
    assert isinstance(found.signer, kind)


if __name__ == "__main__":
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for each in CASES:
        target = RENDERED / project["version"] / f"{each.name}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(each.configuration())
