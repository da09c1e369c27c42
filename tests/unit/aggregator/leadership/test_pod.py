from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.leadership.pod import lease_at
from aggregator.replicas import Backend, Election
from aligned.errors import BadConfiguration

LEASE = Election(backend=Backend.KUBERNETES, lease_name="aligned")
CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def test_a_pod_finds_everything_but_the_name_by_itself(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("bridge\n")
    (tmp_path / "token").write_text("secret")
    where = lease_at(LEASE, CLUSTER, tmp_path)
    assert (where.server, where.namespace, where.name) == (
        "https://10.0.0.1:6443",
        "bridge",
        "aligned",
    )
    assert where.token_file == tmp_path / "token"


def test_an_address_of_version_6_gets_brackets(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("bridge")
    where = lease_at(LEASE, {"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path)
    assert where.server == "https://[fd00::1]:443"


def test_what_is_configured_wins(tmp_path: Path) -> None:
    election = Election(
        backend=Backend.KUBERNETES,
        lease_name="a",
        lease_namespace="b",
        api_server="http://localhost:1",
        token_file=tmp_path / "own",
    )
    (tmp_path / "own").write_text("x")
    where = lease_at(election, CLUSTER, tmp_path)
    assert (where.server, where.namespace) == ("http://localhost:1", "b")
    assert where.token_file == tmp_path / "own"
    assert where.ssl is None


def test_outside_of_a_pod_everything_that_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as refusal:
        lease_at(LEASE, {}, tmp_path)
    assert [problem.partition(":")[0] for problem in refusal.value.problems] == [
        "election.api_server",
        "election.lease_namespace",
    ]


def test_authorities_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("bridge")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(BadConfiguration, match="api_ca_file"):
        lease_at(LEASE, CLUSTER, tmp_path)
