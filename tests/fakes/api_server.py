"""A Kubernetes API server over HTTP that can be everything a real one can be.

Its state is a ``FakeCluster``; this adds paths, lists in pages, watches with a history, and faults.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from controller import names, ports
from controller.errors import Conflict, Gone, Refused
from controller.kubeconfig import ApiServer
from controller.ports import AGGREGATORS, Kind, Manifest
from tests.fakes.cluster import FakeCluster, Key, Stored, _shown

EVENTS = Kind("v1", "Event", "events")
KINDS = {
    (kind.api_version, kind.plural): kind
    for kind in (AGGREGATORS, *ports.OWNED, ports.PODS, ports.SECRETS, ports.VOLUME_CLAIMS, EVENTS)
}
_FOUND_ONLY = {("v1", "namespaces"): "Namespace"} | {
    ("apiextensions.k8s.io/v1", "customresourcedefinitions"): "CustomResourceDefinition"
}
_SUBRESOURCES = {"status", "eviction"}
_STATUS = {Conflict: 409, Gone: 404, Refused: 422}


@dataclass(frozen=True)
class Change:
    version: int
    what: str
    manifest: Manifest


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    agent: str
    token: str
    watch: bool


class _Objects(dict[Key, Stored]):
    """Tells who leaves."""

    def __init__(self, leaving: Callable[[Stored], None]) -> None:
        super().__init__()
        self._leaving = leaving

    def __delitem__(self, key: Key) -> None:
        leaving = self[key]
        super().__delitem__(key)
        self._leaving(leaving)


class Recorded(FakeCluster):
    """Keeps a history, so that it can be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = _Objects(lambda stored: self._note("DELETED", stored))
        self.history: list[Change] = []
        self.changed = asyncio.Event()

    @property
    def version(self) -> int:
        return self._version

    def replace(self, manifest: Manifest) -> Manifest:
        """PUT: the whole object, if it is still the one that was read."""
        key = (manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        if key not in self.stored:
            raise Gone(f"{key[0]} {key[2]} not found")
        self._is_that_one(key, manifest["metadata"])
        stored = self.stored[key]
        stored.manifest = deepcopy(manifest)
        self._touch(stored)
        return _shown(stored)

    def _touch(self, stored: Stored) -> None:
        is_new = "resourceVersion" not in stored.manifest["metadata"]
        super()._touch(stored)
        self._record("ADDED" if is_new else "MODIFIED", stored)

    def _note(self, what: str, stored: Stored) -> None:
        self._version += 1
        stored.manifest["metadata"]["resourceVersion"] = str(self._version)
        self._record(what, stored)

    def _record(self, what: str, stored: Stored) -> None:
        self.history.append(Change(self._version, what, _shown(stored)))
        self.changed.set()
        self.changed = asyncio.Event()


class FakeApiServer:
    """Set the switches at any time."""

    def __init__(self, cluster: Recorded | None = None) -> None:
        self.cluster = cluster or Recorded()
        self.serves_crd = True
        self.status: int | None = None
        """Every request is answered with this status."""
        self.retry_after: str | None = None
        self.only: Callable[[Asked], bool] = lambda asked: True
        """Whom ``status`` and ``hang`` are for."""
        self.hang = False
        """No request is answered."""
        self.is_silent = False
        """Watches stay open and say nothing, no bookmarks either."""
        self.expire_lists = 0
        """So many of the next pages after the first are refused with 410."""
        self.tokens: set[str] | None = None
        """Who is let in; None: everybody."""
        self.asked: list[Asked] = []
        self.watching = 0
        self._oldest = 0
        self._drops = asyncio.Event()
        self._pages: dict[str, list[Manifest]] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    # What tests do.

    def forget_history(self) -> None:
        """As a restart: watches end, and cannot go on from where they were."""
        self.cluster.history.clear()
        self._oldest = self.cluster.version
        self.drop_watches()

    def drop_watches(self) -> None:
        self._drops.set()
        self._drops = asyncio.Event()

    def way_in(self, namespace: str = "test") -> ApiServer:
        return ApiServer(url=self.url, namespace=namespace)

    def writes(self, agent: str = "") -> list[Asked]:
        """Requests that change something, by those whose name begins like this."""
        return [
            asked for asked in self.asked if asked.method != "GET" and asked.agent.startswith(agent)
        ]

    @contextmanager
    def failing(
        self,
        status: int,
        only: Callable[[Asked], bool] = lambda asked: True,
        retry_after: str | None = None,
    ) -> Iterator[None]:
        self.status, self.only, self.retry_after = status, only, retry_after
        yield
        self.status, self.only, self.retry_after = None, lambda asked: True, None

    # The server.

    async def __aenter__(self) -> Self:
        application = web.Application(middlewares=[self._faults], client_max_size=2**22)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=0.01
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang = False
        self.drop_watches()
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        agent = request.headers.get("User-Agent", "")
        asked = Asked(request.method, request.path, agent, token, "watch" in request.query)
        self.asked.append(asked)
        while self.hang and self.only(asked):  # noqa: ASYNC110 - switched from tests
            await asyncio.sleep(0.005)
        if self.tokens is not None and token not in self.tokens:
            return _failure(401, "Unauthorized")
        if self.status is not None and self.only(asked):
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return _failure(self.status, "told to", headers)
        try:
            answer: web.StreamResponse = await handler(request)
        except (Conflict, Gone, Refused) as error:
            return _failure(_STATUS[type(error)], str(error))
        return answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        found = self._discovery(parts)
        if found is not None:
            return web.json_response(found)
        api_version, rest = (
            (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        )
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = KINDS.get((api_version, rest[0]))
        if kind is None or (kind == AGGREGATORS and not self.serves_crd):
            return web.Response(status=404, text="404 page not found")
        if len(rest) == 1 and request.method == "GET":
            if request.query.get("watch") == "true":
                return await self._watch(request, kind, namespace)
            return self._list(request, kind, namespace)
        assert namespace is not None
        return await self._object(request, kind, namespace, rest[1:])

    def _discovery(self, parts: list[str]) -> Any:
        served = {
            key: kind.kind for key, kind in KINDS.items() if self.serves_crd or kind != AGGREGATORS
        } | _FOUND_ONLY
        versions = sorted({version for version, _ in served})
        if parts == ["api"]:
            return {"versions": ["v1"]}
        if parts == ["apis"]:
            groups = []
            for version in versions:
                if "/" in version:
                    only = {"groupVersion": version, "version": version.split("/")[1]}
                    name = version.split("/")[0]
                    groups.append({"name": name, "versions": [only], "preferredVersion": only})
            return {"groups": groups}
        version = "/".join(parts[1:])
        if parts[0] not in {"api", "apis"} or version not in versions:
            return None
        return {
            "resources": [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "kind": kind,
                    "namespaced": (api, plural) not in _FOUND_ONLY,
                    "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"],
                }
                for (api, plural), kind in served.items()
                if api == version
            ]
        }

    def _list(self, request: web.Request, kind: Kind, namespace: str | None) -> web.Response:
        token = request.query.get("continue")
        if token is not None:
            if self.expire_lists:
                self.expire_lists -= 1
                return _failure(410, "The provided continue parameter is too old")
            found = self._pages.pop(token)
        else:
            found = list(self.cluster.all(kind, namespace, _labels(request)))
        limit = int(request.query.get("limit") or 0) or len(found)
        metadata = {"resourceVersion": str(self.cluster.version)}
        if found[limit:]:
            metadata["continue"] = f"page-{len(self.asked)}"
            self._pages[metadata["continue"]] = found[limit:]
        items = [
            {part: value for part, value in item.items() if part not in {"apiVersion", "kind"}}
            for item in found[:limit]
        ]
        said = {"apiVersion": kind.api_version, "kind": f"{kind.kind}List"}
        return web.json_response({**said, "metadata": metadata, "items": items})

    async def _watch(
        self, request: web.Request, kind: Kind, namespace: str | None
    ) -> web.StreamResponse:
        wanted = _labels(request)
        field = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        at = request.query.get("resourceVersion")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        since = int(at) if at is not None else self.cluster.version
        if since < self._oldest:
            error = {"kind": "Status", "code": 410, "message": "too old resource version"}
            await _send(response, "ERROR", error)
            return response
        if at is None:
            for manifest in self.cluster.all(kind, namespace, wanted):
                if not field or manifest["metadata"]["name"] == field:
                    await _send(response, "ADDED", manifest)
        self.watching += 1
        try:
            await self._follow(
                response,
                since,
                lambda manifest: (
                    manifest["kind"] == kind.kind
                    and namespace in {None, manifest["metadata"]["namespace"]}
                    and (not field or manifest["metadata"]["name"] == field)
                    and wanted.items() <= (manifest["metadata"].get("labels") or {}).items()
                ),
            )
        except ConnectionError:
            pass
        finally:
            self.watching -= 1
        return response

    async def _follow(
        self, response: web.StreamResponse, since: int, wanted: Callable[[Manifest], bool]
    ) -> None:
        drops = self._drops
        while not drops.is_set():
            changed = self.cluster.changed
            for change in self.cluster.history[:]:
                if change.version > since and not self.is_silent:
                    since = change.version
                    if wanted(change.manifest):
                        await _send(response, change.what, change.manifest)
            async with asyncio.TaskGroup() as tasks:
                waiting = [tasks.create_task(changed.wait()), tasks.create_task(drops.wait())]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in waiting:
                    one.cancel()

    async def _object(
        self, request: web.Request, kind: Kind, namespace: str, rest: list[str]
    ) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        said = {"apiVersion": kind.api_version, "kind": kind.kind}
        name = rest[0] if rest else body.get("metadata", {}).get("name", "")
        metadata = {**body.get("metadata", {}), "name": name, "namespace": namespace}
        manifest = {**body, **said, "metadata": metadata}
        if len(rest) > 1 and rest[1] not in _SUBRESOURCES:
            return _failure(404, "no such subresource")
        if request.method == "DELETE":
            return await self._delete(body, kind, namespace, name)
        if rest[1:] == ["eviction"]:
            return await self._evict(body, namespace, name)
        if request.method == "GET":
            return self._get(kind, namespace, name)
        answer = await self._write(request, manifest, is_status=rest[1:] == ["status"])
        return web.json_response(answer, status=201 if request.method == "POST" else 200)

    def _get(self, kind: Kind, namespace: str, name: str) -> web.Response:
        found = self.cluster.read(kind, namespace, name)
        if found is None:
            return _failure(404, f"{kind.plural} {name} not found")
        return web.json_response(found)

    async def _write(
        self, request: web.Request, manifest: Manifest, *, is_status: bool
    ) -> Manifest:
        match request.method:
            case "POST" if manifest["kind"] == EVENTS.kind:
                await self.cluster.record(manifest)
                return manifest
            case "POST":
                dry_run = request.query.get("dryRun") == "All"
                return await self.cluster.create(manifest, dry_run=dry_run)
            case "PUT":
                return self.cluster.replace(manifest)
            case _ if "apply" in request.content_type:
                part: Literal["status"] | None = "status" if is_status else None
                return await self.cluster.apply(manifest, subresource=part)
            case _:
                return await self.cluster.patch(manifest)

    async def _evict(self, body: Any, namespace: str, name: str) -> web.Response:
        uid = body["deleteOptions"]["preconditions"]["uid"]
        if await self.cluster.evict(namespace, name, uid=uid):
            return web.json_response({"kind": "Status", "status": "Success"}, status=201)
        causes = {"causes": [{"reason": "DisruptionBudget"}]}
        return web.json_response({"kind": "Status", "code": 429, "details": causes}, status=429)

    async def _delete(self, body: Any, kind: Kind, namespace: str, name: str) -> web.Response:
        asked = body.get("preconditions", {})
        await self.cluster.delete(
            kind,
            namespace,
            name,
            uid=asked["uid"],
            resource_version=asked.get("resourceVersion"),
            orphan=body.get("propagationPolicy") == "Orphan",
        )
        return web.json_response({"kind": "Status", "status": "Success"})


def _labels(request: web.Request) -> dict[str, str]:
    pairs = (pair.split("=", 1) for pair in request.query.get("labelSelector", "").split(","))
    return {pair[0]: pair[1] for pair in pairs if len(pair) > 1}


async def _send(response: web.StreamResponse, what: str, manifest: object) -> None:
    await response.write(json.dumps({"type": what, "object": manifest}).encode() + b"\n")


def _failure(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "code": status, "message": message, "status": "Failure"}
    return web.json_response(body, status=status, headers=headers)


def is_ours(asked: Asked) -> bool:
    """Whether our client asked, and neither kopf nor the elector."""
    return asked.agent == names.MANAGER
