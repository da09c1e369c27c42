"""One resource after another at a real API server, with kubelets and replicas of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controller import names, ports
from controller.desired.known import Release
from controller.guarded import GuardedCluster
from controller.kube import KubeCluster
from controller.kubeconfig import api_server
from controller.ports import Kind, Manifest
from controller.reconcile import Outcome, Reconciler
from tests.kubernetes import Admin, an_aggregator, kubeconfig, path_of
from tests.waiting import until

RELEASE = Release(image="aggregator:1", redis_image="valkey:1")
RENEW_SECONDS = 3.0
MERGE = "application/merge-patch+json"


class Contented:
    """Replicas that have nothing to complain of."""

    async def status(self, address: str) -> Mapping[str, Any]:
        store = {"reachable": True, "in_sync": True, "primary": None}
        return {
            "replicas": {"store": store, "failovers": []},
            "chain": {"seen_seconds_ago": 1, "endpoints": [{"name": "main", "healthy": True}]},
        }


@dataclass
class Place:
    """A namespace, and who works in it."""

    admin: Admin
    cluster: KubeCluster
    namespace: str
    trouble: dict[str, str] = field(default_factory=dict)
    """Why pods with that image do not run."""
    wrote: list[tuple[str, str]] = field(default_factory=list)
    """Kind and verb of what the controller wrote."""

    def __post_init__(self) -> None:
        guarded = GuardedCluster(
            self.cluster, lambda: None, lambda kind, verb: self.wrote.append((kind, verb))
        )
        self.reconciler = Reconciler(guarded, RELEASE, Contented(), lambda: datetime.now(UTC))

    # People.

    async def create(self, name: str = "agg", **spec: object) -> Manifest:
        path = path_of(ports.AGGREGATORS, self.namespace)
        made: Manifest = await self.admin.call(
            "POST", path, an_aggregator(self.namespace, name, **spec)
        )
        return made

    async def change(self, name: str = "agg", **spec: object) -> Manifest:
        path = path_of(ports.AGGREGATORS, self.namespace, name)
        changed: Manifest = await self.admin.merge(path, {"spec": spec})
        return changed

    async def read(self, kind: Kind, name: str = "agg") -> Manifest | None:
        return await self.cluster.get(kind, self.namespace, name)

    async def told(self, of: str, name: str = "agg") -> tuple[str, str]:
        resource = await self.read(ports.AGGREGATORS, name)
        assert resource is not None
        for each in (resource.get("status") or {}).get("conditions", ()):
            if each["type"] == of:
                return each["status"], each["reason"]
        return "", ""

    async def is_ready(self, name: str = "agg") -> bool:
        resource = await self.read(ports.AGGREGATORS, name)
        assert resource is not None
        return says_ready(resource)

    async def comes_ready(self, name: str = "agg") -> bool:
        """Whether it is ready after another pass."""
        await self.reconcile(name)
        return await self.is_ready(name)

    async def owned(self, name: str = "agg") -> dict[tuple[str, str], Manifest]:
        resource = await self.read(ports.AGGREGATORS, name)
        assert resource is not None
        labels = {names.OWNER_UID: resource["metadata"]["uid"]}
        return {
            (kind.kind, each["metadata"]["name"]): each
            for kind in ports.OWNED
            for each in await self.cluster.list(kind, self.namespace, labels)
        }

    async def pods(self, name: str = "agg") -> dict[str, str]:
        """Uids by name."""
        labels = {names.OWNER: name}
        pods = await self.cluster.list(ports.PODS, self.namespace, labels)
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}

    async def leader(self, name: str = "agg") -> str:
        """The pod that holds the Lease."""
        lease = await self.cluster.get(ports.LEASES, self.namespace, name)
        assert lease is not None
        return str(lease["spec"]["holderIdentity"]).rpartition(".")[0]

    # The controller.

    async def reconcile(self, name: str = "agg") -> Outcome:
        return await self.reconciler.reconcile(self.namespace, name)

    async def settle(self, name: str = "agg") -> None:
        async def is_settled() -> bool:
            outcome = await self.reconcile(name)
            return outcome.wrote == 0 and (await self.told("Reconciling", name))[0] == "False"

        try:
            # Pods go and come back here faster than the cluster's own controller looks: its budget
            # then takes the new pod for the evicted one of the same name, for two minutes.
            await until(is_settled, f"{name} is settled", seconds=240)
        except AssertionError as late:
            late.add_note(await self.story(name))
            raise

    async def story(self, name: str = "agg") -> str:
        """What the resource, its Lease and its pods say; for a test that waited in vain."""
        resource = await self.read(ports.AGGREGATORS, name)
        lease = await self.read(ports.LEASES, name)
        pods = await self.cluster.list(ports.PODS, self.namespace, {names.OWNER: name})
        told = [resource and resource.get("status"), lease and [lease["metadata"], lease["spec"]]]
        return "\n".join(map(repr, [*told, *(each.get("status") for each in pods)]))

    # Kubelets and replicas.

    async def live(self) -> None:
        """Run pods and elect leaders, until cancelled."""
        while True:
            await self.run_pods()
            await self.elect()
            await asyncio.sleep(0.05)

    async def run_pods(self) -> None:
        for pod in await self.cluster.list(ports.PODS, self.namespace):
            image = pod["spec"]["containers"][0]["image"]
            told = _pod_status(pod, self.trouble.get(image, ""))
            status = pod.get("status") or {}
            # The scheduler finds no node, and may say so after us.
            if _conditions(status) == _conditions(told) or _is_going(pod):
                continue
            path = path_of(ports.PODS, self.namespace, pod["metadata"]["name"], "status")
            # Of that pod: another one may have taken its name since.
            change = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": told}
            await self.admin.try_call("PATCH", path, change, MERGE)

    async def elect(self) -> None:
        for lease in await self.cluster.list(ports.LEASES, self.namespace):
            name, spec = lease["metadata"]["name"], lease["spec"]
            labels = names.selector(name, names.AGGREGATOR)
            pods = await self.cluster.list(ports.PODS, self.namespace, labels)
            fit = [pod["metadata"]["name"] for pod in pods if _is_ready(pod)]
            holder = str(spec.get("holderIdentity") or "").rpartition(".")[0]
            annotations = lease["metadata"].get("annotations") or {}
            wanted = annotations.get("aligned-aggregator.io/handover-to", "")
            heir = wanted if wanted in fit else holder if holder in fit else next(iter(fit), "")
            renewed = datetime.fromisoformat(spec.get("renewTime") or "2000-01-01T00:00:00Z")
            age = (datetime.now(UTC) - renewed).total_seconds()
            if not heir or (heir == holder and age < RENEW_SECONDS):
                continue
            now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            change: Manifest = {"spec": {"renewTime": now}}
            if heir != holder:
                change["metadata"] = {"annotations": {"aligned-aggregator.io/handover-to": None}}
                change["spec"] |= {
                    "holderIdentity": f"{heir}.boot",
                    "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
                    "leaseDurationSeconds": 5,
                    "acquireTime": now,
                }
            path = path_of(ports.LEASES, self.namespace, name)
            await self.admin.try_call("PATCH", path, change, MERGE)


def says_ready(resource: Manifest) -> bool:
    conditions = (resource.get("status") or {}).get("conditions", ())
    generation = resource["metadata"]["generation"]
    return any(
        each["type"] == "Ready"
        and each["status"] == "True"
        and each["observedGeneration"] == generation
        for each in conditions
    )


def _pod_status(pod: Manifest, trouble: str) -> Manifest:
    name = pod["spec"]["containers"][0]["name"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = "False" if trouble else "True"
    return {
        "phase": "Pending" if trouble else "Running",
        "podIP": "10.244.0.1",
        "podIPs": [{"ip": "10.244.0.1"}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": ready, "lastTransitionTime": now},
        ],
        "containerStatuses": [
            {
                "name": name,
                "ready": not trouble,
                "restartCount": 0,
                "image": "",
                "imageID": "",
                "state": {"waiting": {"reason": trouble}}
                if trouble
                else {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}},
            }
        ],
    }


def _conditions(status: Manifest) -> dict[str, str]:
    return {each["type"]: each["status"] for each in status.get("conditions") or ()}


def _is_ready(pod: Manifest) -> bool:
    ready = _conditions(pod.get("status") or {}).get("Ready") == "True"
    return ready and not _is_going(pod)


def _is_going(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


@asynccontextmanager
async def a_place() -> AsyncIterator[Place]:
    """A namespace with everybody in it; skips where there is no API server."""
    with api_server({}, kubeconfig()) as server:
        cluster = KubeCluster(server)
        try:
            async with Admin(server) as admin, admin.namespace("reconcile") as namespace:
                await admin.apply_crd()
                place = Place(admin, cluster, namespace)
                async with asyncio.TaskGroup() as tasks:
                    alive = tasks.create_task(place.live())
                    try:
                        yield place
                    finally:
                        alive.cancel()
        finally:
            await cluster.aclose()
