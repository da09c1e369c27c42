"""Stage: signatures wait in lanes, and get their verdicts in groups.

Whatever waits when the backend becomes free forms the next call: a lone signature waits for
nothing, and under load one check serves many; under high load calls are a little apart, so that
more join. Every signature still gets its own verdict.

Who brought a signature decides its lane, so that junk costs those who send it: connections that
never failed and have shown a good signature, connections that have shown nothing, and
connections that failed, whose signatures are checked one by one. While several lanes wait, they
share the time 12 : 4 : 1.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, NamedTuple, NoReturn, Protocol, TypeVar

from aligned.bls.backend import Group, Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.ports import Clock, Standing
    from aligned.bls.backend import Backend, Key
    from aligned.model import BatchId, Entry, OperatorId

MESSAGE_POINTS = 4096
"""Batches whose points are remembered."""


class Check(Protocol):
    """One signature that waits for its verdict; its entry is unique among those that wait."""

    @property
    def entry(self) -> Entry: ...

    @property
    def key(self) -> Key:
        """The operator's."""

    @property
    def standing(self) -> Standing:
        """That of the connection which brought it first."""

    @property
    def withdrawn(self) -> bool:
        """Whether nobody wants the verdict any more; one may come all the same."""


C = TypeVar("C", bound=Check)


class Lane(Enum):
    """Where a signature waits; the value is its share of the time."""

    PROVEN = 12
    NEW = 4
    SUSPECT = 1


class Bounds(NamedTuple):
    """The most that one call of the backend gets, so that what comes next waits ms, not longer."""

    signatures: int
    messages: int
    unproven: int
    """Signatures, in the lane of new connections: all of them may be bad, at two checks each."""


BOUNDS = {
    Runs.THREAD: Bounds(512, 64, 64),
    Runs.LOOP: Bounds(64, 12, 8),
    Runs.PROCESS: Bounds(64, 16, 8),
}
"""About 15 ms, 10 ms (of a loop that stands still) and 3 s, by ``bench/bls.py``."""


LINGER_AFTER = 16
"""Signatures in a call that show a load under which waiting pays: each message in a call costs as
much CPU time as 30 signatures on it. By ``bench/bls.py`` it saves a third of the stage's CPU time
from 4,000 signatures a second on, and changes nothing up to 2,000."""

LINGER_SECONDS = 0.003
"""The most that the next call is put off then; never longer than the last one took."""


@dataclass(slots=True)
class Statistics:
    """What was verified since the start."""

    calls: int = 0
    """Of the backend."""
    groups: int = 0
    """Signatures on one message in one call."""
    signatures: int = 0
    failures: int = 0
    """Signatures that did not verify."""
    seconds: float = 0.0
    """In the backend."""
    largest_group: int = 0


class _Queue(Generic[C]):
    """One lane: first come, first served."""

    __slots__ = ("checks", "used")

    def __init__(self) -> None:
        self.checks: deque[C] = deque()
        self.used = 0.0
        """Seconds of the backend over the lane's share; the least one is next."""


class Verifier(Generic[C]):
    """Gives every submitted signature one verdict, unless it is withdrawn before its turn.

    Args:
        backend: The arithmetic.
        on_verdicts: Gets the verdicts of each call, in the loop, in order of submission. The
            standings count them already. Must not raise.
        clock: Seconds, to share the backend's time.

    Error handling:
        What the backend raises ends ``run``. Cancellation drops what waits, without verdicts.
    """

    def __init__(
        self,
        backend: Backend,
        on_verdicts: Callable[[list[tuple[C, bool]]], None],
        clock: Clock = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._on_verdicts = on_verdicts
        self._clock = clock
        self._bounds = BOUNDS[backend.runs]
        self._lanes: dict[Lane, _Queue[C]] = {lane: _Queue() for lane in Lane}
        self._floor = 0.0
        """``used`` of the lane served last, when its turn began."""
        self._rivals: Counter[_Pair] = Counter()
        """Different signatures without verdict; absent when none."""
        self._submitted = asyncio.Event()
        self._point = functools.lru_cache(maxsize=MESSAGE_POINTS)(backend.hash_to_g1)
        self.pending = 0
        """Signatures without verdict."""
        self.statistics = Statistics()

    def submit(self, check: C) -> None:
        """Queue ``check`` for its verdict. Never blocks; the caller bounds what is pending."""
        self.pending += 1
        self._enqueue(check)
        self._submitted.set()

    async def run(self) -> NoReturn:
        """Verify what is submitted, one call of the backend after the other."""
        if self._backend.runs is Runs.LOOP:
            while True:
                self._deliver(self._judge(await self._next()))
                await asyncio.sleep(0)  # the loop's other work comes between two calls
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="bls")
        try:
            while True:
                judged = await loop.run_in_executor(thread, self._judge, await self._next())
                self._deliver(judged)
                if len(judged.turn.checks) >= LINGER_AFTER:
                    await asyncio.sleep(min(judged.seconds, LINGER_SECONDS))
        finally:
            thread.shutdown(wait=False)  # it is done in a moment, and nobody waits for it

    # Lanes.

    def _enqueue(self, check: C) -> None:
        name = lane(check.standing)
        queue = self._lanes[name]
        if not queue.checks:  # no credit for time it had no use for
            queue.used = max(queue.used, self._floor)
        queue.checks.append(check)
        self._rivals[_pair(name, check.entry)] += 1

    def _forget(self, name: Lane, entry: Entry) -> None:
        pair = _pair(name, entry)
        self._rivals[pair] -= 1
        if not self._rivals[pair]:
            del self._rivals[pair]

    async def _next(self) -> _Turn[C]:
        """Wait for signatures and return those of the next call; at least one."""
        while True:
            waiting = [name for name, queue in self._lanes.items() if queue.checks]
            if not waiting:
                self._submitted.clear()
                await self._submitted.wait()
                continue
            name = min(waiting, key=lambda name: self._lanes[name].used)
            if checks := self._take(name):
                self._floor = self._lanes[name].used
                return _Turn(name, checks)

    def _take(self, name: Lane) -> list[C]:
        """Remove what the next call checks from a lane; nothing if none of it is left there."""
        queue = self._lanes[name].checks
        limit = self._bounds.signatures if name is Lane.PROVEN else self._bounds.unproven
        taken: list[C] = []
        passed: list[C] = []
        seen = _Seen(set(), set())
        while queue and len(taken) < limit and len(passed) < limit:
            check = queue.popleft()
            if check.withdrawn:
                self._forget(name, check.entry)
                self.pending -= 1
            elif lane(check.standing) is not name:  # a verdict came meanwhile
                self._forget(name, check.entry)
                self._enqueue(check)
            elif self._is_checked_alone(name, check.entry):
                if not taken:
                    taken.append(check)
                else:
                    passed.append(check)
                break
            elif self._fits(name, check, seen):
                taken.append(check)
            else:
                passed.append(check)
        queue.extendleft(reversed(passed))
        return taken

    def _fits(self, name: Lane, check: C, seen: _Seen) -> bool:
        """Tell whether a call with what was ``seen`` may have ``check`` too, and add it then."""
        batch_id = check.entry.batch_id
        if batch_id not in seen.batches and len(seen.batches) >= self._bounds.messages:
            return False
        if name is Lane.NEW:  # one of each: its verdict tells where the others belong
            if check.standing in seen.connections:
                return False
            seen.connections.add(check.standing)
        seen.batches.add(batch_id)
        return True

    def _is_checked_alone(self, name: Lane, entry: Entry) -> bool:
        """Tell whether ``entry`` would make a group fail too likely.

        Several signatures in one operator's name on one batch: at most one is right. A proven
        connection's is kept from a group by another proven one's only, or junk that waits in
        the other lanes could undo the grouping.
        """
        if name is Lane.SUSPECT:
            return True
        rivals = self._rivals[_pair(Lane.PROVEN, entry)]
        if name is not Lane.PROVEN:
            rivals += self._rivals[_pair(Lane.NEW, entry)]
        return rivals > 1

    # Verdicts.

    def _judge(self, turn: _Turn[C]) -> _Judged[C]:
        """Ask the backend; in the worker thread, or in the loop."""
        began = self._clock()
        by_batch: dict[BatchId, list[C]] = {}
        for check in turn.checks:
            by_batch.setdefault(check.entry.batch_id, []).append(check)
        groups = [
            Group(
                self._point(batch_id),
                [check.entry.signature for check in checks],
                [check.key for check in checks],
            )
            for batch_id, checks in by_batch.items()
        ]
        bad = self._backend.bad_signatures(groups)
        seconds = self._clock() - began
        return _Judged(turn, list(by_batch.values()), bad, seconds)

    def _deliver(self, judged: _Judged[C]) -> None:
        turn, groups, bad, seconds = judged
        failed = {
            id(checks[position])
            for checks, positions in zip(groups, bad, strict=True)
            for position in positions
        }
        self._lanes[turn.lane].used += seconds / turn.lane.value
        self._count(judged, len(failed))
        verdicts = []
        for check in turn.checks:
            good = id(check) not in failed
            if good:
                check.standing.verified += 1
            else:
                check.standing.failures += 1
            self._forget(turn.lane, check.entry)
            verdicts.append((check, good))
        self.pending -= len(verdicts)
        self._on_verdicts(verdicts)

    def _count(self, judged: _Judged[C], failures: int) -> None:
        statistics = self.statistics
        statistics.calls += 1
        statistics.groups += len(judged.groups)
        statistics.signatures += len(judged.turn.checks)
        statistics.failures += failures
        statistics.seconds += judged.seconds
        largest = max(len(group) for group in judged.groups)
        statistics.largest_group = max(statistics.largest_group, largest)


class _Turn(NamedTuple, Generic[C]):
    """What one call of the backend checks."""

    lane: Lane
    checks: list[C]


class _Seen(NamedTuple):
    """What the next call has already."""

    batches: set[BatchId]
    connections: set[Standing]


class _Judged(NamedTuple, Generic[C]):
    """A call that came back."""

    turn: _Turn[C]
    groups: Sequence[Sequence[C]]
    """The checks by message."""
    bad: list[list[int]]
    """Positions in each group."""
    seconds: float


_Pair = tuple[bool, "BatchId", "OperatorId"]
"""Whether it waits in the lane of proven connections, batch and operator."""


def _pair(name: Lane, entry: Entry) -> _Pair:
    return name is Lane.PROVEN, entry.batch_id, entry.operator_id


def lane(standing: Standing) -> Lane:
    """Return where signatures of a connection with this history wait."""
    if standing.failures:
        return Lane.SUSPECT
    return Lane.PROVEN if standing.verified else Lane.NEW
