"""A ``Cluster`` that writes only while this process leads, and counts what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from controller.ports import PODS, Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from controller.ports import Cluster, Manifest


class GuardedCluster:
    """See ``Cluster``.

    A pass that was paused, or hung at a slow answer, goes on when nobody may rely on it any more.
    Its writes carry versions and uids, so they would do no harm; they are not sent all the same.
    """

    def __init__(
        self, cluster: Cluster, require: Callable[[], None], wrote: Callable[[str, str], None]
    ) -> None:
        """Guard ``cluster``.

        Args:
            cluster: Does the work.
            require: Raises if nothing may be written now; asked before each write.
            wrote: Told the kind and the verb of each write that was done.
        """
        self._cluster = cluster
        self._require = require
        self._wrote = wrote

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        return await self._cluster.get(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        return await self._cluster.list(kind, namespace, labels)

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        if dry_run:  # it writes nothing, whoever leads
            return await self._cluster.create(manifest, dry_run=True)
        self._require()
        created = await self._cluster.create(manifest)
        self._wrote(kind_of(manifest).kind, "create")
        return created

    async def apply(
        self, manifest: Manifest, *, subresource: Literal["status"] | None = None
    ) -> Manifest:
        self._require()
        applied = await self._cluster.apply(manifest, subresource=subresource)
        self._wrote(kind_of(manifest).kind, subresource or "apply")
        return applied

    async def patch(self, manifest: Manifest) -> Manifest:
        self._require()
        patched = await self._cluster.patch(manifest)
        self._wrote(kind_of(manifest).kind, "patch")
        return patched

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
        self._require()
        await self._cluster.delete(
            kind, namespace, name, uid=uid, resource_version=resource_version, orphan=orphan
        )
        self._wrote(kind.kind, "delete")

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        self._require()
        evicted = await self._cluster.evict(namespace, name, uid=uid)
        if evicted:
            self._wrote(PODS.kind, "evict")
        return evicted

    async def record(self, event: Manifest) -> None:
        self._require()
        await self._cluster.record(event)
        self._wrote("Event", "create")
