"""The cluster as a person has it: through ``kubectl`` and ``helm``, with plain patience."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 240.0
"""Much longer than anything takes on a machine that is busy."""

_CALL_SECONDS = 300.0
_LOOK_SECONDS = 0.5


class CommandFailed(Exception):
    """A program ended with an error; the message has what it said."""


def run(*command: str, stdin: str | None = None) -> str:
    """Return what a command printed; it has to succeed."""
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=_CALL_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def until(
    holds: Callable[[], object], what: str | Callable[[], str], seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until ``holds``; an API server that is away meanwhile counts as no."""
    deadline = time.monotonic() + seconds
    pause = _LOOK_SECONDS
    trouble = ""
    while True:
        try:
            if holds():
                return
            trouble = ""
        except CommandFailed as failed:
            trouble = f" ({failed})"
        if time.monotonic() > deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {text}{trouble}")
        _pause(pause)


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - tests of a cluster are plain threads, and look now and then


class Kubectl:
    """``kubectl`` in one namespace."""

    def __init__(self, config: Path, namespace: str) -> None:
        self.config = config
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        options = ("--kubeconfig", str(self.config), "--namespace", self.namespace)
        return run("kubectl", *options, "--request-timeout=30s", *arguments, stdin=stdin)

    def apply(self, *manifests: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self("apply", "-f", "-", stdin=json.dumps(listed))

    def get(self, *what: str) -> Any:
        """One object, or the items of a list."""
        found = json.loads(self("get", *what, "-o", "json"))
        return found["items"] if found["kind"] == "List" else found

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> None:
        self("patch", kind, name, "--type=merge", "-p", json.dumps(change))
