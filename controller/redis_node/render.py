"""Pure: the files that a pod of the group runs by.

Placeholders of the templates, ``${name}``:

======================  =========================================================================
``data``                the directory that the files are in
``listen``              what server and Sentinel bind to
``address``             of this pod
``sentinel_id``         of this pod's Sentinel
``primary``, ``epoch``  what the pod goes by
``replicaof``           the line that makes the server a replica; empty for the primary
``known``               lines that tell the Sentinel of the other servers and Sentinels
``password_<user>``     in clear, where the server must show it to others
``sha256_<user>``       hexadecimal, for ACL files
======================  =========================================================================
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING

from controller.names import MASTER_NAME, REDIS_PORT, SENTINEL_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.redis_node.rule import Configuration

TEMPLATES = ("redis.conf", "sentinel.conf", "users.acl", "sentinel-users.acl")
"""Keys of the ConfigMap; the rendered files are called the same."""

_PASSWORD = re.compile(r"[!-~]+")


class Unusable(ValueError):
    """What was mounted into the pod cannot be; the message says what and what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One pod of the group."""

    address: str
    """Of its Service."""
    sentinel_id: str
    """40 hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All pods as one of them sees them."""

    nodes: tuple[Node, ...]
    """By ordinal."""
    ordinal: int
    """Of this pod."""

    @property
    def me(self) -> Node:
        """This pod."""
        return self.nodes[self.ordinal]

    @property
    def others(self) -> tuple[Node, ...]:
        """All but this pod."""
        return tuple(node for node in self.nodes if node is not self.me)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all pods by ordinal."""
        return tuple(node.address for node in self.nodes)


def parse_group(text: str, pod: str) -> Group:
    """Return the group from the file ``nodes`` and the pod's name, which ends with its ordinal.

    Raises:
        Unusable: They do not fit.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines):  # noqa: PLR2004 - address and id
        msg = "the file nodes must have an address and a Sentinel id on every line"
        raise Unusable(msg)
    _, _, ordinal = pod.rpartition("-")
    if not ordinal.isdecimal() or int(ordinal) >= len(lines):
        msg = f"the pod {pod!r} is none of the {len(lines)} in the file nodes: delete it"
        raise Unusable(msg)
    return Group(nodes=tuple(Node(*line) for line in lines), ordinal=int(ordinal))


def files(
    group: Group,
    configuration: Configuration,
    templates: Mapping[str, str],
    passwords: Mapping[str, str],
    paths: Mapping[str, str],
) -> dict[str, str]:
    """Return the configuration files by name.

    Args:
        group: The pods.
        configuration: What this one goes by.
        templates: By name, see ``TEMPLATES``.
        passwords: By user.
        paths: ``data`` and ``listen``.

    Raises:
        Unusable: A password has characters that the servers' files cannot hold, or a template
            asks for what there is not.
    """
    for user, password in passwords.items():
        if not _PASSWORD.fullmatch(password) or set(password) & set("\"'\\"):
            msg = f"the password of {user!r} must be printable ASCII without quotes and spaces"
            raise Unusable(msg)
    values = {
        **paths,
        "address": group.me.address,
        "sentinel_id": group.me.sentinel_id,
        "primary": configuration.primary,
        "epoch": str(configuration.epoch),
        "replicaof": _replicaof(group, configuration),
        "known": _known(group, configuration),
    }
    for user, password in passwords.items():
        values[f"password_{user}"] = password
        values[f"sha256_{user}"] = hashlib.sha256(password.encode()).hexdigest()
    try:
        return {name: Template(templates[name]).substitute(values) for name in TEMPLATES}
    except (KeyError, ValueError) as error:
        msg = f"a template of the ConfigMap lacks or asks for {error}: use images of one release"
        raise Unusable(msg) from error


def _replicaof(group: Group, configuration: Configuration) -> str:
    if configuration.primary == group.me.address:
        return ""
    return f"replicaof {configuration.primary} {REDIS_PORT}"


def _known(group: Group, configuration: Configuration) -> str:
    replicas = [
        f"sentinel known-replica {MASTER_NAME} {address} {REDIS_PORT}"
        for address in group.addresses
        if address != configuration.primary
    ]
    sentinels = [
        f"sentinel known-sentinel {MASTER_NAME} {node.address} {SENTINEL_PORT} {node.sentinel_id}"
        for node in group.others
    ]
    return "\n".join([*replicas, *sentinels])


def shell(values: Mapping[str, str]) -> str:
    """Return variables as a file that a POSIX shell reads."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
