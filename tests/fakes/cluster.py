"""An API server in memory: what ``controller.ports.Cluster`` promises, and what tests do to it.

Versions, uids and generations are kept as the real one keeps them; server-side apply knows who
set which field. ``tests.fakes.kubelet`` plays the StatefulSet controller and the kubelets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from controller import names, ports
from controller.errors import ClusterError, Conflict, Gone, Refused
from controller.ports import Kind, Manifest
from controller.volumes import is_bound
from tests.fakes import fieldsets
from tests.fakes.fieldsets import Path

Key = tuple[str, str, str]
"""Kind, namespace, name."""

WITHOUT_GENERATION = {"Pod", "Service", "Lease", "ConfigMap", "Secret", "Role", "Event"}
MUTABLE_OF_A_SET = {
    "replicas",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
}


class Killed(Exception):
    """The controller's process ended here; no code of it may catch this."""


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def text(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Write:
    """One request of the controller that may change something."""

    verb: str
    kind: str
    name: str
    changed: bool
    """Whether the object is another one for it."""


@dataclass(slots=True)
class Stored:
    """One object, and who set which field of it."""

    manifest: Manifest
    owners: dict[tuple[str, str], set[Path]] = field(default_factory=dict)
    """Fields by manager and operation."""
    times: dict[tuple[str, str], str] = field(default_factory=dict)
    shown: str = ""
    """As a client sees it, JSON; empty: to be worked out again."""


class FakeCluster:
    """See ``Cluster``; methods that are not ``async`` are for tests, and leave no write behind."""

    def __init__(self, time: Time | None = None) -> None:
        self.time = time or Time()
        self.writes: list[Write] = []
        self.reads = 0
        self.events: list[Manifest] = []
        self.stored: dict[Key, Stored] = {}
        self.refuse: Callable[[Manifest], str | None] = lambda manifest: None
        """Says why an apply or a create is refused with 422."""
        self.kill_after: int | None = None
        """Writes until the process of the controller ends, at whatever it asks for next."""
        self._failures: list[tuple[int, str, ClusterError]] = []
        self._calls = 0
        self._version = 0
        self._uids = 0
        self.taken: set[str] = set()
        """ClusterIPs that somebody else has."""

    # What the controller does.

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        await self._reached("get")
        return self.read(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        await self._reached("list")
        return self.all(kind, namespace, labels)

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        await self._reached("create")
        key = _key(manifest)
        if key in self.stored:
            raise Conflict(f"{key[0]} {key[2]} exists already")
        self._admit(manifest)
        if dry_run:
            return deepcopy(manifest)
        self._put(key, manifest, (names.MANAGER, "Update"))
        return self._wrote("create", key, changed=True)

    async def apply(
        self, manifest: Manifest, *, subresource: Literal["status"] | None = None
    ) -> Manifest:
        await self._reached("apply")
        key, by = _key(manifest), (names.MANAGER, "Apply")
        verb = "apply" if subresource is None else f"apply {subresource}"
        self._is_that_one(key, manifest["metadata"])
        stored = self.stored.get(key)
        if stored is None:
            if subresource is not None:
                raise Gone(f"{key[0]} {key[2]} not found")
            self._admit(manifest)
            self._put(key, manifest, by)
            return self._wrote(verb, key, changed=True)
        body = {
            name: value
            for name, value in manifest.items()
            if (name == "status") == (subresource == "status")
        }
        changed = self._merge(key, stored, body, (by[0], subresource or by[1]))
        return self._wrote(verb, key, changed=changed)

    async def patch(self, manifest: Manifest) -> Manifest:
        await self._reached("patch")
        key = _key(manifest)
        if key not in self.stored:
            raise Gone(f"{key[0]} {key[2]} not found")
        self._is_that_one(key, manifest["metadata"])
        before = deepcopy(self.stored[key].manifest)
        after = deepcopy(before)
        _merge_patch(after, {name: manifest[name] for name in manifest.keys() - {"metadata"}})
        self._admit(after, before)
        self._edit(key, manifest, names.MANAGER)
        return self._wrote("patch", key, changed=self.stored[key].manifest != before)

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str | None = None,
        orphan: bool = False,
    ) -> None:
        await self._reached("delete")
        key = (kind.kind, namespace, name)
        stored = self.stored.get(key)
        if stored is None:
            return
        metadata = stored.manifest["metadata"]
        if metadata["uid"] != uid or resource_version not in {None, metadata["resourceVersion"]}:
            raise Conflict(f"{kind.kind} {name} is another one by now")
        self.writes.append(Write("orphan" if orphan else "delete", kind.kind, name, changed=True))
        if orphan:
            for child in self._children({uid}):
                references = self.stored[child].manifest["metadata"]["ownerReferences"]
                references[:] = [each for each in references if each["uid"] != uid]
                self._touch(self.stored[child])
        self.remove(kind, namespace, name)

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        await self._reached("evict")
        pod = self.read(ports.PODS, namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return True
        if not self._may_go(pod):
            return False
        self.writes.append(Write("evict", "Pod", name, changed=True))
        self.remove(ports.PODS, namespace, name)
        return True

    async def record(self, event: Manifest) -> None:
        await self._reached("record")
        name = event["metadata"]["name"]
        if any(each["metadata"]["name"] == name for each in self.events):
            raise Conflict(f"Event {name} exists already")
        self.events.append(deepcopy(event))

    # What tests do.

    def fail(self, nth: int, error: ClusterError, verb: str = "") -> None:
        """Let the nth call from now on fail (1: the next one), counting only ``verb`` if given."""
        self._failures.append((nth, verb, error))

    def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        stored = self.stored.get((kind.kind, namespace, name))
        return None if stored is None else _shown(stored)

    def all(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        return [_shown(stored) for stored in self._some(kind, namespace, labels)]

    def peek(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """Return the objects themselves, to look at and not to change; much cheaper."""
        return [stored.manifest for stored in self._some(kind, namespace, labels)]

    def _some(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None
    ) -> Sequence[Stored]:
        wanted = (labels or {}).items()
        return [
            stored
            for key, stored in sorted(self.stored.items(), key=lambda each: each[0])
            if key[0] == kind.kind
            and namespace in {None, key[1]}
            and wanted <= stored.manifest["metadata"].get("labels", {}).items()
        ]

    def put(self, manifest: Manifest, manager: str = "kubectl") -> Manifest:
        """Create as somebody else, or replace the spec as somebody else."""
        key = _key(manifest)
        if key in self.stored:
            self._edit(key, {"spec": manifest.get("spec")}, manager)
        else:
            self._put(key, manifest, (manager, "Update"))
        return _shown(self.stored[key])

    def edit(self, manifest: Manifest, manager: str = "kubectl-edit") -> Manifest:
        """Merge into an object as somebody else."""
        self._edit(_key(manifest), manifest, manager)
        return _shown(self.stored[_key(manifest)])

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete; a pod goes only when its kubelet lets it, children when they are collected."""
        stored = self.stored[kind.kind, namespace, name]
        if kind == ports.PODS:
            stored.manifest["metadata"].setdefault("deletionTimestamp", self.time.text)
            self._touch(stored)
        else:
            del self.stored[kind.kind, namespace, name]

    def collect_garbage(self) -> None:
        """Delete what has owners, all of whom are gone."""
        while True:
            alive = {stored.manifest["metadata"]["uid"] for stored in self.stored.values()}
            orphaned = [
                key
                for key, stored in self.stored.items()
                if (owners := _owners(stored)) and not owners & alive
            ]
            if not orphaned:
                return
            for key in orphaned:
                del self.stored[key]

    # How.

    async def _reached(self, verb: str) -> None:
        await asyncio.sleep(0)  # others may come in between
        if self.kill_after is not None and len(self.writes) >= self.kill_after:
            raise Killed
        self.reads += verb in {"get", "list"}
        still = []
        failing = None
        for left, only, error in self._failures:
            counted = left - (not only or only == verb)
            if counted == 0 and failing is None and left != counted:
                failing = error
            else:
                still.append((counted, only, error))
        self._failures = still
        if failing is not None:
            raise failing

    def _is_that_one(self, key: Key, asked: Mapping[str, Any]) -> None:
        live = self.stored[key].manifest["metadata"] if key in self.stored else {}
        for name in ("uid", "resourceVersion"):
            if asked.get(name) not in {None, live.get(name)}:
                raise Conflict(f"{key[0]} {key[2]}: {name} is another one")

    def _admit(self, manifest: Manifest, before: Manifest | None = None) -> None:
        if (why := self.refuse(manifest) or _invalid(manifest, before)) is not None:
            raise Refused(why, 422)

    def _put(self, key: Key, manifest: Manifest, by: tuple[str, str]) -> None:
        made = deepcopy(manifest)
        if key[0] != "Pod":
            made.pop("status", None)
        if key[0] == "PersistentVolumeClaim":
            made["status"] = {"phase": "Pending"}
        self._uids += 1
        made["metadata"] = {
            **made["metadata"],
            "uid": f"uid-{self._uids}",
            "creationTimestamp": self.time.text,
        }
        if key[0] not in WITHOUT_GENERATION:
            made["metadata"]["generation"] = 1
        stored = Stored(made, {by: set(fieldsets.fields(manifest))}, {by: self.time.text})
        self._default(made)
        self.stored[key] = stored
        self._touch(stored)

    def _merge(self, key: Key, stored: Stored, body: Manifest, by: tuple[str, str]) -> bool:
        """Return whether anything changed."""
        before, desired = deepcopy(stored.manifest), fieldsets.fields(body)
        mine = stored.owners.get(by, set())
        others: set[Path] = set()
        others.update(*(paths for manager, paths in stored.owners.items() if manager != by))
        after = stored.manifest
        for path in sorted(mine - desired.keys() - others, key=len):  # an item with all it has
            fieldsets.drop(after, path)
        current = fieldsets.fields(before)
        for path, value in desired.items():
            if value is None and isinstance(path[-1], tuple):
                continue
            if path not in current or current[path] != value:
                fieldsets.put(after, path, deepcopy(value))
                for manager in stored.owners.keys() - {by}:
                    stored.owners[manager].discard(path)
        self._default(after)
        try:
            self._admit(after, before)
        except Refused:
            stored.manifest = before
            raise
        stored.owners[by] = set(desired)
        stored.shown = ""
        return self._changed(stored, before, by)

    def _edit(self, key: Key, patch: Manifest, manager: str) -> None:
        stored, by = self.stored[key], (manager, "Update")
        before = deepcopy(stored.manifest)
        _merge_patch(stored.manifest, {k: v for k, v in patch.items() if k != "metadata"})
        metadata = {
            name: value
            for name, value in patch.get("metadata", {}).items()
            if name in {"labels", "annotations", "ownerReferences"}
        }
        _merge_patch(stored.manifest["metadata"], metadata)
        old, new = fieldsets.fields(before), fieldsets.fields(stored.manifest)
        touched = {path for path, value in new.items() if path not in old or old[path] != value}
        for paths in stored.owners.values():
            paths.difference_update(touched, old.keys() - new.keys())
        stored.owners.setdefault(by, set()).update(touched)
        stored.shown = ""
        self._changed(stored, before, by)

    def _changed(self, stored: Stored, before: Manifest, by: tuple[str, str]) -> bool:
        if stored.manifest == before:
            return False
        stored.times[by] = self.time.text
        if stored.manifest.get("spec") != before.get("spec"):
            metadata = stored.manifest["metadata"]
            if "generation" in metadata:
                metadata["generation"] += 1
        self._touch(stored)
        return True

    def _touch(self, stored: Stored) -> None:
        self._version += 1
        stored.shown = ""
        stored.manifest["metadata"]["resourceVersion"] = str(self._version)

    def _wrote(self, verb: str, key: Key, *, changed: bool) -> Manifest:
        self.writes.append(Write(verb, key[0], key[2], changed))
        return _shown(self.stored[key])

    def _default(self, manifest: Manifest) -> None:
        """Fill in what the real API server fills in, of what matters here."""
        spec = manifest.get("spec")
        if manifest["kind"] == "Service" and spec is not None:
            if spec.get("clusterIP") is None:
                spec["clusterIP"] = self._address()
            elif spec["clusterIP"] in self.taken:
                raise Refused("spec.clusterIPs: provided IP is already allocated", 422)
            if spec["clusterIP"] != "None":
                spec["clusterIPs"] = [spec["clusterIP"]]
            spec.setdefault("type", "ClusterIP")
            spec.setdefault("sessionAffinity", "None")
            for port in spec.get("ports", ()):
                port.setdefault("protocol", "TCP")
                port.setdefault("targetPort", port["port"])
        if manifest["kind"] == "StatefulSet" and spec is not None:
            spec.setdefault("revisionHistoryLimit", 10)
            _default_pod(spec["template"].setdefault("spec", {}))
            for claim in spec.get("volumeClaimTemplates", ()):
                claim.setdefault("apiVersion", "v1")
                claim.setdefault("kind", "PersistentVolumeClaim")
                claim.setdefault("status", {"phase": "Pending"})
                claim["spec"].setdefault("volumeMode", "Filesystem")

    def _address(self) -> str:
        taken = self.taken | {
            each["spec"].get("clusterIP") for each in self.peek(ports.SERVICES) if "spec" in each
        }
        return next(address for n in range(1, 255) if (address := f"10.96.0.{n}") not in taken)

    def _may_go(self, pod: Manifest) -> bool:
        for budget in self.all(ports.DISRUPTION_BUDGETS, pod["metadata"]["namespace"]):
            wanted = budget["spec"]["selector"]["matchLabels"]
            covered = self.all(ports.PODS, pod["metadata"]["namespace"], wanted)
            if not wanted.items() <= pod["metadata"].get("labels", {}).items():
                continue
            if not is_ready(pod) and budget["spec"].get("unhealthyPodEvictionPolicy") == (
                "AlwaysAllow"
            ):
                continue
            healthy = sum(is_ready(each) for each in covered)
            least = budget["spec"].get(
                "minAvailable", self._expected(covered) - budget["spec"].get("maxUnavailable", 0)
            )
            if healthy - 1 < least:
                return False
        return True

    def _expected(self, covered: Iterable[Manifest]) -> int:
        owners = {uid for pod in covered for uid in _owners(Stored(pod))}
        return sum(
            each["spec"].get("replicas", 1)
            for each in self.all(ports.STATEFUL_SETS)
            if each["metadata"]["uid"] in owners
        )

    def _children(self, uids: set[str]) -> Sequence[Key]:
        return [key for key, stored in self.stored.items() if _owners(stored) & uids]


def is_ready(pod: Manifest) -> bool:
    """Return whether a pod is ready and not about to go."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _key(manifest: Manifest) -> Key:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]


def _owners(stored: Stored) -> set[str]:
    return {each["uid"] for each in stored.manifest["metadata"].get("ownerReferences", ())}


def _shown(stored: Stored) -> Manifest:
    if not stored.shown:
        metadata = stored.manifest["metadata"] | {"managedFields": _managed_fields(stored)}
        stored.shown = json.dumps(stored.manifest | {"metadata": metadata})
    shown: Manifest = json.loads(stored.shown)
    return shown


def _managed_fields(stored: Stored) -> list[Manifest]:
    return [
        {
            "manager": manager,
            "operation": "Apply" if operation == "status" else operation,
            "apiVersion": stored.manifest["apiVersion"],
            "time": stored.times.get((manager, operation), ""),
            "fieldsType": "FieldsV1",
            "fieldsV1": fieldsets.fields_v1(paths),
        }
        | ({"subresource": "status"} if operation == "status" else {})
        for (manager, operation), paths in stored.owners.items()
        if paths
    ]


def _merge_patch(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            _merge_patch(target[name], value)
        else:
            target[name] = deepcopy(value)


def _default_pod(spec: dict[str, Any]) -> None:
    for name, value in {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
    }.items():
        spec.setdefault(name, value)
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _invalid(after: Manifest, before: Manifest | None) -> str | None:
    owners = after["metadata"].get("ownerReferences", ())
    if sum(bool(each.get("controller")) for each in owners) > 1:
        return "Only one reference can have Controller set to true"
    return None if before is None else _forbidden(after, before)


def _forbidden(after: Manifest, before: Manifest) -> str | None:
    if before.get("immutable") and before.get("data") != after.get("data"):
        return "data: field is immutable when `immutable` is set"
    old, new = before.get("spec", {}), after.get("spec", {})
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    if after["kind"] == "StatefulSet" and changed - MUTABLE_OF_A_SET:
        return "updates to statefulset spec for other fields are forbidden"
    if after["kind"] == "Service" and "clusterIP" in changed:
        return "spec.clusterIP: field is immutable"
    if after["kind"] == "PersistentVolumeClaim" and changed and not is_bound(before):
        return "spec is immutable after creation except resources.requests for bound claims"
    return None
