"""Stage: one response from the wire to its verdict, on every replica.

What costs nothing comes first; a signature that is already on its way is joined, whatever stage
it has reached; only what is new and could be right costs a pairing. Nothing here awaits: calls
come from ingress, verdicts from the verifier, and answers leave through the caller.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aggregator.ports import ReplyCode
from aligned.model import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from aggregator.batches import Batches
    from aggregator.ports import Caller, Clock, Commit, KnownOperator, Registry, Standing
    from aligned.bls.backend import Key
    from aligned.model import OperatorId, Response

logger = logging.getLogger(__name__)

HOLD_SECONDS = 60.0
"""How long a call of an unknown operator waits for the registry before it gets an RPC error."""

MAX_HELD = 4096
"""Calls of unknown operators held at once."""

MAX_FAILURES = 3
"""Signatures that do not verify before their connection is closed."""

HIGH_WATER = 8192
"""Signatures that are not durable yet at which ingress is told to stop reading."""

LOW_WATER = 4096
"""And at which it may go on."""

_REFUSALS_TOLD_SECONDS = 0.1

UNKNOWN_OPERATOR = "operator is not registered as of the latest block; retry"
OVER_QUOTA = "too many batches that are not on chain; retry"
TOO_MANY_HELD = "too many calls of operators not known yet; retry"


class Incoming:
    """One unique signature on its way in, with every call that waits for it."""

    __slots__ = ("calls", "entry", "judged", "key", "since", "standing", "withdrawn")

    def __init__(
        self, entry: Entry, key: Key, standing: Standing, call: tuple[Caller, int], since: float
    ) -> None:
        self.entry = entry
        self.key = key
        self.standing = standing
        self.calls = [call]
        self.since = since
        self.judged = False
        """Whether it needs no verdict, or has one."""
        self.withdrawn = False
        """Whether every connection that brought it went away before its verdict."""

    def answer(self, code: ReplyCode) -> None:
        """Answer every call that waits."""
        for caller, seq in self.calls:
            caller.answer(seq, code)

    def fail(self, error: str) -> None:
        """Give every call that waits an RPC error."""
        for caller, seq in self.calls:
            caller.fail(seq, error)

    def hang_up(self) -> None:
        """Close every connection that waits, so that its operator tries again elsewhere."""
        for caller, _ in self.calls:
            caller.hang_up()


@dataclass(slots=True)
class Held:
    """A call of an operator that is not known yet."""

    response: Response
    caller: Caller
    seq: int
    since: float


@dataclass(slots=True)
class Received:
    """What became of responses since the start."""

    accepted: int = 0
    refused: int = 0
    repeated: int = 0
    """Joined one that was on its way, or repeated one that is kept."""
    held: int = 0
    unknown_operator: int = 0
    over_quota: int = 0
    last_by_operator: dict[OperatorId, float] = field(default_factory=dict)
    """When each operator's latest verified response arrived; clock of the stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The stages around this one."""

    check: Callable[[Incoming], None]
    """Queues a signature for its verdict, which comes back through ``judge``."""
    commit: Callable[[Incoming], None]
    """Queues a verified signature; whoever commits it calls ``done``."""
    pause: Callable[[], None]
    """Too much waits to be durable: stop reading."""
    resume: Callable[[], None]
    """There is room again."""
    measure: Callable[[Commit], None]
    """Hears of every commit."""


class Intake:
    """Takes responses from ingress; implements ``Receiver``.

    Args:
        batches: The memory.
        registry: Known operators.
        neighbours: The stages around.
        clock: Seconds.
    """

    def __init__(
        self,
        batches: Batches,
        registry: Registry,
        neighbours: Neighbours,
        clock: Clock,
    ) -> None:
        self._batches = batches
        self._registry = registry
        self._check = neighbours.check
        self._commit = neighbours.commit
        self._neighbours = neighbours
        self._paused = False
        self._clock = clock
        self._incoming: dict[Entry, Incoming] = {}
        self._told_at = -_REFUSALS_TOLD_SECONDS
        self._untold = 0
        """Refusals since the last one that was logged."""
        self._held: list[Held] = []
        self.received = Received()

    @property
    def unfinished(self) -> int:
        """Signatures that are not durable yet: what back-pressure counts."""
        return len(self._incoming)

    @property
    def held_operators(self) -> list[OperatorId]:
        """Operators that calls are held for, without repeats, the longest waiting first."""
        return list(dict.fromkeys(held.response.operator_id for held in self._held))

    def receive(self, response: Response, caller: Caller, seq: int) -> None:
        """See ``Receiver.receive``."""
        entry = Entry(response.batch_id, response.operator_id, response.signature)
        incoming = self._incoming.get(entry)
        if incoming is not None:
            self.received.repeated += 1
            incoming.calls.append((caller, seq))
            return
        known = self._registry.operator(response.operator_id)
        if known is None:
            self._hold(response, caller, seq)
        else:
            self._admit(entry, known, caller, seq)

    def _admit(self, entry: Entry, known: KnownOperator, caller: Caller, seq: int) -> None:
        if not self._batches.has_room(entry.batch_id, entry.operator_id):
            self.received.over_quota += 1
            caller.fail(seq, OVER_QUOTA)
            return
        incoming = Incoming(entry, known.key, caller.standing, (caller, seq), self._clock())
        self._incoming[entry] = incoming
        if len(self._incoming) >= HIGH_WATER and not self._paused:
            self._paused = True
            self._neighbours.pause()
        if self._batches.signature(entry.batch_id, entry.operator_id) == entry.signature:
            # Verified before, so no pairing; but only an own commit is a reason to answer.
            self.received.repeated += 1
            incoming.judged = True
            self._commit(incoming)
        else:
            self._check(incoming)

    def dropped(self, caller: Caller) -> None:
        """See ``Receiver.dropped``.

        What a connection without merit leaves behind is not checked any more: whoever dials and
        goes could otherwise keep the verifier busy and ingress paused.
        """
        self._held = [held for held in self._held if held.caller is not caller]
        if not caller.standing.is_proven:
            for incoming in list(self._incoming.values()):
                if not incoming.judged:
                    self._leave(incoming, caller)

    def _leave(self, incoming: Incoming, caller: Caller) -> None:
        incoming.calls = [call for call in incoming.calls if call[0] is not caller]
        if not incoming.calls:
            incoming.withdrawn = True
            self._finish(incoming)

    # Verdicts and commits.

    def judge(self, verdicts: Iterable[tuple[Incoming, bool]]) -> None:
        """Take the verifier's verdicts: what is good goes on to be committed."""
        for incoming, is_good in verdicts:
            incoming.judged = True
            if incoming.withdrawn:
                continue
            if is_good:
                self._keep(incoming)
            else:
                self._refuse(incoming)

    def _keep(self, incoming: Incoming) -> None:
        batch_id, operator_id, _ = incoming.entry
        self.received.last_by_operator[operator_id] = incoming.since
        if self._batches.is_final(batch_id):
            # Too late to be of use, and nothing that could be lost.
            self.done(incoming)
        elif self._batches.has_room(batch_id, operator_id):
            self._commit(incoming)
        else:  # others of the same operator were admitted while this one was checked
            self.received.over_quota += 1
            self._finish(incoming)
            incoming.fail(OVER_QUOTA)

    def _refuse(self, incoming: Incoming) -> None:
        self._finish(incoming)
        self.received.refused += len(incoming.calls)
        self._tell_refused(incoming)
        incoming.answer(ReplyCode.REFUSED)
        first, _ = incoming.calls[0]
        if first.standing is incoming.standing and incoming.standing.failures >= MAX_FAILURES:
            first.hang_up()

    def _tell_refused(self, incoming: Incoming) -> None:
        """Log one refusal, at most one each tenth of a second: junk must not fill a disk."""
        now = self._clock()
        if now - self._told_at < _REFUSALS_TOLD_SECONDS:
            self._untold += 1
            return
        caller, _ = incoming.calls[0]
        logger.info(
            "signature does not verify",
            extra={
                "batch": incoming.entry.batch_id,
                "operator": incoming.entry.operator_id,
                "source": caller.source,
                "not_told": self._untold,
            },
        )
        self._told_at, self._untold = now, 0

    def done(self, incoming: Incoming) -> None:
        """Answer a signature that is durable."""
        self._finish(incoming)
        self.received.accepted += len(incoming.calls)
        incoming.answer(ReplyCode.ACCEPTED)

    def committed(self, commit: Commit) -> None:
        """Pass on what a commit took."""
        self._neighbours.measure(commit)

    def given_up(self, incoming: Incoming) -> None:
        """Hang up on a signature whose commit was not confirmed; its operator sends it again."""
        self._finish(incoming)
        incoming.hang_up()

    def _finish(self, incoming: Incoming) -> None:
        del self._incoming[incoming.entry]
        if self._paused and len(self._incoming) <= LOW_WATER:
            self._paused = False
            self._neighbours.resume()

    # Operators that are not known yet.

    def _hold(self, response: Response, caller: Caller, seq: int) -> None:
        if len(self._held) >= MAX_HELD:
            self.received.unknown_operator += 1
            caller.fail(seq, TOO_MANY_HELD)
            return
        self.received.held += 1
        self._held.append(Held(response, caller, seq, self._clock()))

    def recheck(self, asked: Collection[OperatorId], began: float) -> None:
        """Look again at held calls.

        Args:
            asked: Operators that the chain was just asked about: whose call came before that and
                who is still unknown gets an error.
            began: When asking began, on the stage's clock.
        """
        if not self._held:
            return
        now = self._clock()
        held, self._held = self._held, []
        for call in held:
            known = self._registry.operator(call.response.operator_id)
            if known is not None:
                self.receive(call.response, call.caller, call.seq)
            elif (call.response.operator_id in asked and call.since < began) or (
                now - call.since >= HOLD_SECONDS
            ):
                self.received.unknown_operator += 1
                call.caller.fail(call.seq, UNKNOWN_OPERATOR)
            else:
                self._held.append(call)
