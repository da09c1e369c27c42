"""Edge: the API server. Implements ``Cluster``.

``kubernetes.aio`` carries the requests; manifests stay plain dicts, as JSON has them, so that no
field is lost that its models do not know. Its errors, and those of what it stands on, become ours
here and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException

from controller import names
from controller.errors import ClusterAway, ClusterError, Conflict, Gone, Refused
from controller.ports import PODS, Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from controller.kubeconfig import ApiServer
    from controller.ports import Manifest

logger = logging.getLogger(__name__)

CALL_SECONDS = 10.0
"""For an answer, whole."""

PAGE = 500
"""Objects a request of a list asks for."""

TOKEN_SECONDS = 60.0
"""After which the token is read again."""

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_LIST_TRIES = 3
_EVENTS = Kind("v1", "Event", "events")
_FINAL = ("failed to create typed patch object", "has more than one PodDisruptionBudget")
"""In those 500 of the API server that come again until a person has changed something: an applied
object whose fields have wrong types, and an eviction that two budgets are about."""


class KubeCluster:
    """See ``Cluster``. For one event loop."""

    def __init__(
        self,
        server: ApiServer,
        *,
        call_seconds: float = CALL_SECONDS,
        page: int = PAGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            server: Where it is.
            call_seconds: Deadline of a call.
            page: Objects a request of a list asks for.
            clock: Seconds.
        """
        self._server = server
        self._call_seconds = call_seconds
        self._page = page
        self._clock = clock
        self._token: str | None = None
        self._token_until = 0.0
        self._api = ApiClient(_configuration(server))
        self._api.user_agent = names.MANAGER

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
        await self._api.rest_client.close()

    # The port.

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            return await self._call("GET", _path(kind, namespace, name))
        except Gone:
            return None

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        for _ in range(_LIST_TRIES):
            try:
                return await self._list(kind, namespace, labels, self._page)
            except _Expired:
                logger.debug("a list was too slow to be one", extra={"kind": kind.kind})
        return await self._list(kind, namespace, labels, None)

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        query = {"fieldManager": names.MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return await self._call("POST", _path(kind, metadata["namespace"]), query, manifest)

    async def apply(
        self, manifest: Manifest, *, subresource: Literal["status"] | None = None
    ) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"], subresource)
        body = manifest | {"metadata": await self._pinned(kind, metadata)}
        query = {"fieldManager": names.MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, body, _APPLY)

    async def patch(self, manifest: Manifest) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"])
        return await self._call("PATCH", path, {"fieldManager": names.MANAGER}, manifest, _MERGE)

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
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Orphan" if orphan else "Background",
            "preconditions": _preconditions(uid, resource_version),
        }
        try:
            await self._call("DELETE", _path(kind, namespace, name), body=options)
        except Gone:
            return

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": _preconditions(uid, None)},
        }
        # Asked for first: an eviction whose precondition does not hold is tried again and again
        # by the API server itself, and it answers only long after anybody waits for it.
        found = await self.get(PODS, namespace, name)
        if found is None or found["metadata"]["uid"] != uid:
            return True
        try:
            await self._call("POST", _path(PODS, namespace, name, "eviction"), body=eviction)
        except Gone:
            return True
        except _BudgetSpent:
            return False
        return True

    async def record(self, event: Manifest) -> None:
        await self._call("POST", _path(_EVENTS, event["metadata"]["namespace"]), body=event)

    # The requests.

    async def _pinned(self, kind: Kind, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return metadata with the uid, where it has a version.

        An apply with a version alone would make a deleted object anew.

        Raises:
            Conflict: There is no such object.
        """
        if "resourceVersion" not in metadata or "uid" in metadata:
            return metadata
        found = await self.get(kind, metadata["namespace"], metadata["name"])
        if found is None:
            msg = f"{kind.kind} {metadata['name']} does not exist any more"
            raise Conflict(msg)
        return {**metadata, "uid": found["metadata"]["uid"]}

    async def _list(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        page: int | None,
    ) -> Sequence[Manifest]:
        """Return everything, of one moment.

        Raises:
            _Expired: It took so long that the API server forgot that moment.
        """
        query: dict[str, str] = {}
        if labels:
            query["labelSelector"] = ",".join(f"{name}={labels[name]}" for name in sorted(labels))
        if page is not None:
            query["limit"] = str(page)
        found: list[Manifest] = []
        while True:
            answer = await self._call("GET", _path(kind, namespace), query)
            # Items of the built-in kinds do not say what they are.
            said = {"apiVersion": kind.api_version, "kind": kind.kind}
            found.extend(said | item for item in answer.get("items") or ())
            following = (answer.get("metadata") or {}).get("continue")
            if not following:
                return found
            query["continue"] = following

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = _JSON,
    ) -> Manifest:
        """Send a request and return the answer.

        Raises:
            ClusterError: See ``Cluster``; no other error of any library.
        """
        url = self._server.url + path + (f"?{urlencode(query)}" if query else "")
        async with _translating(f"{method} {path}"):
            headers = {"Accept": _JSON, "Content-Type": content, **self._identity()}
            headers["User-Agent"] = self._api.user_agent
            async with asyncio.timeout(self._call_seconds):
                response = await self._api.call_api(
                    method, url, headers, body, _request_timeout=self._call_seconds
                )
                text = bytes(await response.response.read()).decode("utf-8", "replace")
            if response.status in _GOOD:
                return _object(text)
        if response.status == _UNAUTHORIZED:
            self._token_until = 0.0
        error: ClusterError = _error(f"{method} {path}", response.status, text, response.headers)
        raise error

    def _identity(self) -> dict[str, str]:
        now = self._clock()
        if now >= self._token_until:
            self._token = self._server.token()  # blocks for a file in memory, once a minute
            self._token_until = now + TOKEN_SECONDS
        return {} if self._token is None else {"Authorization": f"Bearer {self._token}"}


_GOOD = frozenset({200, 201, 202})
_UNAUTHORIZED = 401
_FAILED = 500


class _Expired(ClusterAway):
    """410: the moment that a list is of is forgotten."""


class _BudgetSpent(ClusterAway):
    """429 of an eviction: a disruption budget does not allow it."""


def _configuration(server: ApiServer) -> Configuration:
    configuration = Configuration(
        host=server.url,
        # No retries: a write that is repeated unseen is one that nobody decided.
        retries=None,
        ssl_ca_cert=None if server.ca_file is None else str(server.ca_file),
        cert_file=None if server.certificate_file is None else str(server.certificate_file),
        key_file=None if server.key_file is None else str(server.key_file),
        verify_ssl=not server.insecure,
        # Like the two other clients: the API server is never behind a proxy of the environment.
        client_session_kwargs={"trust_env": False},
    )
    configuration.connection_pool_maxsize = 32
    return configuration


def _path(
    kind: Kind, namespace: str | None, name: str | None = None, subresource: str | None = None
) -> str:
    root = "/api" if "/" not in kind.api_version else "/apis"
    parts = [root, kind.api_version]
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if subresource is not None:
        parts.append(subresource)
    return "/".join(parts)


def _preconditions(uid: str, resource_version: str | None) -> dict[str, str]:
    version = {} if resource_version is None else {"resourceVersion": resource_version}
    return {"uid": uid} | version


@asynccontextmanager
async def _translating(what: str) -> AsyncIterator[None]:
    """Turn everything that says "no answer" into one error.

    Raises:
        ClusterAway: No answer, or none that can be read.
    """
    try:
        yield
    except TimeoutError as error:
        msg = f"{what}: no answer in time"
        raise ClusterAway(msg) from error
    except (ApiException, aiohttp.ClientError, OSError, ValueError) as error:
        msg = f"{what}: {error!r}"
        raise ClusterAway(msg) from error


def _error(what: str, status: int, text: str, headers: Mapping[str, str]) -> ClusterError:
    """Return what an answer that is not good means."""
    said = _status(text)
    msg = f"{what}: {status} {said.get('message') or text[:200].strip()}"
    details = _mapping(said.get("details"))  # proxies have answers of their own
    listed = details.get("causes")
    causes = [_mapping(cause) for cause in listed] if isinstance(listed, list) else []
    if any(cause.get("field") == "metadata.uid" for cause in causes):
        return Conflict(msg)  # a 422 from patches
    if any(cause.get("reason") == "DisruptionBudget" for cause in causes):
        return _BudgetSpent(msg)
    if (plain := _PLAIN.get(status)) is not None:
        return plain(msg)
    is_final = any(said in msg for said in _FINAL)
    if (status < _FAILED and status not in _LATER) or is_final:
        return Refused(msg, status)
    return ClusterAway(msg, _seconds(headers.get("Retry-After"), details.get("retryAfterSeconds")))


_PLAIN: Mapping[int, type[Conflict | Gone | _Expired]] = {404: Gone, 409: Conflict, 410: _Expired}
_LATER = frozenset({401, 408, 429})
"""Client errors that are none of ours: identity is being renewed, the API server is busy."""


def _status(text: str) -> dict[str, Any]:
    """Return the Status that an answer is; whatever else it is counts as an empty one."""
    try:
        return _object(text)
    except ValueError:
        return {}


def _object(text: str) -> Manifest:
    """Return a JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        said = json.loads(text)
    except RecursionError as error:
        msg = "the answer is nested too deeply"
        raise ValueError(msg) from error
    if not isinstance(said, dict):
        msg = "the answer is not an object"
        raise ValueError(msg)  # noqa: TRY004 - of what came, not of code
    return said


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(*said: object) -> float | None:
    for value in said:
        try:
            seconds = float(str(value))
        except ValueError:
            continue
        if isfinite(seconds):
            return max(seconds, 0.0)
    return None
