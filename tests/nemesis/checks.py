"""What must hold of a history, whatever was broken: pure functions, each able to fail.

Each returns what it counted and its problems as sentences; no problems means that nothing was
found, within what the docstring says the check can see.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aligned.model import BatchId, OperatorId, TransactionHash
    from tests.nemesis.history import Call, History, Mined, Moment, Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the configuration of a run allows."""

    needed: int
    """Operators that make a quorum, all stakes being equal."""
    window: float
    """Seconds the leader waits for late signatures after a quorum."""
    slack: float
    """Seconds a signature may take from its acknowledgement by one replica to the leader's memory
    within a term: a lease, for a leader that is cut off for less goes on, and some scheduling."""
    call: float
    """Seconds after which an open call hangs: a replica stands still for at most 20, holds a call
    for at most 25, and machines are slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """What became of acknowledged signatures."""

    acknowledged: int
    counted: int
    """Part of an answer."""
    late: int
    """Not part of the answer, and acknowledged too late to demand it."""
    problems: tuple[str, ...]
    lost: int


def signatures(history: History, bounds: Bounds) -> Signatures:
    """Find acknowledged signatures that were lost.

    A pair of batch and operator is acknowledged from the moment an operator reads reply 0. It is
    lost if

    * its batch was answered without it, although it had been acknowledged before the answer's
      term began: a new leader unites everything before its first answer; or
    * its batch was answered without it, although it had been acknowledged ``slack`` before the
      earliest time at which the answer can have been decided. An answer with non-signers is
      decided when its quorum has stood for ``window``, and that many of its signers have not
      called before the last of them did; or
    * its batch is not final at the end (not answered, or not for long), and some replica's journal
      lacks it.

    Also a problem: an honest signature refused with reply 1, which its operator takes for success.

    What this proves: every acknowledged pair was in an answer on chain, or is on every replica's
    disk, or came too late for its answer. What it does not: that a late one of a final batch
    was kept until then; that a pair was on any given disk at any given time; anything about
    signatures that were never acknowledged. Operators' clocks start at the reply's arrival, so a
    loss in the microseconds between reply and arrival is judged as late.
    """
    acknowledged = _acknowledged(history.calls)
    answers = {one.answers: one for one in history.mined if one.answers and one.succeeded}
    calls = defaultdict(list)
    for call in history.calls:
        calls[call.batch_id].append(call)
    decided = {
        batch: _decided(one, calls[batch], history, bounds) for batch, one in answers.items()
    }
    problems: list[str] = []
    lost: set[Pair] = set()
    counted = late = 0
    for pair, at in acknowledged.items():
        batch, operator = pair
        answer = answers.get(batch)
        reason = ""
        if answer is not None and operator not in answer.non_signers:
            counted += 1
        elif answer is not None:
            reason = _missing_too_early(at, decided[batch])
            late += not reason
        lacking = sorted(name for name, kept in history.kept.items() if pair not in kept)
        if batch not in history.final and lacking:
            reason = reason or f"not in the journal of {', '.join(lacking)}"
        if reason:
            lost.add(pair)
            problems.append(
                f"signature of operator {operator.hex()[:8]} on batch {_named(batch, history)} "
                f"lost: acknowledged at {at:.3f}, {reason}"
            )
    problems += _refusals(history)
    return Signatures(
        acknowledged=len(acknowledged),
        counted=counted,
        late=late,
        problems=tuple(problems),
        lost=len(lost),
    )


def _acknowledged(calls: Iterable[Call]) -> dict[Pair, float]:
    first: dict[Pair, float] = {}
    for call in calls:
        if call.code == 0 and call.ended is not None:
            pair = call.batch_id, call.operator_id
            first[pair] = min(call.ended, first.get(pair, inf))
    return first


@dataclass(frozen=True, slots=True)
class _Decided:
    """Bounds from below on when an answer was decided; times of acknowledgements it must have."""

    term: int | None
    began: float
    """Of the term; -inf: not known."""
    quorum: float
    """Less the slack."""


def _decided(answer: Mined, calls: Iterable[Call], history: History, bounds: Bounds) -> _Decided:
    term = next((row.term for row in history.rows if row.transaction == answer.transaction), None)
    began = min((one.at for one in history.leading if one.term == term), default=-inf)
    opened: dict[OperatorId, float] = {}
    for call in calls:
        if call.operator_id not in answer.non_signers:
            opened[call.operator_id] = min(call.opened, opened.get(call.operator_id, inf))
    times = sorted(opened.values())
    reached = times[bounds.needed - 1] if len(times) >= bounds.needed else -inf
    return _Decided(term, began, reached + bounds.window - bounds.slack)


def _missing_too_early(at: float, decided: _Decided) -> str:
    if at < decided.began:
        return f"answered without it in term {decided.term}, which began at {decided.began:.3f}"
    if at < decided.quorum:
        return f"answered without it, decided {decided.quorum - at:.1f} s too late for that"
    return ""


def _refusals(history: History) -> list[str]:
    return [
        f"honest signature of operator {call.operator_id.hex()[:8]} on batch "
        f"{_named(call.batch_id, history)} got reply {call.code}"
        for call in history.calls
        if call.code not in {None, 0}
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What is on chain."""

    posted: int
    answered: int
    twice: int
    wasted: int
    """Answers that were mined and reverted: their gas is gone."""
    problems: tuple[str, ...]


def answers(history: History) -> Answers:
    """Find batches that were not answered exactly once, and transactions nobody wrote down.

    Exactly one ``BatchVerified`` event a batch. Counted apart: answers of ours that were mined and
    reverted, a second answer that cost gas. Every mined transaction of the account must have been
    in the shared outbox.

    What this proves is what the chain says at the end of the run: it sees no answer that a node
    dropped from its pool.
    """
    found = answered_once(history)
    written = {row.transaction for row in history.rows}
    unwritten = [
        f"transaction 0x{one.transaction.hex()[:12]} in block {one.block} is in no outbox"
        for one in history.mined
        if one.transaction not in written
    ]
    return replace(found, problems=(*found.problems, *unwritten))


def answered_once(history: History) -> Answers:
    """The same where nobody could look into the outbox."""
    problems, twice, answered = [], 0, 0
    for post in history.posts:
        events = history.verified.get(post.batch_id, [])
        answered += bool(events)
        twice += len(events) > 1
        if len(events) != 1:
            told = ", ".join(f"0x{one.hex()[:12]}" for one in events) or "never"
            problems.append(f"batch {_named(post.batch_id, history)} was not answered once: {told}")
    reverted = [one for one in history.mined if one.answers and not one.succeeded]
    problems += [
        f"answer 0x{one.transaction.hex()[:12]} of batch {_named(one.answers, history)} reverted "
        f"in block {one.block}: {one.gas} gas wasted"
        for one in reverted
        if one.answers
    ]
    return Answers(
        posted=len(history.posts),
        answered=answered,
        twice=twice,
        wasted=len(reverted),
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who led."""

    terms: int
    effects: int
    problems: tuple[str, ...]


def terms(history: History) -> Terms:
    """Find two leaders of one term, terms that fall, and effects of a term that was over.

    A term is led by whoever logs that it leads: the claim was confirmed then. It began where its
    claim stands in the stream, or its first effect. An effect is a row of the outbox whose
    transaction was taken by an endpoint or mined; it happened where the row first appears.

    What this proves rests on the ids of the streams, which are times of one machine's clock: that
    order is total. What it does not see: writes that were lost with a server before they were
    read (they are read within milliseconds), and rows that were never broadcast; such a row of a
    deposed leader on a forked server has no effect. A late broadcast of a row that was written
    down in time is no effect of its own: the successor has the row and sends the same bytes.
    """
    holders: defaultdict[int, set[str]] = defaultdict(set)
    for leading in history.leading:
        holders[leading.term].add(leading.holder)
    problems = [
        f"term {term} had {len(names)} leaders: {', '.join(sorted(names))}"
        for term, names in sorted(holders.items())
        if len(names) > 1
    ]
    effects = _effects(history)
    began = _began(history, holders, effects)
    problems += _falling(began)
    for transaction, (term, moment) in effects.items():
        if term not in holders:
            problems.append(f"0x{transaction.hex()[:12]} is of term {term}, which nobody led")
        later = [other for other, since in began.items() if other > term and since < moment]
        if later:
            problems.append(
                f"0x{transaction.hex()[:12]} of term {term} was written down at {_told(moment)}, "
                f"after term {min(later)} began at {_told(began[min(later)])}"
            )
    return Terms(terms=len(holders), effects=len(effects), problems=tuple(problems))


def _effects(history: History) -> dict[TransactionHash, tuple[int, Moment]]:
    real = {one.transaction for one in history.sent} | {one.transaction for one in history.mined}
    effects: dict[TransactionHash, tuple[int, Moment]] = {}
    for row in history.rows:
        if row.transaction in real and row.moment is not None:
            known = effects.get(row.transaction)
            if known is None or row.moment < known[1]:
                effects[row.transaction] = (row.term, row.moment)
    return effects


def _began(
    history: History,
    holders: Mapping[int, set[str]],
    effects: Mapping[TransactionHash, tuple[int, Moment]],
) -> dict[int, Moment]:
    began: dict[int, Moment] = {}
    for claim in history.claims:
        if claim.holder in holders.get(claim.term, ()):
            began[claim.term] = min(claim.moment, began.get(claim.term, claim.moment))
    for term, moment in effects.values():
        began[term] = min(moment, began.get(term, moment))
    return began


def _falling(began: Mapping[int, Moment]) -> list[str]:
    order = sorted(began.items(), key=lambda item: item[1])
    return [
        f"term {term} began at {_told(moment)}, after term {before}"
        for (before, _), (term, moment) in pairwise(order)
        if term < before
    ]


def _told(moment: Moment) -> str:
    return f"{moment[0] / 1000:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How operators' calls ended."""

    calls: int
    longest: float
    """Seconds."""
    problems: tuple[str, ...]


def calls(history: History, bounds: Bounds) -> Calls:
    """Find calls that hung: open for longer than ``call`` seconds, ended at last or not.

    Dials that an operator makes instead of a call count too: they wait for the CONNECT.
    """
    longest, problems = 0.0, []
    for call in history.calls:
        lasted = (history.ended if call.ended is None else call.ended) - call.opened
        longest = max(longest, lasted)
        if lasted > bounds.call:
            end = "is open" if call.ended is None else f"ended ({call.problem or call.code})"
            problems.append(
                f"call of operator {call.operator_id.hex()[:8]} on batch "
                f"{_named(call.batch_id, history)}, opened at {call.opened:.3f}, {end} after "
                f"{lasted:.1f} s"
            )
    return Calls(calls=len(history.calls), longest=longest, problems=tuple(problems))


def recovery(history: History) -> tuple[str, ...]:
    """Find what did not come right by itself: processes that ended, steps that never mended."""
    ends = [f"{one.replica} ended with {one.status} at {one.at:.3f}" for one in history.exits]
    return (*ends, *history.unmended)


def _named(batch: BatchId, history: History) -> str:
    number = next((str(post.number) for post in history.posts if post.batch_id == batch), "?")
    return f"{number} ({batch.hex()[:8]})"
