"""A Redis server that comes back as it was a while ago, as one with persistence does."""

from __future__ import annotations

import threading
import time

from devnet.sentinel import GroupFailed, SentinelGroup

_LOAD_SECONDS = 20.0
_LOOK_SECONDS = 0.01


def take_snapshot(group: SentinelGroup, index: int) -> None:
    """Have a server write what it holds to its disk, for its next start."""
    group.ask(group.machines[index].port, "SAVE")


def restart_with_snapshot(group: SentinelGroup, index: int) -> None:
    """Kill a server and start it again at once, with its snapshot; later starts are empty again.

    Raises:
        GroupFailed: It does not come up.
    """
    group.restart(index)
    until, pause = time.monotonic() + _LOAD_SECONDS, threading.Event()
    while "PONG" not in group.ask(group.machines[index].port, "PING"):
        if time.monotonic() > until:
            msg = f"server {index} does not come up with its snapshot"
            raise GroupFailed(msg)
        pause.wait(_LOOK_SECONDS)
    (group._folder / f"dump-{index}.rdb").unlink(missing_ok=True)
