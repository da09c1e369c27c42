"""Stage: looks at what runs. ``views`` reads what it finds.

What could not be seen is None with the reason, never what was seen before.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from controller import names, ports
from controller.errors import ClusterError
from controller.observed import ReplicaView

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from controller.observed import PodView
    from controller.ports import Cluster, Kind, Manifest
    from controller.resource import Resource

ASK_SECONDS = 2.0
"""For a replica's answer; all are asked at once."""

SILENT_ASKS = 2
"""In a row that were not answered in time, after which an address is left alone for a while."""

QUIET_SECONDS = 60.0
"""For which it is left alone, and counts as silent.

Where packets to pods vanish, every look at a resource would wait for ``ASK_SECONDS``. 50 resources
that are looked at every 15 s would take 50 * 2 / 15 = 6.7 workers; there are 4, and the queue would
grow for ever. So only the first two looks wait that long, 50 * 2 / 4 = 25 s of all workers each.
Then it is ``AGAIN_SECONDS`` once in this time, and each ``PATIENT_ASK``th time as long as at first:
50 * (4 * 0.5 + 2) / 5 / 60 = 0.7 workers.
"""

AGAIN_SECONDS = 0.5
"""For an answer of one that was left alone. Packets that come through take no longer."""

PATIENT_ASK = 5
"""So many questions in a row that were not answered make one worth the whole time: who answers late
would stay unheard for ever else."""

FORGET_SECONDS = 300.0
"""After which an address that nobody asked about is forgotten: its pod is gone."""

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


@dataclass(slots=True)
class _Silence:
    """Of one address."""

    wanted: float
    """When it was last asked about."""
    asks: int = 0
    """In a row that were not answered in time."""
    until: float = 0.0
    """Before which it is not asked."""


class HttpReplicas:
    """See ``Replicas``.

    An address that does not answer in time is not asked each time, see ``QUIET_SECONDS``. One that
    answers at once, if only that nobody listens, costs nothing and always is.
    """

    def __init__(
        self, session: aiohttp.ClientSession, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare.

        Args:
            session: Carries the requests.
            clock: Seconds.
        """
        self._session = session
        self._clock = clock
        self._silences: dict[str, _Silence] = {}

    async def status(self, address: str) -> Mapping[str, Any]:
        seconds = self._patience(address)
        try:
            async with asyncio.timeout(seconds):
                said = await self._ask(address)
        except TimeoutError as late:
            self._was_silent(address)
            raise Unreachable(f"no answer within {seconds:g} s") from late
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._silences.pop(address, None)
            raise Unreachable(str(error) or type(error).__name__) from error
        self._silences.pop(address, None)
        return said

    async def _ask(self, address: str) -> Mapping[str, Any]:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{names.TELEMETRY_PORT}/status"
        # What a pod answers is not believed: not where else to ask, either.
        async with self._session.get(url, allow_redirects=False) as answer:
            answer.raise_for_status()
            return _parsed(await _body(answer.content))

    def _patience(self, address: str) -> float:
        """Return for how long to wait for an answer.

        Raises:
            Unreachable: It is left alone for now.
        """
        silence = self._silences.get(address)
        if silence is None:
            return ASK_SECONDS
        silence.wanted = self._clock()
        if silence.wanted < silence.until:
            raise Unreachable(f"no answer to {SILENT_ASKS} questions; it is asked again later")
        is_short = silence.until and silence.asks % PATIENT_ASK
        return AGAIN_SECONDS if is_short else ASK_SECONDS

    def _was_silent(self, address: str) -> None:
        now = self._clock()
        self._silences = {
            one: silence
            for one, silence in self._silences.items()
            if now - silence.wanted < FORGET_SECONDS
        }
        silence = self._silences.setdefault(address, _Silence(wanted=now))
        silence.asks += 1
        if silence.asks >= SILENT_ASKS:
            silence.until = now + QUIET_SECONDS


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
