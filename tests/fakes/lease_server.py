"""A Kubernetes API server that knows one Lease, and can be everything a real one can be."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Coroutine
from copy import deepcopy
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from aggregator.leadership.kubernetes import KubernetesLock, LeaseAt
from aggregator.leadership.lease import DOMAIN

NAMESPACE, NAME = "aligned", "demo"
_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_Result = TypeVar("_Result")


class LeaseServer:
    """Set the switches at any time. Runs in a thread of its own.

    Who asks is told by the bearer token.
    """

    def __init__(self) -> None:
        self.hang = False
        """No request is answered."""
        self.hang_for: set[str] = set()
        """No request with these tokens is answered."""
        self.status: int | None = None
        """Every request is answered with this status."""
        self.swallow = 0
        """So many of the next writes are done, but not answered."""
        self.mute = False
        """Watches stay open and say nothing."""
        self.history: list[tuple[str, int]] = []
        """Holder and term, whenever one of them changed."""
        self.tokens: list[str] = []
        """Of all requests, in order."""
        self.writes = 0
        self._version = 1
        self._lease: dict[str, Any] | None = None
        self._watches: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.create()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self.url = ""

    # The switches that do something.

    def create(self, term: int = 0) -> None:
        """Make the Lease (anew): held by nobody."""
        self._lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": "demo"}},
            "spec": {"leaseTransitions": term},
        }
        self._change("ADDED")

    def delete(self) -> None:
        """Delete the Lease."""
        self._change("DELETED")
        self._lease = None

    def annotate(self, name: str, value: str | None) -> None:
        """Set or remove an annotation of ours, as a person would."""
        assert self._lease is not None
        annotations = self._lease["metadata"].setdefault("annotations", {})
        annotations[f"{DOMAIN}/{name}"] = value
        if value is None:
            del annotations[f"{DOMAIN}/{name}"]
        self._change("MODIFIED")

    def edit(self, **spec: object) -> None:
        """Change fields of the spec, as a person would."""
        assert self._lease is not None
        self._lease["spec"] |= spec
        self._change("MODIFIED")

    def drop_watches(self) -> None:
        """End every watch."""
        for watch in list(self._watches):
            self._loop.call_soon_threadsafe(watch.put_nowait, None)

    # What it says.

    @property
    def lease(self) -> dict[str, Any]:
        assert self._lease is not None
        return deepcopy(self._lease)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"].get("holderIdentity") or "")

    @property
    def term(self) -> int:
        return int(self.lease["spec"]["leaseTransitions"])

    def annotation(self, name: str) -> str | None:
        found: str | None = self.lease["metadata"].get("annotations", {}).get(f"{DOMAIN}/{name}")
        return found

    def lock(self, at: LeaseAt) -> KubernetesLock:
        return KubernetesLock(at)

    # The server.

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._serve())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, step: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_get(_PATH, self._watch)
        application.router.add_get(f"{_PATH}/{NAME}", self._get)
        application.router.add_put(f"{_PATH}/{NAME}", self._put)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=0.01
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        for watch in self._watches:
            watch.put_nowait(None)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answerable(self, request: web.Request) -> web.Response | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        while self.hang or token in self.hang_for:  # noqa: ASYNC110 - switched from other threads
            await asyncio.sleep(0.005)
        if self.status is not None:
            return web.json_response({"kind": "Status", "code": self.status}, status=self.status)
        if self._lease is None:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        return None

    async def _get(self, request: web.Request) -> web.Response:
        return await self._answerable(request) or web.json_response(self.lease)

    async def _put(self, request: web.Request) -> web.Response:
        if (answer := await self._answerable(request)) is not None:
            return answer
        lease = await request.json()
        spec = lease["spec"]
        if not _MICRO_TIME.fullmatch(spec["renewTime"]) or spec["leaseDurationSeconds"] < 1:
            return web.json_response({"code": 400}, status=400)
        if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return web.json_response({"code": 409}, status=409)
        self._lease = lease
        self.writes += 1
        self._change("MODIFIED")
        if self.swallow:
            self.swallow -= 1
            await asyncio.Event().wait()
        return web.json_response(self.lease)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._answerable(request)) is not None:
            return answer
        assert request.query["watch"] == "true"
        assert request.query["fieldSelector"] == f"metadata.name={NAME}"
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        response = web.StreamResponse()
        await response.prepare(request)
        self._watches.append(events)
        events.put_nowait({"type": "ADDED", "object": self.lease})
        try:
            while (event := await events.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._watches.remove(events)
        return response

    def _change(self, what: str) -> None:
        assert self._lease is not None
        self._version += 1
        self._lease["metadata"]["resourceVersion"] = str(self._version)
        now = (self.holder, self.term)
        if not self.history or self.history[-1] != now:
            self.history.append(now)
        event = {"type": what, "object": self.lease}
        for watch in list(self._watches):
            if not self.mute:
                self._loop.call_soon_threadsafe(watch.put_nowait, event)
