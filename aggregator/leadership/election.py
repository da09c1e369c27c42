"""Who leads: the rule, as a function of what one replica has seen. Pure.

Safety comes from terms: each acquisition has a number of its own above all before it, and the
store refuses what carries another number. The lease on top keeps two replicas from trying at
once. Nothing here compares clocks of two machines: a replica measures how long *it* has not seen
the record change, so only the rate of clocks matters, within lease over deadline.

::

    holder      sends, is written      ├── renew ──┤ sends …            stops at sent + deadline
    standby              sees it change ├──────── lease ────────┤ may begin

The deadline counts from the sending of the last renewal that succeeded, the lease from when its
effect was seen, and the deadline is shorter: the holder has stopped before anybody begins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple, TypeAlias

LOOP_SECONDS = 1.0
"""A main loop that did not turn for so long is not fit to lead."""

STORE_SECONDS = 5.0
"""Without an answer of the store (for a leader: without its claim confirmed)."""

CHAIN_SECONDS = 10.0
"""Without a fresh head of the chain."""

DRAIN_SECONDS = 10.0
"""For work to stop before the lock is given up without it."""

_SILENCE = 2
"""Renewal periods without a word after which a standby asks instead of listening."""

_DEAFNESS = 3
"""Renewal periods without contact after which a standby cannot tell silence from an outage."""

TICK_SECONDS = 0.25
"""The longest wait between two decisions: what other threads publish is seen within it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How fast a lost leader is replaced, in seconds."""

    lease: float
    """Silence after which others may take over."""
    deadline: float
    """After the sending of its last renewal a leader stops; less than ``lease``."""
    renew: float
    """Between renewals."""


PROFILES = {
    "fast": Profile(lease=1.5, deadline=1.0, renew=0.35),
    "normal": Profile(lease=5.0, deadline=3.0, renew=1.0),
    "safe": Profile(lease=15.0, deadline=10.0, renew=2.0),
}


class Fence(NamedTuple):
    """The highest claim in the store, as far as this replica knows."""

    term: int = 0
    holder: str = ""

    def refuses(self, term: int, holder: str) -> bool:
        """Tell whether a claim of ``term`` by ``holder`` is behind."""
        return self.term > term or (self.term == term and self.holder != holder)


NOBODY = Fence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the lock says."""

    holder: str = ""
    """Unique to one start of one replica; empty: nobody."""
    term: int = 0
    """Of the last acquisition."""
    lease: float = 0.0
    """What the last holder promised, seconds."""
    handover_to: str = ""
    """Pod that a person wants to lead next."""
    fenced: frozenset[str] = frozenset()
    """Pods that a person does not want to lead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What the main loop last said of this replica; times by the elector's clock."""

    wanted: bool = False
    """Somebody waits for a term."""
    beat: float = -inf
    """When its loop last turned."""
    store: float = -inf
    """When the question was sent that the store answered last; for a leader with a claim: the
    question whether it still holds."""
    claimed: int | None = None
    """The term that was claimed last."""
    confirmed: float = -inf
    """When the last confirmation of that claim was asked for."""
    chain: float = -inf
    """When the chain last had a fresh head."""
    signs: bool = False
    """Our signer is the account the contract takes answers from, or no answers are sent."""
    operators: bool = False
    """Every operator that registered is known: the registry was read once."""
    window: bool = False
    """The expiry window was read once, and our journal compared with it."""
    refused_until: float = -inf
    """The store refused several terms in a row: somebody else's turn until then."""
    fence: Fence = NOBODY
    peers: frozenset[str] = frozenset()
    """Pods that were alive and fit lately."""
    outbox_readable: bool = True
    """Every row of the shared outbox could be read when it was read last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Who competes."""

    me: str
    """Holder name, unique to this start of this replica."""
    pod: str
    """What people call this replica."""
    profile: Profile
    fenced: bool = True
    """A store refuses the writes of who was replaced, so its word counts beside the lock's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything the rule looks at."""

    candidate: Candidate
    vitals: Vitals
    record: Record | None = None
    """None: never read."""
    changed: float = -inf
    """When this replica last saw the record change."""
    looked: float = -inf
    """When the lock was last read or written with success, or a watch showed it."""
    rest_until: float = -inf
    """Not to begin before: it gave up because it was not fit."""
    stagger: float = 0.0
    """Seconds after the others that we begin, so that candidates do not collide."""
    term: int | None = None
    """The one held; None: standby."""
    renewed: float = -inf
    """When the last write of this term that succeeded was sent."""
    next_renewal: float = -inf
    suspended: float | None = None
    """Since when the work is suspended."""
    ending: float | None = None
    """Since when the work is asked to stop, so that the lock can be given up."""
    drained: bool = False
    """The work has stopped."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Decide again at ``until``, or when something changes."""

    until: float


@dataclass(frozen=True, slots=True)
class Look:
    """Read the lock."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """Try to write ourselves into the lock with ``term``, if it is still as it was seen."""

    term: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Write the record again."""

    settle: bool = False
    """Without the wish for a handover: that pod cannot lead, or leads already."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop the work, keep the term."""

    why: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Start the work again in the same term."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the work to stop; the lock is given up when it has."""

    why: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give the lock up. The term ends, however that goes."""

    why: str
    rest: bool = False
    """Let others go first for one lease."""


@dataclass(frozen=True, slots=True)
class Lose:
    """The term is over; the lock is somebody else's, or must be won anew."""

    why: str


Step: TypeAlias = Wait | Look | Campaign | Renew | Suspend | Resume | Drain | Release | Lose


def unfit(vitals: Vitals, now: float) -> str | None:
    """Return why this replica must not lead; None: it may."""
    reasons = (
        (now - vitals.beat > LOOP_SECONDS, "its main loop hangs"),
        (now - vitals.store > STORE_SECONDS, "the shared store does not answer it"),
        (not vitals.outbox_readable, "it cannot read the shared outbox"),
        (now - vitals.chain > CHAIN_SECONDS, "it has no endpoint with a fresh head"),
        (not vitals.operators, "it has not read all operators from the registry yet"),
        (not vitals.window, "it has not read the window of batches yet"),
        (not vitals.signs, "its signer is not the aggregator of the contract"),
        (now < vitals.refused_until, "the store refused its terms"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def decide(view: View, now: float) -> Step:
    """Return what to do now."""
    if view.term is None:
        return _stand_by(view, now)
    if (lost := _lost(view)) is not None:
        return Lose(lost)
    if view.ending is not None:
        return _drain(view, view.ending, now)
    return _lead(view, now)


def _stand_by(view: View, now: float) -> Step:
    record = view.record
    soon = Wait(now + TICK_SECONDS)
    if record is None or now >= view.looked + _SILENCE * view.candidate.profile.renew:
        return Look()
    vitals = view.vitals
    if not vitals.wanted or view.candidate.pod in record.fenced or unfit(vitals, now) is not None:
        return soon
    begin = max(_may_begin(view, record), view.rest_until)
    if now < begin:
        return Wait(min(begin, soon.until))
    # The fence is heard of once a renewal period: our own last claim may be ahead of it.
    return Campaign(max(record.term, vitals.fence.term, vitals.claimed or 0) + 1)


def observed(view: View, now: float) -> View:
    """Return the view after the lock was seen, unchanged or not.

    Silence counts only as long as we could have heard something: after an outage of the lock the
    holder, who went on by the store's word, gets a lease's time to be heard again.
    """
    deaf = now - view.looked > _DEAFNESS * view.candidate.profile.renew
    return replace(view, looked=now, changed=now if deaf else view.changed)


def _may_begin(view: View, record: Record) -> float:
    """Return when the lock may be taken."""
    if record.holder == view.candidate.me:  # an answer was lost, or the fence refused the term
        return -inf
    if not record.holder and record.handover_to in {"", view.candidate.pod}:
        return view.changed + view.stagger
    return view.changed + max(record.lease, view.candidate.profile.lease) + view.stagger


def _lost(view: View) -> str | None:
    record, term = view.record, view.term
    if record is None or term is None:
        return None
    if record.holder != view.candidate.me or record.term != term:
        return f"the lock is held by {record.holder or 'nobody'} in term {record.term}"
    if view.vitals.fence.refuses(term, view.candidate.me):
        fence = view.vitals.fence
        return f"the store is fenced at term {fence.term} of {fence.holder or 'nobody'}"
    return None


def _drain(view: View, since: float, now: float) -> Step:
    if view.drained or now >= since + DRAIN_SECONDS:
        return Release("its work has stopped")
    why = unfit(view.vitals, now)
    return _keep(view, now) if why is None else Release(why, rest=True)


def _lead(view: View, now: float) -> Step:
    if view.drained and view.suspended is None:
        return Release("its work has ended")
    in_reach = now < max(view.renewed, view.looked) + view.candidate.profile.deadline
    why = unfit(view.vitals, now)
    if why is not None and in_reach:
        return Release(why, rest=True)
    if (step := _wished(view)) is not None:
        return step
    return _suspension(view, why, now) or (_keep(view, now) if why is None else _seek(view, now))


def _wished(view: View) -> Step | None:
    """Do what a person asked for."""
    record = view.record
    if record is None:
        return None
    if view.candidate.pod in record.fenced:
        return Drain("it is fenced off by hand")
    if record.handover_to in view.vitals.peers - record.fenced - {view.candidate.pod}:
        return Drain(f"it hands over to {record.handover_to}")
    return None


def _suspension(view: View, why: str | None, now: float) -> Step | None:
    """Suspend or resume where the lock is out of reach.

    The store's confirmation stands in for the lock's: it is refused once a successor claimed.
    Without a store only another renewal does.
    """
    if view.suspended is None:
        if why is not None:
            return Suspend(f"the lock is out of reach, and {why}")
        if now >= trusted_until(view):
            asked = "neither the lock nor the store" if view.candidate.fenced else "no renewal"
            return Suspend(f"{asked} confirms its term")
        return None
    word = _confirmed(view) if view.candidate.fenced else view.renewed
    if why is None and word > view.suspended:
        return Resume()
    return None


def _keep(view: View, now: float) -> Step:
    if now >= view.next_renewal:
        wish = "" if view.record is None else view.record.handover_to
        return Renew(settle=bool(wish) and view.ending is None)
    return Wait(min(view.next_renewal, now + TICK_SECONDS))


def _seek(view: View, now: float) -> Step:
    """Find out whether the lock is in reach again, without renewing what we are not fit for."""
    if now >= view.next_renewal:
        return Look()
    return Wait(min(view.next_renewal, now + TICK_SECONDS))


def _confirmed(view: View) -> float:
    vitals = view.vitals
    holds = view.candidate.fenced and vitals.claimed == view.term
    return vitals.confirmed if holds else -inf


def trusted_until(view: View) -> float:
    """Return until when the term held is sure to be ours without another word from outside."""
    return max(view.renewed, _confirmed(view)) + view.candidate.profile.deadline


def good_until(view: View) -> float:
    """Return until when the term's work may have effects; the past: not any more."""
    if view.term is None or view.suspended is not None or view.ending is not None:
        return -inf
    return trusted_until(view)
