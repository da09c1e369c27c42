"""What the stages need from the outside: protocols, with the contract of each written once.

Every implementation of a port, fakes included, passes the same suite in ``tests/contracts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aligned.errors import Deposed, StateDamaged, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.outbox import OutboxRow
    from aligned.bls.backend import Key
    from aligned.model import (
        BatchId,
        BlockRef,
        Entry,
        Operator,
        OperatorId,
        OperatorSet,
        Response,
        Term,
    )


class ReplyCode(IntEnum):
    """The byte an operator gets back.

    The Go operator treats every one as success, so 1 is given only for facts that cannot change.
    """

    ACCEPTED = 0
    """Stored durably by this replica."""
    REFUSED = 1
    """Never right as sent: wrong hash, or a bad signature under a known key."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the chain has settled."""

    height: int
    """0 while the chain is behind the time: see ``Watch.height``."""
    finalized: int
    oldest: int
    """First block of the expiry window."""


class Commit(NamedTuple):
    """One group that went through."""

    signatures: int
    journal_seconds: float
    """In the journal, with its fsync."""
    oldest_seconds: float
    """From the arrival of its first signature to the answers."""


class Clock(Protocol):
    """Seconds that never step back; only differences mean anything."""

    def __call__(self) -> float: ...


class Standing:
    """What a connection has shown so far; decides how its next signature is checked."""

    __slots__ = ("failures", "verified")

    def __init__(self) -> None:
        self.verified = 0
        """Signatures of this connection that verified."""
        self.failures = 0
        """Signatures of this connection that did not."""

    @property
    def is_proven(self) -> bool:
        """Whether it has shown a good signature and no bad one."""
        return self.verified > 0 and self.failures == 0


class Caller(Protocol):
    """One operator's connection as the stages see it.

    All methods return at once, and do nothing once the connection is gone.
    """

    @property
    def standing(self) -> Standing:
        """The connection's history, shared by all its calls."""

    @property
    def source(self) -> str:
        """Peer address for logs."""

    def answer(self, seq: int, code: ReplyCode) -> None:
        """Reply to call ``seq`` with ``code``."""

    def fail(self, seq: int, error: str) -> None:
        """Reply to call ``seq`` with an RPC error: a Go operator sends it again after 10 s."""

    def hang_up(self) -> None:
        """Close without answering what is open: a Go operator reconnects and sends it again."""


class Receiver(Protocol):
    """Takes what ingress decoded."""

    def receive(self, response: Response, caller: Caller, seq: int) -> None:
        """Take one response; ``caller`` is answered or hung up on later. Never blocks or raises."""

    def dropped(self, caller: Caller) -> None:
        """Forget the open calls of a connection that is gone. What they brought is kept."""


class KnownOperator(Protocol):
    """A registered operator with its decoded key."""

    @property
    def operator(self) -> Operator: ...

    @property
    def key(self) -> Key: ...


class Registry(Protocol):
    """Operators' keys (append-only) and stakes at a block."""

    def operator(self, operator_id: OperatorId) -> KnownOperator | None:
        """Return the operator if its registration was seen. Memory only."""

    @property
    def synced(self) -> BlockRef | None:
        """The head up to which registrations are complete; None before the first scan."""

    async def operators_at(self, block: BlockRef) -> OperatorSet:
        """Return quorum 0 as of ``block``. Repeats are free.

        Raises:
            ChainUnavailable: No endpoint answers, or none has ``block`` in its chain.
        """


class Store(Protocol):
    """What replicas share. The single-process implementation keeps it in the journal.

    Every write a leader makes carries its term and is refused when the fence is not exactly
    (term, holder).
    """

    async def put(self, entries: Sequence[Entry]) -> None:
        """Share ``entries``; returns when they are confirmed as durable. Repeats are harmless.

        Raises:
            StoreUnavailable: Not confirmed in time. They may be stored all the same.
        """

    async def claim(self, term: Term, holder: str) -> Sequence[OutboxRow]:
        """Make (``term``, ``holder``) the fence and return the whole outbox.

        Raises:
            Deposed: The fence is higher, or equal with another holder.
            StoreUnavailable: Not confirmed in time. ``OutboxUnreadable`` where a row cannot be
                read: the fence is (``term``, ``holder``), and the term must not begin.
        """

    async def record(self, term: Term, holder: str, row: OutboxRow) -> None:
        """Persist one outbox row (write-once: the same key with the same bytes is a repeat).

        Raises:
            Deposed: (``term``, ``holder``) is not the fence. Nothing was written.
            StateDamaged: The key holds other bytes. Nothing was written. ``RowTaken`` where a
                successor of the term finds the other row.
            StoreUnavailable: Not confirmed in time.
        """

    async def drop_rows(self, term: Term, holder: str, rows: Sequence[OutboxRow]) -> None:
        """Forget outbox rows whose nonce is final. Same errors as ``record``."""

    async def evict(self, term: Term, holder: str, entries: Sequence[Entry]) -> None:
        """Delete each entry if it still has exactly this signature, and remember it as refuted."""

    async def forget(self, batches: Sequence[BatchId]) -> None:
        """Drop all signatures of ``batches``: their answers are final, or they expired."""


class RowTaken(StateDamaged):
    """An outbox key holds another transaction. Nothing was written, and what is there counts."""


class OutboxUnreadable(StoreUnavailable):
    """The shared outbox holds a row that this release cannot read.

    Who answers beside it could answer twice or spoil a nonce. Another release may read it.
    """


class End(StrEnum):
    """How the work of a term ends."""

    LOST = "lost"
    """Another replica leads."""
    SUSPENDED = "suspended"
    """Nobody confirms the term; it is kept, and its work may go on later."""
    UNFIT = "unfit"
    """This replica gave it up: it could not do the work."""
    ASKED = "asked"
    """A person, or the end of the process, wanted it."""


class TermOver(Deposed):
    """The work of a term must stop now.

    Attributes:
        end: How it ends.
    """

    def __init__(self, end: End, why: str) -> None:
        super().__init__(why)
        self.end = end


class Leadership(Protocol):
    """Who leads. A term is acquired, kept for as long as it lasts, and released."""

    async def acquire(self) -> tuple[Term, str]:
        """Wait until this replica leads; return term and holder (a name unique to this start)."""

    async def keep(self, term: Term) -> None:
        """Return when ``term`` is over; never before.

        Raises:
            TermOver: The same, and it says how.
        """

    def require(self, term: Term) -> None:
        """Make sure that ``term`` may have effects right now; asked before each one.

        Raises:
            Deposed: It may not.
        """

    async def release(self, term: Term) -> None:
        """Give ``term`` up so that another replica can lead at once; the work has stopped."""
