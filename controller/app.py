"""Composition root: opens every edge, runs everything in one task group, stops in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import aiohttp
from prometheus_client import CollectorRegistry

from aligned.telemetry import probes
from controller import lead as election, workers as passes
from controller.desired.known import Release
from controller.errors import ClusterError, Gone
from controller.guarded import GuardedCluster
from controller.handlers import Pace, Scope, Watches, WatchesEnded
from controller.kube import KubeCluster
from controller.lead import SAFE, Lead
from controller.observe import HttpReplicas
from controller.ports import AGGREGATORS
from controller.queue import WorkQueue
from controller.reconcile import Reconciler
from controller.telemetry.metrics import Metrics
from controller.workers import Workers

if TYPE_CHECKING:
    from controller.essence import Key
    from controller.kubeconfig import ApiServer
    from controller.lead import Periods
    from controller.settings import Settings

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 12.0
"""For passes under way at a stop. With the Lease's release and the watches' end it is less than
the 25 s that a stop may take."""

STUCK_SECONDS = 300.0
"""A pass that runs for so long has lost its own deadline."""

ELECTOR_SECONDS = 30.0
"""Without a decision of the elector."""

_BEAT_SECONDS = 0.5
_LOOP_SECONDS = 5.0
_ABSENT_SECONDS = 2.0
_WATCHES_SECONDS = 5.0
_LOST = 1
"""Exit code of a process that lost its Lease."""


async def run(
    settings: Settings, server: ApiServer, *, periods: Periods = SAFE, pace: Pace | None = None
) -> None:
    """Run the controller until SIGTERM or SIGINT, then stop in order and return.

    The process ends by itself, with code 1, when its Lease is lost.

    Args:
        settings: All of them.
        server: Where the API server is.
        periods: Of the election.
        pace: Of the watches.

    Raises:
        BadConfiguration: Something cannot be used as it is.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as edges:
        cluster = KubeCluster(server)
        edges.push_async_callback(cluster.aclose)
        session = await edges.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        )
        controller = Controller(settings, server, cluster, HttpReplicas(session), periods, pace)
        await controller.serve(stop)
    logger.info("stopped")


class Controller:
    """One replica of the controller."""

    def __init__(
        self,
        settings: Settings,
        server: ApiServer,
        cluster: KubeCluster,
        replicas: HttpReplicas,
        periods: Periods,
        pace: Pace | None,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        clock = self._clock = asyncio.get_running_loop().time
        own = () if settings.all_namespaces else settings.namespaces or (server.namespace,)
        self._scope = Scope(namespaces=own)
        self._lease = settings.lease_namespace or server.namespace, settings.lease_name
        self._metrics = Metrics(CollectorRegistry())
        self._queue: WorkQueue[Key] = WorkQueue(clock)
        self._is_stopping = False
        self._lead = Lead(server, *self._lease, settings.pod, self._lose, periods)
        guarded = GuardedCluster(cluster, self._lead.require, self._wrote)
        release = Release(image=settings.image, redis_image=settings.redis_image)
        reconciler = Reconciler(guarded, release, replicas, lambda: datetime.now(UTC))
        self._workers = Workers(self._queue, reconciler, self._metrics, clock)
        self._watches = Watches(server, self._scope, settings.pod, pace)
        self._relist = asyncio.Event()
        self._beat = clock()
        self._has_listed = False
        self._show()

    def _lose(self, why: str) -> None:
        """End the process now: another replica may work already, or soon."""
        if self._is_stopping:
            logger.info("the Lease ran out during the stop", extra={"reason": why})
        else:
            logger.critical(
                "the controller's Lease is lost; the process ends and is started again. If it "
                "goes on, look at the API server's latency and at our CPU limit",
                extra={"reason": why},
            )
        logging.shutdown()
        os._exit(0 if self._is_stopping else _LOST)

    def _wrote(self, kind: str, verb: str) -> None:
        self._metrics.wrote(kind, verb)
        self._workers.wrote(kind, verb)

    def _show(self) -> None:
        watch, queue = self._metrics.watch, self._queue
        watch("controller_leads", "Whether this replica works.", lambda: self._lead.leads)
        watch("controller_queue_depth", "Resources that wait for a worker.", lambda: queue.depth)
        watch(
            "controller_queue_failing", "Resources whose last pass failed.", lambda: queue.failing
        )
        watch(
            "controller_pass_running_seconds",
            "Age of the oldest pass under way.",
            lambda: self._workers.longest,
        )

    # Probes.

    def alive(self) -> dict[str, bool]:
        """Return what must hold, or the process is restarted."""
        return {
            "loop": self._clock() - self._beat < _LOOP_SECONDS,
            "elector": self._lead.silence < ELECTOR_SECONDS,
            "workers": self._workers.longest < STUCK_SECONDS,
        }

    def ready(self) -> dict[str, bool]:
        """Return what must hold to be of use, as a standby too."""
        return {"listed": self._has_listed, "watches": self._watches.are_running}

    # What runs.

    async def serve(self, stop: asyncio.Event) -> None:
        """Run until ``stop``; then finish what is under way, give the Lease up, and return.

        Raises:
            BadConfiguration: The telemetry address cannot be used.
        """
        shown = probes.Shown(alive=self.alive, ready=self.ready, metrics=self._metrics.exposition)
        telemetry = probes.serving(*self._settings.telemetry, shown, key="--telemetry")
        async with telemetry, asyncio.TaskGroup() as tasks:
            working = tasks.create_task(self._work(), name="workers")
            others = [
                tasks.create_task(self._turn(), name="beat"),
                tasks.create_task(self._lead.run(), name="election"),
                tasks.create_task(election.ensure_lease(self._cluster, *self._lease), name="lease"),
                tasks.create_task(self._watch(), name="watches"),
            ]
            await stop.wait()
            self._is_stopping = True
            logger.info("stopping: passes under way are finished, then the Lease is given up")
            await self._drain()
            working.cancel()
            await asyncio.wait([working])
            await self._lead.release()
            for task in others:
                task.cancel()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._workers.stop()
        except TimeoutError:
            logger.info("passes take long; they are cut off, and gone on with by the next leader")

    async def _turn(self) -> NoReturn:
        while True:
            self._beat = self._clock()
            await asyncio.sleep(_BEAT_SECONDS)

    async def _work(self) -> None:
        await self._lead.acquired()
        logger.info("leading", extra={"lease": "/".join(self._lease)})
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._settings.workers):
                tasks.create_task(self._workers.work(), name=f"worker-{number}")
            lists = passes.resync(
                self._cluster,
                self._scope.lists,
                self._workers,
                self._relist,
                self._settings.resync_seconds,
            )
            tasks.create_task(lists, name="resync")

    async def _watch(self) -> NoReturn:
        """Watch for as long as the definition is there; begin anew when kopf gives up."""
        while True:
            await self._definition()
            self._relist.set()
            try:
                await self._watches.run(self._workers.resource, self._workers.child)
            except WatchesEnded as ended:
                self._metrics.watches_ended()
                logger.warning(
                    "the watches ended and are begun anew; if it goes on, compare our roles with "
                    "those of this release, and see whether the definition is there",
                    extra={"reason": str(ended)},
                )
            self._relist.set()
            await asyncio.sleep(_WATCHES_SECONDS)

    async def _definition(self) -> None:
        """Wait until resources can be listed: kopf would never look for their kind again."""
        told = ""
        while True:
            try:
                for namespace in self._scope.lists:
                    await self._cluster.list(AGGREGATORS, namespace)
            except ClusterError as error:
                if type(error).__name__ != told:
                    logger.warning(_advice(error), extra={"reason": str(error)})
                told = type(error).__name__
                await asyncio.sleep(_ABSENT_SECONDS)
            else:
                self._has_listed = True
                return


def _advice(error: ClusterError) -> str:
    if isinstance(error, Gone):
        return "the kind AlignedAggregator is not there: apply its CustomResourceDefinition"
    return "resources cannot be listed; check our roles and the way to the API server"
