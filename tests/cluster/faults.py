"""Ways to break a cluster that Kubernetes itself does not have: a thin layer over what runs it.

``CLUSTER_FAULTS`` names it: ``docker`` for a kind cluster, or the path of a program with the verbs
``node-kill``, ``node-start``, ``node-partition``, ``node-heal``, ``node-shell``, and
``component-stop`` and ``component-start`` for the API server. Absent: tests that need one are
skipped by name.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Protocol

VERB_SECONDS = 180.0

_DOCKER_NETWORK = "kind"
_IN_CONTAINERD = ("ctr", "-n", "k8s.io")


class Faults(Protocol):
    """Nodes are named as Kubernetes names them. Each fault is mended by the verb after it."""

    def kill(self, node: str) -> None:
        """End every process of a node at once, as a power cut would."""

    def start(self, node: str) -> None:
        """Boot it again with its disk as it was."""

    def partition(self, node: str) -> None:
        """Pull its network cable; its pods run on."""

    def heal(self, node: str) -> None:
        """Put the cable back."""

    def stop_api_server(self) -> None:
        """Let nobody reach the API server."""

    def start_api_server(self) -> None:
        """Let everybody reach it again."""

    def inside(self, node: str, *command: str) -> str:
        """Run a command on a node; return what it printed."""


def faults(named: str) -> Faults | None:
    """Return what ``CLUSTER_FAULTS`` names; None: nothing."""
    if not named:
        return None
    return Docker() if named == "docker" else Verbs(Path(named))


def kill_container(them: Faults, node: str, container_id: str) -> None:
    """End a container's first process with SIGKILL.

    Args:
        them: The cluster's.
        node: Where it runs.
        container_id: As the pod's status has it, ``containerd://…``.
    """
    bare = container_id.removeprefix("containerd://")
    them.inside(node, *_IN_CONTAINERD, "tasks", "kill", "--signal", "SIGKILL", bare)


def tag(them: Faults, node: str, image: str, also: str) -> None:
    """Give an image that a node has a second name there."""
    them.inside(node, *_IN_CONTAINERD, "images", "tag", "--force", full(image), full(also))


def full(image: str) -> str:
    """Return an image's name as nodes keep it: with its registry."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


class Verbs:
    """A program with a verb for each fault; it numbers the nodes that Kubernetes calls node-N."""

    def __init__(self, program: Path) -> None:
        self._program = str(program)

    def kill(self, node: str) -> None:
        self._on(node, "node-kill")

    def start(self, node: str) -> None:
        self._on(node, "node-start")

    def partition(self, node: str) -> None:
        self._on(node, "node-partition")

    def heal(self, node: str) -> None:
        self._on(node, "node-heal")

    def stop_api_server(self) -> None:
        _run(self._program, "component-stop", "kube-apiserver")

    def start_api_server(self) -> None:
        _run(self._program, "component-start", "kube-apiserver")

    def inside(self, node: str, *command: str) -> str:
        return self._on(node, "node-shell", *command)

    def _on(self, node: str, verb: str, *command: str) -> str:
        return _run(self._program, verb, node.rpartition("-")[2], *command)


class Docker:
    """The nodes of a kind cluster are containers, named as the nodes are."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def kill(self, node: str) -> None:
        _run("docker", "kill", node)

    def start(self, node: str) -> None:
        _run("docker", "start", node)

    def partition(self, node: str) -> None:
        (found,) = json.loads(_run("docker", "inspect", node))
        network = found["NetworkSettings"]["Networks"][_DOCKER_NETWORK]
        self._addresses[node] = network["IPAddress"]
        _run("docker", "network", "disconnect", _DOCKER_NETWORK, node)

    def heal(self, node: str) -> None:
        # The kubelet is bound to the address that the node had.
        address = self._addresses.pop(node)
        _run("docker", "network", "connect", "--ip", address, _DOCKER_NETWORK, node)

    def stop_api_server(self) -> None:
        _run("docker", "pause", self._control_plane())

    def start_api_server(self) -> None:
        _run("docker", "unpause", self._control_plane())

    def inside(self, node: str, *command: str) -> str:
        return _run("docker", "exec", node, *command)

    def _control_plane(self) -> str:
        label = "label=io.x-k8s.kind.role=control-plane"
        running = _run("docker", "ps", "--filter", label, "--format", "{{.Names}}").split()
        assert len(running) == 1, f"one control plane is wanted: {running}"
        return running[0]


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=VERB_SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout
