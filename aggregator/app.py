"""Composition root: opens every edge, runs the stages in one task group, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from prometheus_client import CollectorRegistry

from aggregator import group, outside, start, together
from aggregator.batches import Batches
from aggregator.chain.facts import Node
from aggregator.chain.registry import Known, Registry
from aggregator.chain.transactor import Transactor
from aggregator.chain.web3signer import RemoteSigner
from aggregator.commit import Committer
from aggregator.ingress.server import Ingress
from aggregator.lead import while_leading
from aggregator.prove import Prover
from aggregator.receive import Intake, Neighbours
from aggregator.search import Search
from aggregator.sections import split_address
from aggregator.story import Measures, Story
from aggregator.submit import Submitter
from aggregator.sweep import Sweeper
from aggregator.telemetry.heartbeat import Heartbeat
from aggregator.telemetry.metrics import Metrics
from aggregator.telemetry.upstream import UpstreamTelemetry
from aggregator.verify import Verifier
from aggregator.view import Parts, Role, View
from aggregator.watch import Scope, Watch
from aligned.bls.choose import choose
from aligned.errors import AlignedError
from aligned.model import BlockHash, BlockRef
from aligned.telemetry import probes

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from aggregator.chain.signer import Signer
    from aggregator.receive import Incoming
    from aggregator.settings import Settings
    from aggregator.telemetry.metrics import Snapshot
    from aligned.bls.backend import Backend
    from aligned.chain.endpoints import Endpoints
    from aligned.model import Term

logger = logging.getLogger(__name__)

HINT_SECONDS = 60.0
"""Between notes of how far the chain is settled: the next start scans from there."""

LAST_HINT_SECONDS = 2.0
"""For the last note at a stop, which a disk that hangs must not hold up."""

_SETTLED = "settled"
"""Hint: block number, 8 bytes ‖ block hash, 32 bytes. See ``Watch.settled``."""


async def run(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run the daemon until SIGTERM or SIGINT, then stop in order and return.

    Args:
        settings: The whole configuration.
        environment: Of the process: tells a pod where its API server is.

    Raises:
        BadConfiguration: The configuration cannot be used as it is.
        DiskRefused: The journal's disk is full or fails.
        StateDamaged: The journal cannot be read.
        StateMismatch: The journal is of another deployment, or was moved.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    failure: AlignedError
    try:
        async with AsyncExitStack() as edges:
            aggregator = await together.unless(stop, _open(settings, environment, edges))
            if aggregator is not None:
                await aggregator.serve(stop)
    except BaseExceptionGroup as failures:
        ours, others = failures.split(AlignedError)
        if ours is None or others is not None:
            raise
        failure = _first(ours)
    else:
        logger.info("stopped")
        return
    raise failure


def _first(failures: BaseExceptionGroup[AlignedError]) -> AlignedError:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _open(
    settings: Settings, environment: Mapping[str, str], edges: AsyncExitStack
) -> Aggregator:
    backend = await asyncio.to_thread(choose, settings.bls.backend)
    edges.callback(backend.close)
    signer = outside.signer(settings)
    if isinstance(signer, RemoteSigner):
        await edges.enter_async_context(signer)
    endpoints = await edges.enter_async_context(outside.endpoints(settings))
    await endpoints.check()
    state = await start.recover(settings, endpoints)
    edges.callback(state.journal.close)
    aggregator = Aggregator(settings, endpoints, backend, signer, state, environment)
    edges.push_async_callback(aggregator.group.aclose)
    await aggregator.restore()
    return aggregator


class Aggregator:
    """All parts of the daemon, put together."""

    def __init__(
        self,
        settings: Settings,
        endpoints: Endpoints,
        backend: Backend,
        signer: Signer | None,
        state: start.State,
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._state = state
        self._journal = state.journal
        self._role = Role()
        clock = time.monotonic
        self._clock = clock
        self._batches = Batches()
        contracts = state.deployment.contracts
        self._registry = Registry(
            endpoints,
            contracts,
            backend,
            state.journal.save_operators,
            deployment_block=settings.chain.deployment_block,
            clock=clock,
        )
        self._watch = Watch(
            endpoints,
            self._registry,
            self._batches,
            Scope(
                service_manager=contracts.service_manager,
                deployment_block=settings.chain.deployment_block,
                expiry=settings.aggregation.expiry,
                start=_settled(state.loaded.hints.get(_SETTLED)),
            ),
            poll_interval=settings.chain.poll_interval,
            clock=clock,
        )
        node = Node(endpoints, contracts.service_manager, self._registry, self._watch)
        self.group = group.assemble(
            group.Surroundings(
                settings=settings,
                state=state,
                batches=self._batches,
                watch=self._watch,
                registry=self._registry,
                node=node,
                signer=signer,
                environment=environment,
            )
        )
        store = self.group.store
        self._upstream = UpstreamTelemetry(settings.telemetry.upstream_url, clock)
        self._metrics = Metrics.on(CollectorRegistry(), self._snapshot)
        self._measures = Measures(self._metrics, self._upstream, self._batches)
        self._verifier: Verifier[Incoming] = Verifier(backend, self._judge)
        self._intake = Intake(
            self._batches,
            self._registry,
            Neighbours(
                check=self._verifier.submit,
                commit=self._commit,
                pause=self._pause,
                resume=self._resume,
                measure=self._measures.commit,
            ),
            clock,
        )
        self._search = Search(self._intake, self._registry, clock)
        self._committer = Committer(
            self._batches,
            state.journal,
            store,
            height=lambda: self._watch.height,
            clock=clock,
            outcomes=self._intake,
        )
        self._ingress = Ingress(settings.listen, self._intake, clock)
        self._sweeper = Sweeper(self._batches, state.journal, store, self._watch)
        self._heartbeat = Heartbeat(clock, self._metrics.loop_lag.observe)
        self._story = Story(self._metrics, self._upstream, self._batches, clock)
        self._transactor = Transactor(
            node=node,
            rpc=endpoints,
            store=store,
            signer=signer,
            heads=self._watch,
            require=self.group.leadership.require,
            terms=outside.terms(settings),
            clock=clock,
        )
        self._submitter = Submitter(
            batches=self._batches,
            prover=Prover(self._registry.operator, backend, self._registry.miss),
            store=store,
            transactor=self._transactor,
            window=settings.aggregation.window,
            clock=clock,
            milestones=self._story,
        )
        self._view = View(
            Parts(
                identity=state.deployment.identity,
                role=self._role,
                backend=backend,
                batches=self._batches,
                journal=state.journal,
                registry=self._registry,
                knew_operators=_SETTLED in state.loaded.hints,
                endpoints=endpoints,
                watch=self._watch,
                ingress=self._ingress,
                intake=self._intake,
                verifier=self._verifier,
                committer=self._committer,
                transactor=self._transactor,
                submitter=self._submitter,
                heartbeat=self._heartbeat,
                metrics=self._metrics,
                upstream=self._upstream,
                story=self._story,
                group=self.group,
                clock=clock,
            )
        )

    async def restore(self) -> None:
        """Take what the journal knew into memory."""
        loaded = self._state.loaded
        await self._registry.restore(Known(loaded.operators, loaded.registry))
        self._batches.evict(loaded.refuted)
        for height, entries in loaded.entries.items():
            self._batches.keep(entries, height=height)

    # The stages refer to each other in a ring: these close it.

    def _judge(self, verdicts: list[tuple[Incoming, bool]]) -> None:
        self._measures.verdicts(verdicts, self._verifier.statistics.seconds)
        self._intake.judge(verdicts)

    def _commit(self, incoming: Incoming) -> None:
        self._committer.add(incoming)

    def _pause(self) -> None:
        self._ingress.pause()

    def _resume(self) -> None:
        self._ingress.resume()

    def _snapshot(self) -> Snapshot:
        return self._view.snapshot()

    async def serve(self, stop: asyncio.Event) -> None:
        """Run every stage until ``stop``; then end the term, drain, and return.

        Raises:
            ExceptionGroup: A stage failed; all others were cancelled.
        """
        async with AsyncExitStack() as edges, asyncio.TaskGroup() as stages:
            if self._settings.telemetry.address is not None:
                shown = probes.Shown(
                    alive=self._view.alive,
                    ready=self._view.ready,
                    metrics=self._metrics.exposition,
                    status=self._view.status,
                )
                address = split_address(self._settings.telemetry.address)
                await edges.enter_async_context(
                    probes.serving(*address, shown, key="telemetry.address")
                )
            if self.group.elected is not None:
                self._pace(leads=False)
            await self._ingress.start()
            host, port = self._ingress.address
            logger.info("taking signatures", extra={"address": f"{host}:{port}"})
            tasks = [stages.create_task(work, name=name) for name, work in self._stages().items()]
            leading = stages.create_task(
                while_leading(self.group.leadership, self._lead), name="lead"
            )
            election = (
                []
                if self.group.elected is None
                else [stages.create_task(self.group.elected.run(), name="election")]
            )
            await stop.wait()
            logger.info("stopping: the term ends, calls in flight are answered")
            self._role.stopping = True
            await together.ended(leading, *election)
            await asyncio.sleep(self._settings.listen.drain_delay)
            await self._ingress.drain()
            for task in tasks:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_HINT_SECONDS):
                    await self._note_settled()

    def _stages(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "heartbeat": self._heartbeat.run(),
            "journal": self._journal.failed(),
            "endpoints": self._endpoints.keep_probing(),
            "confirm": start.confirm(self._settings, self._endpoints, self._state.deployment),
            "watch": self._watch.run(),
            "ingress": self._ingress.run(),
            "held": self._search.run(),
            "verify": self._verifier.run(),
            "commit": self._committer.run(),
            "sweep": self._sweeper.run(),
            "hints": self._keep_hints(),
            "upstream": self._upstream.run(),
            **{name: work() for name, work in self.group.work.items()},
        }

    async def _lead(self, term: Term, holder: str) -> NoReturn:
        self._pace(leads=True)
        self._watch.want_rescan()
        try:
            await self._submitter.run(term, holder, self._begun)
        finally:
            self._role.leads = False
            self._pace(leads=False)

    def _begun(self, term: Term, holder: str) -> None:
        self._role.term, self._role.holder, self._role.leads = term, holder, True

    def _pace(self, *, leads: bool) -> None:
        configured = self._settings.chain.poll_interval
        self._watch.set_poll_interval(self.group.poll_interval(configured, leads=leads))

    async def _keep_hints(self) -> NoReturn:
        while True:
            await asyncio.sleep(HINT_SECONDS)
            await self._note_settled()

    async def _note_settled(self) -> None:
        settled = self._watch.settled
        if settled is not None:
            note = settled.number.to_bytes(8, "big") + settled.hash
            await self._journal.save_hint(_SETTLED, note)


def _settled(note: bytes | None) -> BlockRef | None:
    if note is None or len(note) != 8 + 32:
        return None
    return BlockRef(int.from_bytes(note[:8], "big"), BlockHash(note[8:]))
