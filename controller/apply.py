"""Stage: objects become as they should be, and what is not wanted any more goes.

Nothing is written that is so already, nothing that another owner has, nothing twice. Every
function can be cut off anywhere: the next pass sees what is there, and goes on.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controller import compare, names, ports
from controller.errors import Conflict, Gone, Refused
from controller.observed import Note
from controller.volumes import claims_to_grow, is_bound, settled_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from controller.contest import Contests
    from controller.ports import Cluster, Kind, Manifest
    from controller.resource import Resource

logger = logging.getLogger(__name__)

Name = tuple[str, str]
"""Kind and name of an object in the resource's namespace."""


class OnlyAPerson(Exception):
    """The pass cannot go on until a person has changed something."""

    def __init__(self, note: Note) -> None:
        super().__init__(note.message)
        self.note = note


class NotYet(Exception):
    """The pass cannot go on before something ends that is under way."""

    def __init__(self, note: Note) -> None:
        super().__init__(note.message)
        self.note = note


@dataclass(slots=True)
class Application:
    """Applies the objects of one resource in one pass."""

    cluster: Cluster
    resource: Resource
    live: dict[Name, Manifest]
    """Objects that the resource controls, as they were last seen; kept up to date."""
    contests: Contests
    wrote: int = 0
    """Requests that may have changed something."""
    contested: list[Note] = field(default_factory=list)
    """What is let be for now: fields that another manager keeps changing back, and volumes that
    cannot grow yet."""

    async def ensure(self, manifest: Manifest) -> Manifest:
        """Have one object be as desired; return it.

        Raises:
            OnlyAPerson: An object of that name is somebody else's, or the API server refuses ours.
            NotYet: It is being deleted.
            ClusterAway: Try again.
            Conflict: It changed meanwhile; try again.
        """
        live = await self._ours(manifest)
        if live is None:
            return await self._apply(manifest)
        if manifest["kind"] == ports.STATEFUL_SETS.kind:
            return await self._ensure_set(manifest, live)
        return await self._mend(manifest, live)

    async def _mend(self, manifest: Manifest, live: Manifest) -> Manifest:
        wrong = compare.differences(manifest, live)
        if not wrong:
            return live
        if (note := self.contests.held(manifest, live, wrong)) is not None:
            self.contested.append(note)
            return live
        applied = await self._apply(manifest)
        if applied["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            self.contests.applied(manifest, wrong)
        return applied

    async def ensure_once(self, manifest: Manifest) -> Manifest:
        """Create an object if there is none; one that there is stays as it is.

        Raises:
            OnlyAPerson, NotYet, ClusterAway: As ``ensure``.
            Conflict: Somebody created one meanwhile; try again.
        """
        live = await self._ours(manifest)
        if live is not None:
            return live
        self.wrote += 1
        with _explained(manifest):
            made = await self.cluster.create(manifest)
        self.live[_name(manifest)] = made
        return made

    async def create_unseen(self, manifest: Manifest) -> None:
        """Create an object that must not be read, if there is none."""
        with _explained(manifest), suppress(Conflict):
            await self.cluster.create(manifest)
            self.wrote += 1

    async def is_missing(self, manifest: Manifest) -> bool:
        """Tell whether there is no object of that name, of those that must not be read."""
        with _explained(manifest), suppress(Conflict):
            await self.cluster.create(manifest, dry_run=True)
            return True
        return False

    async def remove(self, kind: Kind, name: str, *, orphan: bool = False) -> None:
        """Delete one of the resource's objects; ``orphan`` leaves what it controls.

        Raises:
            Conflict: It is another one by now.
        """
        live = self.live[kind.kind, name]
        self.wrote += 1
        with _explained(live):
            uid = live["metadata"]["uid"]
            await self.cluster.delete(kind, self.resource.namespace, name, uid=uid, orphan=orphan)
        del self.live[kind.kind, name]

    async def restore(self, service: Manifest, address: str) -> None:
        """Create a Service that is missing with the address it had.

        It gets another one later where the address was taken meanwhile.
        """
        if _name(service) in self.live:
            return
        with suppress(Conflict, Refused):
            spec = service["spec"] | {"clusterIP": address}
            self.live[_name(service)] = await self.cluster.create(service | {"spec": spec})
            self.wrote += 1

    async def prune(self, wanted: Iterable[Name], pods: Sequence[Manifest]) -> None:
        """Delete objects of the resource that are not wanted, but no file that a pod mounts.

        Raises:
            OnlyAPerson: The API server refuses.
            ClusterAway: Try again.
        """
        keep = {*wanted, *((ports.CONFIG_MAPS.kind, name) for name in mounted(pods))}
        for name, live in sorted(self.live.items()):
            metadata = live["metadata"]
            is_ours = metadata.get("labels", {}).get(names.OWNER_UID) == self.resource.uid
            if name in keep or not is_ours or "deletionTimestamp" in metadata:
                continue
            self.wrote += 1
            try:
                with _explained(live):
                    await self.cluster.delete(
                        ports.kind_of(live),
                        self.resource.namespace,
                        name[1],
                        uid=metadata["uid"],
                        resource_version=metadata["resourceVersion"],
                    )
            except Conflict:
                continue  # it changed since it was listed; the next pass sees how
            logger.info("deleted what is not wanted any more", extra={"object": "/".join(name)})

    async def _ours(self, manifest: Manifest) -> Manifest | None:
        """Return the object as it is; None: there is none.

        Raises:
            OnlyAPerson: It is somebody else's.
            NotYet: It is being deleted.
        """
        live = self.live.get(_name(manifest)) or await self.cluster.get(
            ports.kind_of(manifest), self.resource.namespace, manifest["metadata"]["name"]
        )
        if live is None:
            return None
        self._check_owner(live, ports.kind_of(manifest))
        if "deletionTimestamp" in live["metadata"]:
            raise NotYet(Note("ObjectsGoing", f"{_said(manifest)} is being deleted."))
        self.live[_name(manifest)] = live
        return live

    def _check_owner(self, live: Manifest, kind: Kind) -> None:
        """Let pass what the resource controls.

        Raises:
            OnlyAPerson: It is somebody else's.
            NotYet: It belongs to a deleted resource of the same name.
        """
        owner = names.owner_of(live["metadata"])
        if owner == self.resource.uid:
            return
        called = f"{kind.kind} {live['metadata']['name']}"
        if owner is not None and _owner_name(live["metadata"]) == self.resource.name:
            raise NotYet(
                Note(
                    "PredecessorGoing",
                    f"{called} belongs to a deleted resource of the same name and is waited for.",
                )
            )
        raise OnlyAPerson(
            Note(
                "NameConflict",
                f"{called} exists and is not ours. Delete it, or give this resource another name.",
            )
        )

    async def _apply(self, manifest: Manifest) -> Manifest:
        # Since its owner was looked at, somebody may have created one of that name: it is then
        # ours as well, unless it has a controller, beside whom the API server takes no other.
        self.wrote += 1
        with _explained(manifest):
            applied = await self.cluster.apply(manifest)
        self.live[_name(manifest)] = applied
        return applied

    async def _ensure_set(self, manifest: Manifest, live: Manifest) -> Manifest:
        """Have a set be as desired; where claims are too small, grow them and make it again.

        All else of the set comes first, so that its pods can be suspended or mended whatever
        becomes of the volumes. What cannot be changed of its claims stays as it is.

        Raises:
            NotYet: The set is being made again.
            OnlyAPerson: A claim cannot grow.
        """
        settled, grows = settled_set(manifest, live)
        live = await self._mend(settled, live)
        if not grows or not await self._grow_claims(manifest):
            return live
        await self.remove(ports.STATEFUL_SETS, live["metadata"]["name"], orphan=True)
        raise NotYet(Note("VolumesGrowing", "The set is made again with the new size of volumes."))

    async def _grow_claims(self, manifest: Manifest) -> bool:
        """Grow a set's claims that are too small; tell whether all are large enough then.

        Raises:
            OnlyAPerson: A claim cannot grow.
        """
        claims = await self.cluster.list(
            ports.VOLUME_CLAIMS,
            self.resource.namespace,
            names.selector(self.resource.name, names.AGGREGATOR),
        )
        for claim in claims_to_grow(manifest, [one for one in claims if is_bound(one)]):
            self.wrote += 1
            try:
                await self.cluster.patch(claim)
            except Gone:
                continue
            except Refused as refused:
                raise OnlyAPerson(
                    Note(
                        "VolumeCannotGrow",
                        f"PersistentVolumeClaim {claim['metadata']['name']} cannot grow: {refused}."
                        " Set spec.journal.size to what it was, or use a storage class that can.",
                    )
                ) from refused
        unbound = claims_to_grow(manifest, [one for one in claims if not is_bound(one)])
        if waiting := sorted(claim["metadata"]["name"] for claim in unbound):
            why = (
                f"PersistentVolumeClaim {', '.join(waiting)} has no volume yet, and grows once it"
                " has. If no pod is to use it, delete it: nothing is in it."
            )
            self.contested.append(Note("VolumeNotBound", why))
        return not waiting


_REFERENCES = frozenset({"configMap", "configMapRef", "configMapKeyRef"})


def mounted(pods: Iterable[Mapping[str, object]]) -> set[str]:
    """Return the ConfigMaps that pods refer to, in whatever way."""
    found: set[str] = set()
    left: list[object] = [pod.get("spec") for pod in pods]
    while left:
        at = left.pop()
        if isinstance(at, list):
            left += at
        elif isinstance(at, dict):
            for name, below in at.items():
                # Labels and options of drivers may have such names, too.
                if name in _REFERENCES and isinstance(below, dict):
                    found.add(str(below.get("name", "")))
                left.append(below)
    return found


def _name(manifest: Manifest) -> Name:
    return manifest["kind"], manifest["metadata"]["name"]


def _owner_name(metadata: Manifest) -> str:
    references = metadata.get("ownerReferences") or ()
    return next((str(each["name"]) for each in references if each.get("controller")), "")


def _said(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


@contextmanager
def _explained(manifest: Manifest) -> Iterator[None]:
    """Say what was refused, and who can help.

    Raises:
        OnlyAPerson: The API server refused.
    """
    try:
        yield
    except Refused as refused:
        if refused.status == 403:  # noqa: PLR2004 - HTTP
            note = Note(
                "Forbidden",
                f"{_said(manifest)}: {refused}. Give the controller the"
                " rights that its release comes with.",
            )
        else:
            note = Note("Refused", f"{_said(manifest)}: {refused}. Change the spec.")
        raise OnlyAPerson(note) from refused
