"""What the daemon shows of itself: probes, ``/status``, ``/metrics``, upstream's telemetry.

Reads the stages; nothing here changes them.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from aggregator import quorum
from aggregator.telemetry.metrics import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aggregator.batches import Batches, BatchState
    from aggregator.chain.registry import Registry
    from aggregator.chain.transactor import Transactor
    from aggregator.commit import Committer
    from aggregator.group import Group
    from aggregator.ingress.server import Ingress
    from aggregator.journal.journal import Journal
    from aggregator.ports import Clock
    from aggregator.receive import Incoming, Intake
    from aggregator.story import Story
    from aggregator.submit import Submitter
    from aggregator.telemetry.heartbeat import Heartbeat
    from aggregator.telemetry.metrics import Metrics
    from aggregator.telemetry.upstream import UpstreamTelemetry
    from aggregator.verify import Verifier
    from aggregator.watch import Watch
    from aligned.bls.backend import Backend
    from aligned.chain.endpoints import Endpoints
    from aligned.model import Identity, Term

SHOWN_BATCHES = 200
"""Unresolved batches that ``/status`` lists one by one."""

STUCK_SECONDS = 10.0
"""A commit under way for longer means that the disk hangs."""

ELECTOR_SECONDS = 60.0
"""Without a decision of the elector. To give a lock up that does not answer takes it up to 24 s
with the slowest profile."""

_ETHER = 10**18


@dataclass(slots=True)
class Role:
    """What this replica is now."""

    term: Term | None = None
    """The last that this replica led in."""
    holder: str = ""
    leads: bool = False
    """Its claim is confirmed, and it has everything its peers had: it answers."""
    stopping: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The stages and the machinery that are shown."""

    identity: Identity
    role: Role
    backend: Backend
    batches: Batches
    journal: Journal
    registry: Registry
    knew_operators: bool
    """The journal brought all operators from an earlier run."""
    endpoints: Endpoints
    watch: Watch
    ingress: Ingress
    intake: Intake
    verifier: Verifier[Incoming]
    committer: Committer
    transactor: Transactor
    submitter: Submitter
    heartbeat: Heartbeat
    metrics: Metrics
    upstream: UpstreamTelemetry
    story: Story
    group: Group
    clock: Clock


class View:
    """Answers probes and scrapes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._version = version("aligned-aggregator-operator")

    # Probes.

    def alive(self) -> Mapping[str, bool]:
        """Return what must hold or the process is restarted: loop and threads turn."""
        alive = {"loop": self._parts.heartbeat.is_alive, "journal": not self._journal_is_stuck()}
        elected = self._parts.group.elected
        if elected is not None:
            # At a stop the election ends before the last calls are answered.
            alive["elector"] = self._parts.role.stopping or elected.silence < ELECTOR_SECONDS
        return alive

    def ready(self) -> Mapping[str, bool]:
        """Return what must hold to take a signature: journal, ingress, operator keys.

        Never the chain or the shared store: without them signatures are kept all the same.

        A replica that reads the registry for the first time may hold a call in vain, so operators
        are led to others. Where nobody else could answer either it takes calls: those it holds
        wait far longer than an operator does at a closed port.
        """
        parts = self._parts
        return {
            "not_stopping": not parts.role.stopping,
            "journal": not self._journal_is_stuck(),
            "ingress": parts.ingress.is_open,
            "operators": len(parts.registry) > 0
            and (self._knows_operators() or not parts.group.has_fit_peer),
        }

    def _knows_operators(self) -> bool:
        return self._parts.knew_operators or self._parts.registry.synced is not None

    def _journal_is_stuck(self) -> bool:
        busy_since = self._parts.journal.counts.busy_since
        return busy_since is not None and time.monotonic() - busy_since > STUCK_SECONDS

    # /status

    def status(self) -> Mapping[str, object]:
        """Return what a person wants to know first. Integers beyond JSON's reach become text."""
        parts = self._parts
        now = parts.clock()
        return {
            "version": self._version,
            "role": asdict(parts.role),
            "replicas": parts.group.status(),
            "deployment": parts.identity,
            "bls_backend": parts.backend.name,
            "ready": self.ready(),
            "chain": self._chain(now),
            "operators": len(parts.registry),
            "batches": self._batches(),
            "parked": [asdict(parked) for parked in parts.submitter.parked],
            "submission": {
                "observing": parts.transactor.is_observing,
                "blocked": parts.transactor.blocked,
                "account": parts.transactor.account,
                "outbox": self._outbox(now),
                **asdict(parts.transactor.counters),
            },
            "responses": {
                **self._responses(),
                "unfinished": parts.intake.unfinished,
                "waiting_for_verdict": parts.verifier.pending,
            },
            "verification": asdict(parts.verifier.statistics),
            "journal": {"path": str(parts.journal.path), "commits": parts.journal.counts.commits},
            "ingress": parts.ingress.statistics,
        }

    def _chain(self, now: float) -> Mapping[str, object]:
        watch = self._parts.watch
        return {
            "head": watch.head,
            "seen_seconds_ago": None if watch.looked_at is None else now - watch.looked_at,
            "finalized": watch.finalized,
            "window_read": watch.is_complete,
            "endpoints": [asdict(endpoint) for endpoint in self._parts.endpoints.status()],
        }

    def _batches(self) -> Mapping[str, object]:
        states = in_order(self._parts.batches)
        return {
            "count": _counted(states),
            "unresolved": [
                _described(state) for state in states if state.is_open or state.batch is None
            ][:SHOWN_BATCHES],
        }

    def _outbox(self, now: float) -> list[Mapping[str, object]]:
        return [
            {
                "nonce": slot.nonce,
                "fate": slot.fate,
                "seconds": now - slot.since,
                "attempts": len(slot.rows),
                "batch": slot.last.batch_id,
                "transaction": slot.last.hash,
                "max_fee": slot.last.max_fee,
                "max_priority_fee": slot.last.max_priority_fee,
                "term": slot.last.term,
            }
            for slot in self._parts.transactor.slots
            if slot.rows
        ]

    def _responses(self) -> dict[str, int]:
        received = self._parts.intake.received
        ingress = self._parts.ingress.statistics
        return {
            "accepted": received.accepted,
            "refused": received.refused + sum(ingress.refused.values()),
            "repeated": received.repeated,
            "held": received.held,
            "unknown_operator": received.unknown_operator,
            "over_quota": received.over_quota,
        }

    # /metrics

    def snapshot(self) -> Snapshot:
        """Return the counts of all stages as of now."""
        parts = self._parts
        now = parts.clock()
        balance = parts.transactor.balance
        parts.metrics.upstream.price_bumps = parts.transactor.counters.bumped
        states = list(parts.batches)
        shares = [share for state in states if (share := _signed_share(state)) is not None]
        head, tip = parts.watch.head, parts.watch.tip
        verified = parts.verifier.statistics
        ingress = parts.ingress.statistics
        return Snapshot(
            version=self._version,
            bls_backend=parts.backend.name,
            leads=parts.role.leads,
            store_reachable=parts.group.is_store_reachable,
            outbox_readable=parts.group.is_outbox_readable,
            store_restored=parts.group.restored,
            term=parts.role.term or 0,
            responses=self._responses(),
            calls_held=len(parts.intake.held_operators),
            connections=ingress.connections_open,
            connections_closed={
                str(end): count for end, count in ingress.connections_ended.items()
            },
            verification_groups=verified.groups,
            verified_signatures=verified.signatures,
            journal_commits=parts.journal.counts.commits,
            journal_entries=parts.committer.committed,
            journal_bytes=_size(parts.journal),
            batches=_counted(states),
            signatures=sum(len(state.signatures) for state in states),
            parked=Counter(str(parked.reason) for parked in parts.submitter.parked),
            least_signed_share=min(shares, default=None),
            oldest_open_seconds=parts.story.oldest_open_seconds(),
            head_block=None if head is None else head.number,
            head_age_seconds=None if tip is None else max(0.0, time.time() - tip.header.timestamp),
            endpoints={each.name: each.healthy for each in parts.endpoints.status()},
            outbox=Counter(str(slot.fate) for slot in parts.transactor.slots),
            balance_ether=None if balance is None else balance / _ETHER,
            registered_operators=len(parts.registry),
            last_response_seconds={
                operator: now - at
                for operator, at in parts.intake.received.last_by_operator.items()
            },
            telemetry_dropped=parts.upstream.dropped,
        )


def in_order(states: Iterable[BatchState]) -> list[BatchState]:
    """Return batches on chain, the oldest first, then the others: anybody may invent those."""
    return sorted(
        states,
        key=lambda state: (state.batch is None, state.batch.created.number if state.batch else 0),
    )


def _counted(states: list[BatchState]) -> dict[str, int]:
    counted = {"open": 0, "answered": 0, "not_on_chain": 0}
    for state in states:
        if state.is_open:
            counted["open"] += 1
        else:
            counted["answered" if state.answered else "not_on_chain"] += 1
    return counted


def _described(state: BatchState) -> Mapping[str, object]:
    batch, operators = state.batch, state.operators
    counted = None if operators is None else quorum.tally(operators, state.signatures)
    return {
        "batch": state.batch_id,
        "merkle_root": None if batch is None else batch.merkle_root,
        "sender": None if batch is None else batch.sender,
        "block": None if batch is None else batch.created.number,
        "signatures": len(state.signatures),
        "signed_stake": None if counted is None else counted.signed,
        "total_stake": None if counted is None else counted.total,
        "quorum": None if counted is None else counted.is_quorum,
    }


def _signed_share(state: BatchState) -> float | None:
    if not state.is_open or state.operators is None or not state.operators.total:
        return None
    counted = quorum.tally(state.operators, state.signatures)
    return counted.signed / counted.total


def _size(journal: Journal) -> int:
    try:
        return journal.path.stat().st_size
    except OSError:
        return 0
