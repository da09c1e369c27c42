"""How soon the controller does what is to be done, at the API server that ``KUBECONFIG`` names.

The controller is a process on this machine, with the rights of the kubeconfig. A control plane is
enough: nothing needs to run in pods. What a benchmark makes is in a namespace of its own, which is
deleted with it; the CustomResourceDefinition stays.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import yaml

from controller import kubeconfig, names
from controller.kube import KubeCluster
from controller.ports import AGGREGATORS, LEASES, OWNED, STATEFUL_SETS, Kind
from controller.preview import PLACES, objects
from devnet.process import Process
from devnet.replicas import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from bench.figures import Figures
    from controller.ports import Manifest

MANY = 50
"""Resources of one controller."""

_CRD = Path(__file__).parents[1] / "crds" / "alignedaggregators.yaml"
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 120.0
_DONE = 'controller_reconciles_total{result="done"}'


async def created(runs: int, config: Path) -> AsyncIterator[Figures]:
    """From the creation of a resource, Redis included, until all its objects are there."""
    async with _place(config) as here, here.controller():
        for number in range(runs):
            manifest = _resource(here.namespace, f"demo-{number}")
            wanted = _wanted(manifest)
            began = time.monotonic()
            await here.cluster.create(manifest)
            await here.complete(manifest["metadata"]["name"], wanted)
            yield {"all objects ms": _since(began), "objects": float(wanted.total())}
            await here.delete(AGGREGATORS, manifest["metadata"]["name"])


async def repaired(runs: int, config: Path) -> AsyncIterator[Figures]:
    """From the deletion of one of its objects, of each kind in turn, until there is another.

    The new one is then changed: until it is as it was. What the replicas hold is never changed
    back, and the same field not often, so each round of all kinds has a resource of its own.
    """
    async with _place(config) as here, here.controller():
        for number in range(runs):
            turn, place = divmod(number, len(OWNED))
            name, kind = f"demo-{turn}", OWNED[place]
            if not place:
                manifest = _resource(here.namespace, name)
                await here.cluster.create(manifest)
                await here.complete(name, _wanted(manifest))
                await _until(here.all_told, f"the first look at {name} is over")
            child = (await here.children(name, kind))[0]["metadata"]["name"]
            figures = {"repaired ms": await here.deleted(kind, child)}
            if kind != LEASES:
                figures["changed back ms"] = await here.changed(kind, child)
            yield figures
            if kind == OWNED[-1]:
                await here.delete(AGGREGATORS, name)


async def many(config: Path) -> Figures:
    """Fifty resources that were changed while there was no controller, when one starts."""
    async with _place(config) as here:
        async with here.controller():
            for number in range(MANY):
                await here.cluster.create(_resource(here.namespace, f"demo-{number}"))
            await _until(here.all_told, "all are made")
        for number in range(MANY):
            await here.pause(f"demo-{number}")
        async with here.controller() as one:
            began = time.monotonic()
            # Their status is asked for once it can be complete, so as not to load the API server.
            await _until(lambda: one.has_done(MANY), f"{MANY} passes are done")
            await _until(here.all_told, "all are looked at")
            passed = _since(began) / 1000
            return {"all looked at s": passed, "memory MB": one.memory()}


# ---- around them


@dataclass(frozen=True, slots=True)
class _Controller:
    """A process that leads."""

    process: Process
    address: str
    log: Path

    async def metric(self, name: str) -> float:
        """Return a counter with its labels; 0 while nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://{self.address}/metrics") as answer,
            ):
                lines = (await answer.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0.0
        return next((float(each.split()[-1]) for each in lines if each.startswith(name)), 0.0)

    async def has_done(self, passes: int) -> bool:
        return await self.metric(_DONE) >= passes

    async def leads(self) -> bool:
        if self.process.code is not None:
            said = self.log.read_text(errors="replace")[-1000:]
            msg = f"the controller ended with {self.process.code}: {said}"
            raise RuntimeError(msg)
        return await self.metric("controller_leads") == 1.0

    def memory(self) -> float:
        """Return what is resident, in megabytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(each.split()[1]) / 1024 for each in lines if each.startswith("VmRSS"))


@dataclass(frozen=True, slots=True)
class _Place:
    """A namespace and who may do everything in it."""

    cluster: KubeCluster
    config: Path
    namespace: str

    @asynccontextmanager
    async def controller(self) -> AsyncIterator[_Controller]:
        address = f"127.0.0.1:{free_port()}"
        options = {
            "--kubeconfig": str(self.config),
            "--namespace": self.namespace,
            "--lease-namespace": self.namespace,
            "--image": PLACES.image,
            "--redis-image": PLACES.redis_image,
            "--telemetry": address,
            "--log-level": "warning",
        }
        words = [word for option in options.items() for word in option]
        with tempfile.TemporaryDirectory(prefix="aligned-bench-") as folder:
            log = Path(folder, "controller.log")
            process = Process(
                [sys.executable, "-m", "controller", "run", *words],
                log=log,
                environment={"PATH": os.defpath, "POD_NAME": "bench"},
            )
            one = _Controller(process, address, log)
            try:
                await _until(one.leads, "the controller leads")
                yield one
            finally:
                await asyncio.to_thread(process.end)

    async def children(self, name: str, kind: Kind) -> Sequence[Manifest]:
        return await self.cluster.list(kind, self.namespace, {names.OWNER: name})

    async def complete(self, name: str, wanted: Mapping[str, int]) -> None:
        """Return when a resource has so many objects of each kind."""

        async def is_begun() -> bool:  # one question; the others are asked once that one is there
            return await self.cluster.get(STATEFUL_SETS, self.namespace, name) is not None

        async def is_complete() -> bool:
            for kind in OWNED:
                if len(await self.children(name, kind)) < wanted.get(kind.kind, 0):
                    return False
            return True

        await _until(is_begun, f"{name} has a StatefulSet")
        await _until(is_complete, f"{name} has all of {dict(wanted)}")

    async def all_told(self) -> bool:
        """Tell whether the status of each resource is about it as it is now."""
        found = await self.cluster.list(AGGREGATORS, self.namespace)
        return all(
            (each.get("status") or {}).get("observedGeneration") == each["metadata"]["generation"]
            for each in found
        )

    async def pause(self, name: str) -> None:
        """Change a resource so that nothing but its status becomes another."""
        found = await self.found(AGGREGATORS, name)
        await self.cluster.patch(_patch(found, {}) | {"spec": {"rollout": {"paused": True}}})

    async def deleted(self, kind: Kind, name: str) -> float:
        """Delete an object; return the milliseconds until there is another."""
        began = time.monotonic()
        uid = await self.delete(kind, name)

        async def is_back() -> bool:
            found = await self.cluster.get(kind, self.namespace, name)
            return found is not None and found["metadata"]["uid"] != uid

        await _until(is_back, f"{kind.kind} {name} is there again")
        return _since(began)

    async def changed(self, kind: Kind, name: str) -> float:
        """Take a label from an object; return the milliseconds until it has it again."""
        before = await self.found(kind, name)
        began = time.monotonic()
        await self.cluster.patch(_patch(before, {names.COMPONENT: None}))

        async def is_as_it_was() -> bool:
            now = await self.found(kind, name)
            return bool(now["metadata"]["labels"] == before["metadata"]["labels"])

        await _until(is_as_it_was, f"{kind.kind} {name} is as it was")
        return _since(began)

    async def delete(self, kind: Kind, name: str) -> str:
        """Delete an object that is there; return the uid it had."""
        uid = str((await self.found(kind, name))["metadata"]["uid"])
        await self.cluster.delete(kind, self.namespace, name, uid=uid)
        return uid

    async def found(self, kind: Kind, name: str) -> Manifest:
        """Return an object that is there."""
        found = await self.cluster.get(kind, self.namespace, name)
        if found is None:
            msg = f"{kind.kind} {name} is not there"
            raise RuntimeError(msg)
        return found


@asynccontextmanager
async def _place(config: Path) -> AsyncIterator[_Place]:
    namespace = f"bench-{secrets.token_hex(4)}"

    async def kubectl(*words: str) -> None:
        command = ("kubectl", f"--kubeconfig={config}", *words)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code:
            msg = f"{' '.join(command)} failed"
            raise RuntimeError(msg)

    await kubectl("apply", "--server-side", "--force-conflicts", "-f", str(_CRD))
    await kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(_CRD))
    await kubectl("create", "namespace", namespace)
    try:
        with kubeconfig.api_server({}, config) as server:
            async with aclosing(KubeCluster(server)) as cluster:
                yield _Place(cluster, config, namespace)
    finally:
        await kubectl("delete", "namespace", namespace, "--wait=false")


def _resource(namespace: str, name: str) -> Manifest:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "network": {"preset": "Mainnet"},
            "chain": {"endpoints": [{"name": "main", "url": "https://ethereum.example.org"}]},
            "submission": {"mode": "Observe"},
        },
    }


def _patch(of: Manifest, labels: Mapping[str, str | None]) -> Manifest:
    metadata = {name: of["metadata"][name] for name in ("name", "namespace", "uid")}
    return {
        "apiVersion": of["apiVersion"],
        "kind": of["kind"],
        "metadata": metadata | {"labels": labels},
    }


def _wanted(manifest: Manifest) -> Counter[str]:
    """Return how many objects of each kind the controller makes of a resource."""
    rendered = objects(yaml.safe_dump(manifest), PLACES, manifest["metadata"]["namespace"])
    kinds = {kind.kind for kind in OWNED}
    return Counter(str(each["kind"]) for each in rendered if each["kind"] in kinds)


def _since(began: float) -> float:
    return 1000 * (time.monotonic() - began)


async def _until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await holds():
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError as late:
        msg = f"waited in vain until {what}"
        raise RuntimeError(msg) from late
