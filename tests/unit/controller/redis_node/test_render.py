from __future__ import annotations

import hashlib
import subprocess

import pytest

from controller.redis_node.render import Group, Unusable, files, parse_group, shell
from controller.redis_node.rule import Configuration

NODES = "10.0.0.1 aaaa\n10.0.0.2 bbbb\n10.0.0.3 cccc\n"
TEMPLATES = {
    "redis.conf": "announce ${address}\n${replicaof}\n",
    "sentinel.conf": "myid ${sentinel_id}\nmonitor ${primary}\nepoch ${epoch}\n${known}\n",
    "users.acl": "user a on #${sha256_a}\n",
    "sentinel-users.acl": "auth ${password_a}\n",
}
PATHS = {"data": "/data", "listen": "*"}


def group(ordinal: int = 1) -> Group:
    return parse_group(NODES, f"agg-redis-{ordinal}")


def rendered(ordinal: int = 1, *passwords: str) -> dict[str, str]:
    known = {"a": passwords[0] if passwords else "p"}
    return files(group(ordinal), Configuration("10.0.0.1", 7), TEMPLATES, known, PATHS)


def test_a_replica_follows_and_knows_all_others() -> None:
    assert rendered()["redis.conf"] == "announce 10.0.0.2\nreplicaof 10.0.0.1 6379\n"
    assert rendered()["sentinel.conf"].splitlines() == [
        "myid bbbb",
        "monitor 10.0.0.1",
        "epoch 7",
        "sentinel known-replica aggregator 10.0.0.2 6379",
        "sentinel known-replica aggregator 10.0.0.3 6379",
        "sentinel known-sentinel aggregator 10.0.0.1 26379 aaaa",
        "sentinel known-sentinel aggregator 10.0.0.3 26379 cccc",
    ]


def test_the_primary_follows_nobody() -> None:
    assert rendered(0)["redis.conf"] == "announce 10.0.0.1\n\n"


def test_users_are_known_by_digest_and_passwords_shown_where_they_must() -> None:
    assert rendered()["users.acl"] == f"user a on #{hashlib.sha256(b'p').hexdigest()}\n"
    assert rendered()["sentinel-users.acl"] == "auth p\n"


@pytest.mark.parametrize("password", ["", "two words", 'a"quote', "a'quote", "a\\b", "é", "a\nb"])
def test_a_password_that_would_break_a_file_is_refused(password: str) -> None:
    with pytest.raises(Unusable, match="the password of 'a'"):
        rendered(1, password)


@pytest.mark.parametrize("template", ["${unknown}", "a $ sign"])
def test_a_template_of_another_release_is_refused(template: str) -> None:
    with pytest.raises(Unusable, match="use images of one release"):
        files(group(), Configuration("10.0.0.1", 0), TEMPLATES | {"users.acl": template}, {}, PATHS)


@pytest.mark.parametrize("pod", ["agg-redis-3", "agg-redis-x", "agg", ""])
def test_a_pod_that_is_not_of_the_group_is_refused(pod: str) -> None:
    with pytest.raises(Unusable, match="none of the 3"):
        parse_group(NODES, pod)


def test_nodes_need_an_address_and_an_id() -> None:
    with pytest.raises(Unusable, match="an address and a Sentinel id"):
        parse_group("10.0.0.1\n", "agg-redis-0")


def test_a_shell_reads_what_was_written() -> None:
    values = {"a": 'it\'s $HOME `id` "x"', "b": "10.0.0.1"}
    script = shell(values) + 'printf "%s|%s" "$a" "$b"'
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "|".join(values.values())
