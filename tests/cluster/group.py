"""One ``AlignedAggregator`` on a cluster with nodes, and what stories do to it."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from eth_account import Account

from controller import names
from devnet.files import SCRYPT_CHEAP
from devnet.network import AGGREGATOR_KEY, hexed
from tests.cluster.faults import Faults
from tests.cluster.kubectl import CommandFailed, Kubectl, until
from tests.cluster.table import Row, Table
from tests.cluster.traffic import WINDOW_SECONDS, Traffic

NAME = "main"
REPLICAS = 3
SECRET = "aggregator-key"
PASSWORD = "devnet"
RESOURCE = f"aagg/{NAME}"

_MOVES = 4
"""Of pods that are to be on nodes of their own; a scheduler may put them where they were."""

Manifest = dict[str, Any]


@dataclass
class Group:
    """The resource, its controller and the world around."""

    kubectl: Kubectl
    traffic: Traffic
    faults: Faults | None
    controller: str
    """The Deployment's name."""
    storage_class: str | None
    table: Table
    broken: dict[str, str] = field(default_factory=dict)
    """Nodes, and what was done to them."""

    # The resource.

    def secret(self) -> Manifest:
        keystore = Account.encrypt(AGGREGATOR_KEY, PASSWORD, kdf="scrypt", iterations=SCRYPT_CHEAP)
        files = {"keystore.json": json.dumps(keystore), "password": PASSWORD}
        data = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": data}

    def resource(self) -> Manifest:
        """As examples/aggregator.yaml, for the chain outside."""
        deployment = self.traffic.deployment
        contracts = {
            "serviceManager": hexed(deployment.service_manager),
            "registryCoordinator": hexed(deployment.registry_coordinator),
            "operatorStateRetriever": hexed(deployment.operator_state_retriever),
        }
        journal: Manifest = {"size": "64Mi"}
        if self.storage_class is not None:
            journal["storageClassName"] = self.storage_class
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": NAME},
            "spec": {
                "replicas": REPLICAS,
                "network": {"chainId": deployment.chain_id, "contracts": contracts},
                "chain": {
                    "deploymentBlock": deployment.block,
                    "pollInterval": "500ms",
                    "endpoints": [{"name": "devnet", "url": self.traffic.endpoint}],
                },
                "signer": {
                    "type": "Keystore",
                    "keystore": {
                        "keystoreSecretRef": {"name": SECRET, "key": "keystore.json"},
                        "passwordSecretRef": {"name": SECRET, "key": "password"},
                    },
                },
                "aggregation": {"window": f"{WINDOW_SECONDS:g}s"},
                "service": {"type": "NodePort"},
                "journal": journal,
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            },
        }

    def change(self, **spec: object) -> None:
        """Merge into the resource's spec."""
        self.kubectl.patch("aagg", NAME, {"spec": spec})

    def scale(self, replicas: int) -> None:
        """Through the scale subresource."""
        self.kubectl("scale", RESOURCE, f"--replicas={replicas}")

    def status(self) -> Manifest:
        status: Manifest = self.kubectl.get("aagg", NAME).get("status") or {}
        return status

    def condition(self, of: str) -> Mapping[str, str]:
        """One condition of the present generation; empty: it was not said of that yet."""
        found = self.kubectl.get("aagg", NAME)
        for each in (found.get("status") or {}).get("conditions") or ():
            if each["type"] == of and (
                each["observedGeneration"] == found["metadata"]["generation"]
            ):
                return dict(each)
        return {}

    def wait(self, of: str, status: str = "True", reason: str | None = None) -> None:
        """Wait for a condition of the present generation."""

        def holds() -> bool:
            said = self.condition(of)
            return said.get("status") == status and reason in {None, said.get("reason")}

        until(holds, lambda: f"{of}={status} {reason or ''}; it is {self.told()}")

    def told(self) -> str:
        """What the resource and its pods say, for a person."""
        conditions = [
            f"{each['type']}={each['status']} {each['reason']} {each.get('message', '')}"
            for each in self.status().get("conditions") or ()
        ]
        return "; ".join([*conditions, self.kubectl("get", "pods", "-o", "wide")])

    # Its pods.

    def pods(self, component: str = names.AGGREGATOR) -> list[Manifest]:
        labels = ",".join(f"{k}={v}" for k, v in names.selector(NAME, component).items())
        found: list[Manifest] = self.kubectl.get("pods", "-l", labels)
        return found

    def leader(self) -> str:
        """Who leads, as the Lease has it."""
        holder = self.kubectl.get("lease", NAME)["spec"].get("holderIdentity") or ""
        return str(holder).rpartition(".")[0]

    def term(self) -> int:
        return int(self.kubectl.get("lease", NAME)["spec"].get("leaseTransitions") or 0)

    def pod(self, name: str) -> Manifest:
        found: Manifest = self.kubectl.get("pod", name)
        return found

    def node_of_leader(self) -> str:
        return str(self.pod(self.leader())["spec"]["nodeName"])

    def delete(self, *what: str) -> None:
        """Delete pods at once, without their being asked."""
        self.kubectl("delete", "pod", "--force", "--grace-period=0", "--wait=false", *what)

    def scale_controller(self, replicas: int) -> None:
        self.kubectl("scale", f"deployment/{self.controller}", f"--replicas={replicas}")
        selector = f"app.kubernetes.io/instance={self.controller}"

        def are_so() -> bool:
            pods = self.kubectl.get("pods", "-l", selector)
            return len(pods) == replicas and all(is_ready(pod) for pod in pods)

        until(are_so, f"{replicas} replicas of the controller")

    # Stories.

    def create(self) -> None:
        """Apply it, be told that its key is not there, make the key, and wait as a person would."""
        self.kubectl.apply(self.resource())
        self.wait("Reconciling", "True", "WaitingForSecrets")
        self.wait("Stalled", "False")
        self.kubectl.apply(self.secret())
        self.wait("Ready")

    def steady(self, replicas: int = REPLICAS) -> None:
        """Make everything as it was at first."""
        self.mend()
        self.scale_controller(2)
        if self.kubectl.get("aagg", NAME)["spec"]["replicas"] != replicas:
            self.scale(replicas)
        self._wait_serving()
        self._spread()

    def mend(self) -> None:
        """End every fault that is left."""
        for node, done in list(self.broken.items()):
            assert self.faults is not None
            if done == "killed":
                self.faults.start(node)
            elif done == "partitioned":
                self.faults.heal(node)
            elif done == "drained":
                self.kubectl("uncordon", node)
            del self.broken[node]

    def _wait_serving(self) -> None:
        self.wait("Ready")
        until(self._is_whole, lambda: f"all pods are ready; {self.told()}")

    def _is_whole(self) -> bool:
        asked = self.kubectl.get("aagg", NAME)["spec"]["replicas"]
        groups = ((names.AGGREGATOR, asked), (names.REDIS, names.REDIS_PODS))
        return all(
            len(pods := self.pods(component)) == wanted and all(is_ready(pod) for pod in pods)
            for component, wanted in groups
        )

    def _spread(self) -> None:
        """Put pods of a kind apart, where earlier stories drove them together."""
        nodes = len(nodes_of(self.kubectl))
        for component in (names.AGGREGATOR, names.REDIS):
            for _ in range(_MOVES):
                pods = self.pods(component)
                on = Counter(pod["spec"]["nodeName"] for pod in pods)
                ((crowded, most),) = on.most_common(1)
                if most == 1 or len(on) >= min(nodes, len(pods)):
                    break
                names_there = [
                    pod["metadata"]["name"] for pod in pods if pod["spec"]["nodeName"] == crowded
                ]
                self.kubectl("delete", "pod", names_there[0])
                self._wait_serving()

    @contextmanager
    def story(self, name: str, replicas: int = REPLICAS) -> Iterator[None]:
        """Something happens, and in the end nothing is lost.

        Before it a batch has all but one of the signatures that it needs, acknowledged; the last
        one comes after everything. At the end all that was posted is answered once.
        """
        self.steady(replicas)
        self.traffic.flow(1)
        held = self.traffic.hold()
        term, since = self.term(), time.time()
        try:
            yield
            self._wait_serving()
        finally:
            self.mend()
        self.traffic.flow()
        self.traffic.complete(held)
        problems = self.traffic.problems()
        self.table.add(Row(name, self.traffic.gaps(since), self.failovers(term)))
        assert not problems, "\n".join(problems)

    def failovers(self, after: int) -> list[Manifest]:
        """Changes of leader since a term, as they were recorded; latest first."""
        records = self.status().get("failovers") or ()
        return [each for each in records if each["term"] > after]


def is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )


def nodes_of(kubectl: Kubectl) -> dict[str, str]:
    """Nodes that run pods, with their addresses."""
    found = {}
    for node in kubectl.get("nodes"):
        taints = node["spec"].get("taints") or ()
        if any("control-plane" in taint["key"] for taint in taints):
            continue
        addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
        found[node["metadata"]["name"]] = addresses["InternalIP"]
    return found


def logs(kubectl: Kubectl) -> str:
    """What everything said at last, for a failed run."""
    said = []
    for pod in kubectl.get("pods"):
        containers = chain(
            pod["spec"].get("initContainers") or (), pod["spec"].get("containers") or ()
        )
        for container in containers:
            name = pod["metadata"]["name"]
            for former in ("--previous=false", "--previous"):
                try:
                    text = kubectl("logs", name, "-c", container["name"], "--tail=200", former)
                except CommandFailed:
                    continue
                said.append(f"=== {name} {container['name']} {former}\n{text}")
    return "\n".join(said)
