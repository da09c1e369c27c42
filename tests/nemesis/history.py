"""What was seen during a run: facts without judgement.

Times are seconds since the epoch by the one clock of this machine, whoever took them: daemons in
their log lines, Redis servers in the ids of their stream, this process for everything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aligned.telemetry.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from aligned.model import BatchId, OperatorId, TransactionHash

Pair = tuple["BatchId", "OperatorId"]
"""One operator's signature on one batch."""

Moment = tuple[int, int]
"""Place in the shared store's stream: milliseconds since the epoch, then a counter within one."""


@dataclass(frozen=True, slots=True)
class Post:
    """A batch was posted on chain."""

    number: int
    """Counted from 1."""
    batch_id: BatchId
    at: float


@dataclass(slots=True)
class Call:
    """An operator's attempt: a call, or a dial instead of one."""

    batch_id: BatchId
    operator_id: OperatorId
    opened: float
    ended: float | None = None
    """None: neither answered nor closed."""
    code: int | None = None
    """The reply, if there was one without an error."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction of the aggregator's account that is on chain."""

    transaction: TransactionHash
    block: int
    succeeded: bool
    gas: int
    answers: BatchId | None
    """None: no answer; a cancellation."""
    non_signers: frozenset[OperatorId]
    """Whose signatures an answer lacks."""


@dataclass(frozen=True, slots=True)
class Leading:
    """A replica said in its log that it leads: its claim had been confirmed."""

    replica: str
    term: int
    holder: str
    at: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A replica said in its log that an endpoint took a transaction."""

    replica: str
    transaction: TransactionHash
    at: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A term began in the stream of a Redis server. Not every such claim was confirmed."""

    term: int
    holder: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class Row:
    """A transaction was written into the outbox: seen in a Redis server's stream, or on a disk."""

    transaction: TransactionHash
    term: int
    batch_id: BatchId | None
    moment: Moment | None
    """None: only a journal has it."""
    writer: str
    """Who wrote it: its leader, or a replica that brings back what a server forgot."""


@dataclass(frozen=True, slots=True)
class Exit:
    """A replica's process ended without having been told to, or not in good order."""

    replica: str
    status: int
    at: float


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault began or was mended, or something about it is worth a line."""

    step: int
    text: str
    at: float
    kinds: tuple[str, ...] = ()
    """The faults that were carried out; told when the step is over."""


@dataclass(slots=True)
class History:
    """Everything, in the order in which it was seen."""

    posts: list[Post] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    mined: list[Mined] = field(default_factory=list)
    verified: dict[BatchId, list[TransactionHash]] = field(default_factory=dict)
    """The events that say so: the transactions that emitted them."""
    seen_verified: dict[BatchId, float] = field(default_factory=dict)
    """When this process saw the event."""
    leading: list[Leading] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    claims: list[Claimed] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    kept: dict[str, set[Pair]] = field(default_factory=dict)
    """What each replica's journal holds at the end."""
    final: set[BatchId] = field(default_factory=set)
    """Batches whose answers are final at the end: replicas may have forgotten them."""
    unmended: list[str] = field(default_factory=list)
    """What did not come right again in time."""
    ended: float = 0.0
    """When the last thing was looked at; open calls count until then."""


def write(history: History, file: Path) -> None:
    """Write ``history`` as JSON lines, one fact each with its kind."""
    with file.open("w") as lines:
        for kind, facts in _facts(history):
            lines.writelines(json.dumps({"kind": kind, "fact": plain(one)}) + "\n" for one in facts)


def _facts(history: History) -> Iterable[tuple[str, Iterable[object]]]:
    yield "post", history.posts
    yield "call", history.calls
    yield "mined", history.mined
    yield "verified", [(batch, *hashes) for batch, hashes in history.verified.items()]
    yield "seen verified", history.seen_verified.items()
    yield "leading", history.leading
    yield "sent", history.sent
    yield "claim", history.claims
    yield "row", history.rows
    yield "exit", history.exits
    yield "struck", history.struck
    yield "kept", [(name, len(pairs)) for name, pairs in history.kept.items()]
    yield "final", [len(history.final)]
    yield "unmended", history.unmended
    yield "ended", [history.ended]
