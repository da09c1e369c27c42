"""The StatefulSet controller and the kubelets of a ``FakeCluster``: one ``step`` at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from controller import ports
from controller.ports import Manifest
from controller.volumes import is_bound
from tests.fakes.cluster import FakeCluster, Stored, _owners


class FakeKubelet:
    """Makes pods of StatefulSets, and lets them run or not."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.trouble: Callable[[Manifest], str] = lambda pod: ""
        """Says why a pod's container does not run; empty: it runs, and is ready."""
        self.admit: Callable[[Manifest], Manifest] = lambda pod: pod
        """What webhooks make of a pod that is to be created."""
        self.node: Callable[[int], str] = lambda ordinal: f"node-{ordinal}"
        self.unbound: set[str] = set()
        """Claims that find no volume."""
        self._addresses = 0

    def step(self) -> None:
        """End what is being deleted, make what is missing, start what was made."""
        for pod in self.cluster.peek(ports.PODS):
            if "deletionTimestamp" in pod["metadata"]:
                self._forget(pod)
        for statefulset in self.cluster.peek(ports.STATEFUL_SETS):
            self._scale(statefulset)
        for claim in self.cluster.peek(ports.VOLUME_CLAIMS):
            self._bind(claim)
        for pod in self.cluster.peek(ports.PODS):
            self._run(pod)

    def settle(self, steps: int = 3) -> None:
        """Step until nothing is left to do."""
        self.cluster.collect_garbage()
        for _ in range(steps):
            self.step()

    def _forget(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        del self.cluster.stored["Pod", metadata["namespace"], metadata["name"]]

    def _scale(self, statefulset: Manifest) -> None:
        metadata, spec = statefulset["metadata"], statefulset["spec"]
        namespace, name = metadata["namespace"], metadata["name"]
        wanted = [f"{name}-{ordinal}" for ordinal in range(spec.get("replicas", 1))]
        mine = self.cluster.peek(ports.PODS, namespace, spec["selector"]["matchLabels"])
        for pod in mine:
            owners = _owners(Stored(pod))
            if not owners:
                reference = {"ownerReferences": [_reference(statefulset)]}
                self.cluster.edit({**pod, "metadata": {**pod["metadata"], **reference}})
            elif owners == {metadata["uid"]} and pod["metadata"]["name"] not in wanted:
                self.cluster.remove(ports.PODS, namespace, pod["metadata"]["name"])
        for ordinal, pod_name in enumerate(wanted):
            if self.cluster.read(ports.PODS, namespace, pod_name) is None:
                self._make(statefulset, ordinal, pod_name)
        told = {
            "observedGeneration": metadata["generation"],
            "updateRevision": _revision(statefulset),
        }
        self.cluster.edit({**statefulset, "status": told}, "kube-controller-manager")

    def _make(self, statefulset: Manifest, ordinal: int, pod_name: str) -> None:
        namespace, template = statefulset["metadata"]["namespace"], statefulset["spec"]["template"]
        labels = {
            **template["metadata"].get("labels", {}),
            "apps.kubernetes.io/pod-index": str(ordinal),
            "controller-revision-hash": _revision(statefulset),
        }
        for claim in statefulset["spec"].get("volumeClaimTemplates", ()):
            self._claim(statefulset, claim, f"{claim['metadata']['name']}-{pod_name}")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name,
                "namespace": namespace,
                "labels": labels,
                "annotations": dict(template["metadata"].get("annotations", {})),
                "ownerReferences": [_reference(statefulset)],
            },
            "spec": {**deepcopy(template["spec"]), "nodeName": self.node(ordinal)},
            "status": {"phase": "Pending"},
        }
        self.cluster.put(self.admit(pod), "kube-controller-manager")

    def _claim(self, statefulset: Manifest, template: Manifest, name: str) -> None:
        namespace = statefulset["metadata"]["namespace"]
        if self.cluster.read(ports.VOLUME_CLAIMS, namespace, name) is None:
            self.cluster.put(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {
                        "name": name,
                        "namespace": namespace,
                        "labels": dict(statefulset["spec"]["selector"]["matchLabels"]),
                    },
                    "spec": deepcopy(template["spec"]),
                },
                "kube-controller-manager",
            )

    def _bind(self, claim: Manifest) -> None:
        if claim["metadata"]["name"] not in self.unbound and not is_bound(claim):
            self.cluster.edit({**claim, "status": {"phase": "Bound"}}, "kube-controller-manager")

    def _run(self, pod: Manifest) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            return
        status = pod.get("status", {})
        trouble = self.trouble(pod)
        address = status.get("podIP")
        if address is None:
            self._addresses += 1
            address = f"10.244.0.{self._addresses}"
        ready = {"type": "Ready", "status": "False" if trouble else "True"}
        known = [each for each in status.get("conditions", ()) if each["type"] == "Ready"]
        same = known and known[0]["status"] == ready["status"]
        ready["lastTransitionTime"] = (
            known[0]["lastTransitionTime"] if same else self.cluster.time.text
        )
        container: dict[str, Any] = {
            "name": pod["spec"]["containers"][0]["name"],
            "ready": not trouble,
            "state": {"waiting": {"reason": trouble, "message": f"{trouble} of {pod['kind']}"}}
            if trouble
            else {"running": {}},
        }
        told = {
            "phase": "Pending" if trouble else "Running",
            "podIP": address,
            "conditions": [ready],
            "containerStatuses": [container],
        }
        if told != status:
            self.cluster.edit({**pod, "status": told}, "kubelet")


def _revision(statefulset: Manifest) -> str:
    template = json.dumps(statefulset["spec"]["template"], sort_keys=True)
    digest = hashlib.sha256(template.encode()).hexdigest()[:10]
    return f"{statefulset['metadata']['name']}-{digest}"


def _reference(statefulset: Manifest) -> dict[str, Any]:
    return {
        "apiVersion": statefulset["apiVersion"],
        "kind": statefulset["kind"],
        "name": statefulset["metadata"]["name"],
        "uid": statefulset["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
