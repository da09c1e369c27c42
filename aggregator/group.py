"""Composition of what depends on how many replicas there are: store, sharing, leadership."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, NoReturn

from aggregator import sweep
from aggregator.chain.signer import SignerUnavailable
from aggregator.leadership.elected import ElectedLeadership, Health
from aggregator.leadership.election import PROFILES, Candidate
from aggregator.leadership.elector import boottime
from aggregator.leadership.kubernetes import KubernetesLock
from aggregator.leadership.pod import lease_at
from aggregator.leadership.redis import RedisLock
from aggregator.leadership.single import SingleLeadership
from aggregator.replicas import Backend
from aggregator.sections import split_address
from aggregator.store.connection import Access, Address, Server, Tls, parse_url
from aggregator.store.discovery import Fixed, Sentinels
from aggregator.store.redis import RedisStore
from aggregator.store.replica import Held
from aggregator.store.shared import SharedStore
from aggregator.store.sharing import Sharing
from aggregator.store.single import SingleStore
from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from aggregator import start
    from aggregator.batches import Batches, BatchState
    from aggregator.chain.facts import Node
    from aggregator.chain.registry import Registry
    from aggregator.chain.signer import Signer
    from aggregator.leadership.lock import Lock
    from aggregator.ports import Leadership, Store
    from aggregator.replicas import Redis
    from aggregator.settings import Settings
    from aggregator.store.discovery import Discovery
    from aggregator.watch import Watch
    from aligned import model

logger = logging.getLogger(__name__)

FAILOVERS = 16
"""Takeovers that ``/status`` shows."""

STANDBY_FACTOR = 2.5
"""A replica that does not lead looks at the chain so many times less often."""

SIGNER_SECONDS = 30.0
"""Between two looks at whether our signer is the contract's aggregator."""

_SIGNER_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the store and the election need of the rest."""

    settings: Settings
    state: start.State
    batches: Batches
    watch: Watch
    registry: Registry
    node: Node
    signer: Signer | None
    environment: Mapping[str, str]
    """Of the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """How this replica took over."""

    at: str
    """When work went on, by the wall clock; RFC 3339."""
    term: int
    over: str
    """Who led before; empty: nobody, it was given up in order."""
    detect_ms: int
    """From the last sign of that one to our candidacy."""
    elect_ms: int
    """Until the lock was ours."""
    resume_ms: int
    """Until the term was claimed and everything that Redis and we hold was one."""


class Chronicle:
    """The last takeovers of this replica."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self.elected: ElectedLeadership | None = None
        self.failovers: deque[Failover] = deque(maxlen=FAILOVERS)

    def begun(self, term: int) -> None:
        """Write down that ``term`` has begun; a repeated claim is told once."""
        won = None if self.elected is None else self.elected.won
        if won is None or won.term != term or any(one.term == term for one in self.failovers):
            return
        failover = Failover(
            at=self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            term=term,
            over=won.over,
            detect_ms=_milliseconds(won.heard, won.began),
            elect_ms=_milliseconds(won.began, won.won),
            resume_ms=_milliseconds(won.won, boottime()),
        )
        self.failovers.append(failover)
        logger.info("took over", extra=asdict(failover))


def _milliseconds(since: float, until: float) -> int:
    return round(1000 * (until - since)) if isfinite(since) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """This replica among its peers."""

    name: str
    """What it is called."""
    store: Store
    leadership: Leadership
    elected: ElectedLeadership | None = None
    """The same as ``leadership`` where there is an election."""
    redis: RedisStore | None = None
    sharing: Sharing | None = None
    chronicle: Chronicle = field(default_factory=Chronicle)
    work: Mapping[str, Callable[[], Coroutine[Any, Any, NoReturn]]] = field(default_factory=dict)
    """What must run for as long as signatures are taken."""

    def poll_interval(self, configured: float, *, leads: bool) -> float:
        """Return how often to look at the chain."""
        return configured if leads or self.elected is None else configured * STANDBY_FACTOR

    @property
    def has_fit_peer(self) -> bool:
        """Whether another replica could lead now: it knows every operator."""
        return self.elected is not None and bool(self.elected.peers)

    @property
    def is_store_reachable(self) -> bool | None:
        """Whether the shared store answered last; None without one."""
        return None if self.sharing is None else not self.sharing.is_away

    @property
    def is_outbox_readable(self) -> bool | None:
        """Whether the shared outbox could be read last; None without one."""
        return None if self.redis is None else self.redis.is_outbox_readable

    @property
    def restored(self) -> int:
        """Signatures that the shared store had forgotten."""
        return 0 if self.sharing is None else self.sharing.progress.restored

    def status(self) -> Mapping[str, object] | None:
        """Return what ``/status`` shows; None for a process without peers."""
        if self.redis is None or self.sharing is None:
            return None
        primary = self.redis.primary.address
        standing = None if self.elected is None else asdict(self.elected.standing)
        return {
            "replica": self.name,
            "election": standing,
            "unfit": None if self.elected is None else self.elected.unfit,
            "failovers": [asdict(failover) for failover in self.chronicle.failovers],
            "fence": self.redis.known_fence._asdict(),
            "store": {
                "reachable": self.is_store_reachable,
                "outbox_readable": self.is_outbox_readable,
                "primary": None if primary is None else str(primary),
                "in_sync": self.sharing.is_merged,
                "conflicts": self.redis.counted.conflicts,
                **asdict(self.sharing.progress),
            },
        }

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
        if self.redis is not None:
            await self.redis.aclose()


def assemble(around: Surroundings) -> Group:
    """Return the group that the settings describe; nothing is connected yet.

    Raises:
        BadConfiguration: The Lease's whereabouts are not known.
    """
    journal = around.state.journal
    name = around.settings.election.replica or socket.gethostname()
    if around.settings.redis is None:
        return Group(
            name=name,
            store=SingleStore(journal),
            leadership=SingleLeadership(lambda: journal.fence.term),
        )
    boot = f"{name}.{secrets.token_hex(4)}"
    loaded = around.state.loaded
    held = Held(
        around.batches,
        journal,
        Past(around.watch, around.node),
        rows=loaded.outbox,
        remembered={entry.batch_id for some in loaded.entries.values() for entry in some},
    )
    redis = _redis_store(around, around.settings.redis, boot, held)
    sharing = Sharing(redis, held)
    chronicle = Chronicle()
    store = SharedStore(redis, journal, held, sharing, chronicle.begun)
    work: dict[str, Callable[[], Coroutine[Any, Any, NoReturn]]] = {
        "sharing": sharing.run,
        "peers": held.run,
    }
    backend = around.settings.election.backend or Backend.REDIS
    if backend is Backend.SINGLE:
        leadership = SingleLeadership(lambda: redis.known_fence.term)
        return Group(
            name=name, store=store, leadership=leadership, redis=redis, sharing=sharing, work=work
        )
    fitness = Fitness(around.node, around.signer)
    work["fitness"] = fitness.run
    elected = ElectedLeadership(
        Candidate(me=boot, pod=name, profile=PROFILES[around.settings.election.profile]),
        _lock(around, around.settings.redis, backend, boot),
        redis,
        Health(
            head_age=lambda: around.watch.overdue,
            signs=lambda: fitness.signs,
            operators=lambda: around.registry.synced is not None,
            window=lambda: around.watch.is_complete and held.is_caught_up,
        ),
    )
    chronicle.elected = elected
    return Group(
        name=name,
        store=store,
        chronicle=chronicle,
        leadership=elected,
        elected=elected,
        redis=redis,
        sharing=sharing,
        work=work,
    )


def _redis_store(around: Surroundings, settings: Redis, writer: str, held: Held) -> RedisStore:
    return RedisStore(
        discovery(settings),
        around.state.deployment.identity,
        writer=writer,
        fence=around.state.journal.fence,
        learned=held.learn,
        copies=settings.copies,
    )


def _lock(
    around: Surroundings, settings: Redis, backend: Backend, writer: str
) -> Callable[[], Lock]:
    """Return what makes the lock in the elector's thread.

    Raises:
        BadConfiguration: The Lease's whereabouts are not known.
    """
    if backend is Backend.KUBERNETES:
        where = lease_at(around.settings.election, around.environment)
        return lambda: KubernetesLock(where)
    identity = around.state.deployment.identity
    fence = around.state.journal.fence
    return lambda: RedisLock(
        RedisStore(discovery(settings), identity, writer=f"{writer}.lock", fence=fence)
    )


def discovery(settings: Redis) -> Discovery:
    """Return what knows the primary."""
    tls = None
    if settings.tls or (settings.url or "").startswith("rediss:"):
        tls = Tls(
            ca_file=settings.ca_file,
            certificate_file=settings.certificate_file,
            key_file=settings.key_file,
            check_hostname=settings.check_hostname,
        )
    access = Access(username=settings.username, password_file=settings.password_file, tls=tls)
    if settings.url is not None:
        return Fixed(parse_url(settings.url, access))
    sentinel_access = Access(
        username=settings.sentinel_username,
        password_file=settings.sentinel_password_file,
        tls=tls,
    )
    return Sentinels(
        [
            Server(address=Address(*split_address(sentinel)), access=sentinel_access)
            for sentinel in settings.sentinels
        ],
        master=settings.master_name or "",
        access=access,
        database=settings.database,
    )


class Past:
    """What the chain says of things that a replica remembers; see ``replica.Chain``."""

    def __init__(self, watch: Watch, node: Node) -> None:
        self._watch = watch
        self._node = node

    @property
    def height(self) -> int:
        return self._watch.height

    async def known(self) -> None:
        await self._watch.complete()

    def is_settled(self, state: BatchState) -> bool:
        progress = self._watch.progress
        return progress is not None and sweep.is_settled(state, progress)

    async def used(self, account: model.Address) -> int:
        return await self._node.used(account)


class Fitness:
    """Whether our signer is the account that the contract takes answers from."""

    def __init__(self, node: Node, signer: Signer | None) -> None:
        self._node = node
        self._signer = signer
        self.signs = signer is None
        """Also where no answers are sent: an observer may lead observers."""
        self._is_told = False

    async def run(self) -> NoReturn:
        """Look now and then, until cancelled."""
        while True:
            found = await self._look()
            await asyncio.sleep(SIGNER_SECONDS if found else _SIGNER_RETRY_SECONDS)

    async def _look(self) -> bool:
        """Return whether there was an answer."""
        if self._signer is None:
            return True
        try:
            account = await self._signer.account()
            aggregator, _ = await self._node.standing(account)
        except ChainUnavailable:
            return False  # its age tells
        except SignerUnavailable as away:
            self._tell(signs=False, reason=str(away))
            return False
        reason = f"the contract's is 0x{aggregator.hex()}, ours 0x{account.hex()}"
        self._tell(signs=aggregator == account, reason=reason)
        return True

    def _tell(self, *, signs: bool, reason: str) -> None:
        if not signs and not self._is_told:
            logger.error(
                "this replica cannot lead: its signer is not the contract's aggregator, or is "
                "away. Check the signer section and the key",
                extra={"reason": reason},
            )
        self._is_told = not signs
        self.signs = signs
