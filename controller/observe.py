"""Stage: looks at what runs. ``views`` reads what it finds.

What could not be seen is None with the reason, never what was seen before.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from controller import names, ports
from controller.errors import ClusterError
from controller.observed import ReplicaView

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from controller.observed import PodView
    from controller.ports import Cluster, Kind, Manifest
    from controller.resource import Resource

ASK_SECONDS = 2.0
"""For a replica's answer; all are asked at once."""

ANSWER_BYTES = 2**20
"""Longest ``/status`` that is read."""


class Unreachable(Exception):
    """A replica did not answer as it should."""


class Replicas(Protocol):
    """The replicas' own word."""

    async def status(self, address: str) -> Mapping[str, Any]:
        """Return the ``/status`` of the pod with that IP.

        Raises:
            Unreachable: It did not answer in time, or not as it should.
        """


class HttpReplicas:
    """See ``Replicas``."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def status(self, address: str) -> Mapping[str, Any]:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{names.TELEMETRY_PORT}/status"
        try:
            # What a pod answers is not believed: not where else to ask, either.
            get = self._session.get(url, allow_redirects=False)
            async with asyncio.timeout(ASK_SECONDS), get as answer:
                answer.raise_for_status()
                return _parsed(await _body(answer.content))
        except TimeoutError as late:
            raise Unreachable(f"no answer within {ASK_SECONDS:g} s") from late
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class Live:
    """Objects of a resource as the API server has them."""

    objects: dict[tuple[str, str], Manifest]
    """That it controls, by kind and name."""
    pods: tuple[Manifest, ...]
    """Of its sets, or left over by them."""


async def look(cluster: Cluster, resource: Resource) -> Live:
    """Return what a resource controls; all of it or nothing.

    Raises:
        ClusterAway: A list failed.
    """
    objects: dict[tuple[str, str], Manifest] = {}
    pods: list[Manifest] = []

    async def list_kind(kind: Kind) -> None:
        found = await cluster.list(kind, resource.namespace, {names.OWNER_UID: resource.uid})
        for each in found:
            if names.owner_of(each["metadata"]) == resource.uid:
                objects[kind.kind, each["metadata"]["name"]] = each

    async def list_pods() -> None:
        pods.extend(
            await cluster.list(ports.PODS, resource.namespace, {names.OWNER: resource.name})
        )

    await together([*(list_kind(kind) for kind in ports.OWNED), list_pods()])
    return Live(objects, tuple(pods))


async def ask(replicas: Replicas, pods: Iterable[PodView]) -> dict[str, ReplicaView]:
    """Ask every pod that has an address; takes no longer than one does."""
    said: dict[str, ReplicaView] = {}

    async def ask_one(pod: PodView) -> None:
        try:
            said[pod.name] = ReplicaView(said=await replicas.status(pod.address))
        except Unreachable as why:
            said[pod.name] = ReplicaView(said=None, why=str(why))

    await together(ask_one(pod) for pod in pods if pod.address and not pod.terminating)
    return dict(sorted(said.items()))


async def together(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all calls at once, to their end; then raise the first failure there was.

    Raises:
        ClusterError: What a call raised.
    """
    failures: list[ClusterError] = []

    async def until_done(call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except ClusterError as failure:
            failures.append(failure)

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(until_done(call))
    if failures:
        raise failures[0]


async def _body(content: aiohttp.StreamReader) -> bytes:
    """Return everything that comes.

    Raises:
        ValueError: It is too much.
    """
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise ValueError("its answer is too long")
    return bytes(body)


def _parsed(body: bytes) -> Mapping[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        said = json.loads(body)
    except RecursionError as error:
        raise ValueError("its answer is nested too deeply") from error
    if not isinstance(said, dict):
        raise ValueError("its answer is not an object")  # noqa: TRY004 - of what came, not of code
    return said
