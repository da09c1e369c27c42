"""A small world for one pass after another: API server, kubelets, replicas that elect a leader."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from controller import names, ports
from controller.desired.known import Release
from controller.observe import Unreachable
from controller.ports import Manifest
from controller.reconcile import Outcome, Reconciler
from tests.fakes.cluster import FakeCluster, Time, is_ready
from tests.fakes.kubelet import FakeKubelet

NAMESPACE, NAME = "aligned", "agg"
RELEASE = Release(image="aggregator:1", redis_image="valkey:1")
SPEC: dict[str, Any] = {
    "network": {"preset": "Devnet"},
    "chain": {"endpoints": [{"name": "main", "url": "http://anvil:8545"}]},
    "signer": {
        "type": "Keystore",
        "keystore": {
            "keystoreSecretRef": {"name": "key", "key": "keystore.json"},
            "passwordSecretRef": {"name": "key", "key": "password"},
        },
    },
}
LEASE_SECONDS = 5.0

Objects = dict[tuple[str, str], Manifest]


def manifest(spec: Mapping[str, Any] | None = None, name: str = NAME) -> Manifest:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": deepcopy(SPEC) | deepcopy(dict(spec or {})),
    }


@dataclass
class World:
    """Everything around the reconciler."""

    time: Time = field(default_factory=Time)
    release: Release = RELEASE
    reachable: bool = True
    """The controller reaches the pods' network."""
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What replicas say beside the usual, by pod."""
    unfit: dict[str, str] = field(default_factory=dict)
    """What pods lack to lead."""
    declines: bool = False
    """The leader knows of no peer, so it declines every handover."""

    def __post_init__(self) -> None:
        self.cluster = FakeCluster(self.time)
        self.kubelet = FakeKubelet(self.cluster)
        self.reconciler = self.restarted()
        self.failovers: dict[str, list[dict[str, Any]]] = {}

    def restarted(self, release: Release | None = None) -> Reconciler:
        self.release = release or self.release
        self.reconciler = Reconciler(self.cluster, self.release, self, self.time, lambda: "secret")
        return self.reconciler

    # What people and the replicas do.

    def create(self, spec: Mapping[str, Any] | None = None, name: str = NAME) -> Manifest:
        return self.cluster.put(manifest(spec, name))

    def change(self, spec: Mapping[str, Any], name: str = NAME) -> Manifest:
        return self.cluster.edit({**manifest(None, name), "spec": dict(spec)})

    def elect(self, name: str = NAME) -> None:
        """Let the replicas choose a leader as their election would."""
        lease = self.cluster.read(ports.LEASES, NAMESPACE, name)
        if lease is None:
            return
        spec, annotations = lease["spec"], lease["metadata"].get("annotations") or {}
        ready = [pod["metadata"]["name"] for pod in self.pods(name) if is_ready(pod)]
        fit = [pod for pod in ready if pod not in self.unfit]
        holder = str(spec.get("holderIdentity") or "").rpartition(".")[0]
        wanted = annotations.get("aligned-aggregator.io/handover-to", "")
        takes_over = wanted in fit and not (self.declines and holder in fit)
        heir = wanted if takes_over else holder if holder in fit else next(iter(fit), "")
        change: dict[str, Any] = {"renewTime": self.time.now.isoformat()}
        if heir and heir != holder:
            term = int(spec.get("leaseTransitions") or 0) + 1
            change |= {
                "holderIdentity": f"{heir}.boot",
                "leaseTransitions": term,
                "acquireTime": self.time.now.isoformat(),
                "leaseDurationSeconds": int(LEASE_SECONDS),
            }
            over = "" if heir == wanted or not holder else f"{holder}.boot"
            self.failovers.setdefault(heir, []).append(
                {"term": term, "over": over, "detect_ms": 5, "elect_ms": 6, "resume_ms": 7}
            )
        if heir:
            patch = {"annotations": {"aligned-aggregator.io/handover-to": None}}
            settled = {**lease, "metadata": {**lease["metadata"], **patch}, "spec": change}
            self.cluster.edit(settled, "aggregator")

    async def status(self, address: str) -> Mapping[str, Any]:
        """See ``Replicas``."""
        for pod in self.cluster.peek(ports.PODS):
            name = pod["metadata"]["name"]
            if pod["status"].get("podIP") == address and self.reachable:
                return {
                    "role": {"term": 0, "leads": False},
                    "replicas": {
                        "unfit": self.unfit.get(name),
                        "store": {"reachable": True, "in_sync": True, "primary": None},
                        "failovers": self.failovers.get(name, []),
                    },
                    "chain": {"seen_seconds_ago": 1, "endpoints": [{"name": "a", "healthy": True}]},
                    "submission": {"blocked": None, "account": None},
                    "parked": [],
                } | self.said.get(name, {})
        raise Unreachable("no answer within 2 s")

    # What happens.

    async def reconcile(self, name: str = NAME) -> Outcome:
        return await self.reconciler.reconcile(NAMESPACE, name)

    async def turn(self, name: str = NAME) -> Outcome:
        """One pass, and what everything else makes of it."""
        outcome = await self.reconcile(name)
        self.kubelet.settle(2)
        self.elect(name)
        self.time.advance(1)
        return outcome

    async def settle(self, name: str = NAME, turns: int = 60) -> None:
        """Turn until nothing is left to do."""
        for _ in range(turns):
            outcome = await self.turn(name)
            if outcome.wrote == 0 and self.condition("Reconciling", name)["status"] == "False":
                return
        raise AssertionError(f"not settled: {self.told(name)}")

    # What there is.

    def resource(self, name: str = NAME) -> Manifest:
        found = self.cluster.read(ports.AGGREGATORS, NAMESPACE, name)
        assert found is not None
        return found

    def told(self, name: str = NAME) -> dict[str, Any]:
        status: dict[str, Any] = self.resource(name).get("status") or {}
        return status

    def condition(self, of: str, name: str = NAME) -> dict[str, Any]:
        for each in self.told(name).get("conditions", ()):
            if each["type"] == of:
                return dict(each)
        return {"status": "", "reason": ""}

    def is_ready(self, name: str = NAME) -> bool:
        ready = self.condition("Ready", name)
        generation = self.resource(name)["metadata"]["generation"]
        return bool(ready["status"] == "True" and ready["observedGeneration"] == generation)

    def pods(self, name: str = NAME) -> list[Manifest]:
        return list(self.cluster.peek(ports.PODS, NAMESPACE, names.selector(name, "aggregator")))

    def redis_pods(self, name: str = NAME) -> list[Manifest]:
        return list(self.cluster.peek(ports.PODS, NAMESPACE, names.selector(name, "redis")))

    def uids(self) -> dict[str, str]:
        return {
            pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.cluster.peek(ports.PODS)
        }

    def leader(self) -> str:
        lease = self.cluster.read(ports.LEASES, NAMESPACE, NAME)
        assert lease is not None
        return str(lease["spec"].get("holderIdentity") or "").rpartition(".")[0]


def owned(world: World) -> Objects:
    """What a resource's objects say, without what the API server says of them."""
    uid = world.resource()["metadata"]["uid"]
    return {
        (kind.kind, each["metadata"]["name"]): {
            name: value for name, value in each.items() if name not in {"metadata", "status"}
        }
        | {"labels": each["metadata"].get("labels")}
        for kind in ports.OWNED
        if kind != ports.LEASES
        for each in world.cluster.all(kind, NAMESPACE)
        if names.owner_of(each["metadata"]) == uid
    }


async def ready(world: World, spec: dict[str, Any] | None = None) -> World:
    world.create(spec)
    await world.settle()
    assert world.is_ready(), world.told()
    world.cluster.writes.clear()
    return world
