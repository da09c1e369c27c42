"""Which rights a ``Cluster`` is used with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from controller.access import Right
from controller.ports import PODS, Cluster, Kind, Manifest, kind_of


class RecordingCluster:
    """See ``Cluster``; does what another one does."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.used: set[Right] = set()

    def _use(self, kind: Kind, *verbs: str, subresource: str = "") -> None:
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        self.used |= {Right(kind.api_version.rpartition("/")[0], resource, verb) for verb in verbs}

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        self._use(kind, "get")
        return await self.cluster.get(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        self._use(kind, "list")
        return await self.cluster.list(kind, namespace, labels)

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        self._use(kind_of(manifest), "create")
        return await self.cluster.create(manifest, dry_run=dry_run)

    async def apply(
        self, manifest: Manifest, *, subresource: Literal["status"] | None = None
    ) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        if subresource is not None:
            self._use(kind, "patch", subresource=subresource)
        else:
            self._use(kind, "patch", "create")
        if "resourceVersion" in metadata and "uid" not in metadata:
            self._use(kind, "get")
        return await self.cluster.apply(manifest, subresource=subresource)

    async def patch(self, manifest: Manifest) -> Manifest:
        self._use(kind_of(manifest), "patch")
        return await self.cluster.patch(manifest)

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
        self._use(kind, "delete")
        await self.cluster.delete(
            kind, namespace, name, uid=uid, resource_version=resource_version, orphan=orphan
        )

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        self._use(PODS, "get")
        self._use(PODS, "create", subresource="eviction")
        return await self.cluster.evict(namespace, name, uid=uid)

    async def record(self, event: Manifest) -> None:
        self._use(Kind("v1", "Event", "events"), "create")
        await self.cluster.record(event)
