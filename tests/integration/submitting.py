"""One replica's answering side over a real chain, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aggregator.batches import Batches
from aggregator.chain.facts import Node
from aggregator.chain.fees import Policy
from aggregator.chain.nonces import Fate, Slot
from aggregator.chain.plan import Rules
from aggregator.chain.registry import Registry
from aggregator.chain.transactor import Terms, Transactor
from aggregator.outbox import Receipt
from aggregator.parking import Reason
from aggregator.prove import Prover
from aggregator.quorum import Tally
from aggregator.submit import Submitter
from aggregator.watch import Scope, Watch
from aligned.bls.backend import Backend
from aligned.chain import deployment
from aligned.chain.endpoints import Endpoints, Source
from aligned.model import Batch, BatchId, BlockRef, Entry, Operator, Term, TransactionHash
from devnet.batcher import Posted
from devnet.keys import OperatorKey
from devnet.network import AGGREGATOR_KEY, Network
from tests.fakes.signer import LocalSigner
from tests.fakes.store import MemoryStore

SECONDS = 60.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens in other tasks and processes."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.01)


@dataclass
class Milestones:
    quorums: list[BatchId] = field(default_factory=list)
    sent: list[TransactionHash] = field(default_factory=list)
    mined: list[TransactionHash] = field(default_factory=list)

    def quorum_reached(self, batch: Batch, counted: Tally) -> None:
        del counted
        self.quorums.append(batch.batch_id)

    def answer_mined(self, batch: Batch, receipt: Receipt) -> None:
        del batch
        self.mined.append(receipt.hash)  # perhaps of what an earlier term sent

    def answer_sent(self, batch: Batch, transaction: TransactionHash, counted: Tally) -> None:
        del batch, counted
        self.sent.append(transaction)


class SkippingClock:
    """Real time, and what was skipped."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


@dataclass(frozen=True, kw_only=True)
class Replica:
    clock: SkippingClock
    batches: Batches
    watch: Watch
    transactor: Transactor
    submitter: Submitter
    milestones: Milestones
    signer: LocalSigner | None

    async def sign(self, posted: Posted, signers: Sequence[OperatorKey]) -> None:
        """Hold the signatures of ``signers``."""
        self.batches.keep(
            [
                Entry(posted.batch_id, signer.operator_id, signer.sign(posted.batch_id))
                for signer in signers
            ],
            height=self.watch.height,
        )

    async def see(self, mined: Awaitable[object]) -> None:
        """Let blocks be mined and wait until what they make due is done."""
        before = self.watch.head
        await mined
        await until(lambda: self.transactor.looked_at == self.watch.head != before)

    def skip(self, seconds: float) -> None:
        """Let time pass at once."""
        self.clock.skipped += seconds
        self.submitter.look_again()

    def reason(self, posted: Posted) -> Reason | None:
        found = [p.reason for p in self.submitter.parked if p.batch_id == posted.batch_id]
        return found[0] if found else None

    async def parked(self, posted: Posted, reason: Reason) -> None:
        await until(lambda: self.reason(posted) is reason)

    def slot(self, posted: Posted) -> Slot | None:
        found = [slot for slot in self.transactor.slots if slot.concerns(posted.batch_id)]
        return found[0] if found else None

    async def fate(self, posted: Posted, fate: Fate) -> Slot:
        await until(lambda: (slot := self.slot(posted)) is not None and slot.fate is fate)
        slot = self.slot(posted)
        assert slot is not None
        return slot


@dataclass(kw_only=True)
class Options:
    urls: tuple[str, ...] = ()
    """Endpoints; none: the chain itself."""
    window: float = 0.0
    resubmit_after: float = 60.0
    max_in_flight: int = 4
    policy: Policy = field(default_factory=Policy)
    signer: LocalSigner | None = field(default_factory=lambda: LocalSigner(AGGREGATOR_KEY))


@asynccontextmanager
async def replica(
    network: Network, store: MemoryStore, backend: Backend, options: Options | None = None
) -> AsyncIterator[Replica]:
    """Lead a new term until the end; the end is a crash as far as the outbox is concerned."""
    options = options or Options()
    urls = options.urls or (network.anvil.url,)
    sources = [Source(name=f"endpoint-{number}", url=url) for number, url in enumerate(urls)]
    async with Endpoints(sources, network.deployment.chain_id) as rpc:
        await rpc.check()
        contracts = await deployment.resolve(
            rpc,
            service_manager=network.deployment.service_manager,
            registry_coordinator=network.deployment.registry_coordinator,
            operator_state_retriever=network.deployment.operator_state_retriever,
        )
        batches = Batches()
        clock = SkippingClock()
        registry = Registry(
            rpc,
            contracts,
            backend,
            _save,
            deployment_block=network.deployment.block,
            clock=clock,
        )
        scope = Scope(
            service_manager=contracts.service_manager,
            deployment_block=network.deployment.block,
            expiry=1e6,
        )
        watch = Watch(rpc, registry, batches, scope, poll_interval=0.05, clock=clock)
        transactor = Transactor(
            node=Node(rpc, contracts.service_manager, registry, watch),
            rpc=rpc,
            store=store,
            signer=options.signer,
            heads=watch,
            require=lambda _: None,
            terms=Terms(
                chain_id=network.deployment.chain_id,
                contract=contracts.service_manager,
                rules=Rules(policy=options.policy, resubmit_after=options.resubmit_after),
                max_in_flight=options.max_in_flight,
            ),
            clock=clock,
        )
        milestones = Milestones()
        submitter = Submitter(
            batches=batches,
            prover=Prover(registry.operator, backend, registry.miss),
            store=store,
            transactor=transactor,
            window=options.window,
            clock=clock,
            milestones=milestones,
            luck=lambda: 0.99,
        )
        built = Replica(
            clock=clock,
            batches=batches,
            watch=watch,
            transactor=transactor,
            submitter=submitter,
            milestones=milestones,
            signer=options.signer,
        )
        term = Term(store.fence[0] + 1)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(watch.run()),
                group.create_task(submitter.run(term, f"replica-{term}")),
            ]
            yield built
            for task in tasks:
                task.cancel()


async def _save(operators: Sequence[Operator], progress: BlockRef) -> None:
    del operators, progress
