"""The switches on Redis do what their names say: else a run would try less than it claims."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devnet.sentinel import SentinelGroup
from tests.fakes.redis import STEADY, programs
from tests.nemesis.snapshot import restart_with_snapshot, take_snapshot


@pytest.fixture
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(programs("valkey", tmp_path_factory.mktemp("programs")), STEADY) as running:
        yield running


def port(group: SentinelGroup, index: int = 0) -> int:
    return group.machines[index].port


def test_a_server_that_was_synced_is_empty_when_it_is_restarted(group: SentinelGroup) -> None:
    group.ask(port(group), "SET", "key", "value")
    group.ask(port(group, 1), "REPLICAOF", "NO", "ONE")
    group.ask(port(group, 1), "SET", "of its own", "value")
    group.ask(port(group, 1), "REPLICAOF", "127.0.0.1", str(port(group)))  # reads everything
    group.settle()
    assert group.ask(port(group, 1), "DBSIZE").startswith("1")
    assert "value" in group.ask(port(group, 1), "GET", "key")
    for index in (1, 2, 0):
        group.kill(index)
    group.start_server(1, primary=1)
    group._wait(lambda: "PONG" in group.ask(port(group, 1), "PING"), "it is up")
    assert group.ask(port(group, 1), "DBSIZE").startswith("0")


def test_a_server_with_a_snapshot_comes_back_as_it_was_once(group: SentinelGroup) -> None:
    group.ask(port(group), "SET", "key", "old")
    take_snapshot(group, 0)
    group.ask(port(group), "SET", "key", "new")
    restart_with_snapshot(group, 0)
    assert "old" in group.ask(port(group), "GET", "key")
    group.restart(0)
    group._wait(lambda: "PONG" in group.ask(port(group), "PING"), "it is up")
    assert group.ask(port(group), "DBSIZE").startswith("0")
