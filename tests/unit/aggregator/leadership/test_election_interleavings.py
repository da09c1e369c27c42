"""The rule in every order of small worlds.

A world is a lock, a store's fence and two or three candidates. Writes are sent, and then arrive,
arrive without an answer, or are lost; a write whose sender gave up may still arrive later. Time is
in steps of one; every candidate's clock is the world's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from aggregator.leadership import election
from aggregator.leadership.election import (
    Campaign,
    Candidate,
    Fence,
    Look,
    Lose,
    Profile,
    Record,
    Release,
    Renew,
    Resume,
    Suspend,
    View,
    Vitals,
)

PROFILE = Profile(lease=3, deadline=2, renew=1)


@dataclass(frozen=True, slots=True)
class Write:
    """A write on its way to the lock."""

    version: int
    record: Record
    sent: float


@dataclass(frozen=True, slots=True)
class One:
    """A candidate."""

    view: View
    version: int = 0
    """Of the lock as it was seen."""
    sending: Write | None = None
    stray: Write | None = None
    """A write it gave up on; it may still arrive."""


@dataclass(frozen=True, slots=True)
class World:
    now: float
    lock: Record
    version: int
    fence: Fence
    ones: tuple[One, ...]

    def put(self, index: int, one: One) -> World:
        return replace(self, ones=(*self.ones[:index], one, *self.ones[index + 1 :]))


def begin(candidates: int, profile: Profile = PROFILE, *, fenced: bool = True) -> World:
    lock = Record(term=4)
    ones = tuple(
        One(
            View(
                candidate=Candidate(me=name, pod=name, profile=profile, fenced=fenced),
                vitals=Vitals(wanted=True, operators=True, window=True),
                record=lock,
                changed=0,
                looked=0,
            )
        )
        for name in "abc"[:candidates]
    )
    world = World(0, lock, 0, Fence(), ones)
    world = answered(step(world, 0), 0)  # the first one leads in term 5, and the others saw it
    for index in range(1, candidates):
        world = see(world, index)
    return world


def fit(world: World, view: View) -> View:
    fresh = {"beat": world.now, "store": world.now, "chain": world.now, "signs": True}
    return replace(view, vitals=replace(view.vitals, **fresh))  # type: ignore[arg-type] # floats


def step(world: World, index: int) -> World:
    """Let one candidate decide, and do what needs no answer."""
    one = world.ones[index]
    view = one.view
    match election.decide(fit(world, view), world.now):
        case Campaign(term):
            record = Record(holder=view.candidate.me, term=term, lease=PROFILE.lease)
            return world.put(index, send(world, one, view, record))
        case Renew():
            return world.put(index, send(world, one, view, view.record or Record()))
        case Release():
            record = replace(view.record or Record(), holder="")
            gone = replace(view, term=None, suspended=None)
            return world.put(index, send(world, one, gone, record))
        case Look():
            return see(world.put(index, replace(one, view=view)), index)
        case Suspend():
            view = replace(view, suspended=world.now)
        case Resume():
            view = replace(view, suspended=None)
        case Lose():
            view = replace(view, term=None, suspended=None)
        case _:
            pass
    return world.put(index, replace(one, view=view))


def send(world: World, one: One, view: View, record: Record) -> One:
    return replace(one, view=view, sending=Write(one.version, record, world.now))


def see(world: World, index: int) -> World:
    """Let one candidate read the lock."""
    one = world.ones[index]
    view = election.observed(one.view, world.now)
    if one.version != world.version:
        view = replace(view, record=world.lock, changed=world.now)
    return world.put(index, replace(one, view=view, version=world.version))


def apply(world: World, write: Write) -> tuple[World, bool]:
    """Compare and swap."""
    if write.version != world.version:
        return world, False
    return replace(world, lock=write.record, version=world.version + 1), True


def answered(world: World, index: int) -> World:
    """Let a write arrive, and its answer too."""
    one = world.ones[index]
    write = one.sending
    assert write is not None
    world, done = apply(world, write)
    world = see(world.put(index, replace(one, sending=None)), index)
    if not done:
        return world
    one = world.ones[index]
    view = replace(one.view, renewed=write.sent, next_renewal=write.sent + PROFILE.renew)
    if write.record.holder == view.candidate.me and view.term != write.record.term:
        view = replace(view, term=write.record.term, suspended=None)
    if not write.record.holder:
        view = replace(view, term=None)
    return world.put(index, replace(one, view=view))


def given_up(world: World, index: int) -> World:
    """Let a candidate stop waiting for an answer; the write is still on its way."""
    one = world.ones[index]
    view = replace(one.view, next_renewal=world.now + PROFILE.renew)
    return world.put(index, replace(one, view=view, sending=None, stray=one.sending))


def strayed(world: World, index: int) -> World:
    """Let a write arrive that nobody waits for."""
    one = world.ones[index]
    assert one.stray is not None
    world, _ = apply(world, one.stray)
    return world.put(index, replace(world.ones[index], stray=None))


def claim(world: World, index: int) -> World:
    """Let a holder claim its term in the store, or confirm the claim."""
    one = world.ones[index]
    view, term = one.view, one.view.term
    assert term is not None
    me = view.candidate.me
    if world.fence.refuses(term, me):
        view = replace(view, vitals=replace(view.vitals, fence=world.fence))
        return world.put(index, replace(one, view=view))
    vitals = replace(view.vitals, claimed=term, confirmed=world.now, fence=Fence(term, me))
    world = replace(world, fence=Fence(term, me))
    return world.put(index, replace(one, view=replace(view, vitals=vitals)))


def moves(world: World, *, claims: bool) -> Iterator[World]:
    yield replace(world, now=world.now + 1)
    for index, one in enumerate(world.ones):
        if one.version != world.version or one.view.looked != world.now:
            yield see(world, index)
        if one.stray is not None:
            yield strayed(world, index)
        if one.sending is None:
            yield step(world, index)
            if claims and one.view.term is not None:
                yield claim(world, index)
        else:
            yield answered(world, index)
            if one.stray is None:
                yield given_up(world, index)


def explore(world: World, depth: int, *, claims: bool) -> Iterator[tuple[World, World]]:
    """Yield each move to a world not seen before, up to ``depth`` moves from the first."""
    seen = {world}
    front = [world]
    for _ in range(depth):
        following = []
        for before in front:
            for after in moves(before, claims=claims):
                if after not in seen:
                    seen.add(after)
                    following.append(after)
                    yield before, after
        front = following


def good(world: World) -> list[int]:
    """Terms whose work may have effects now, in the eyes of their holders."""
    return [
        one.view.term
        for one in world.ones
        if one.view.term is not None and world.now < election.good_until(one.view)
    ]


@pytest.mark.parametrize(("candidates", "depth"), [(2, 11), (3, 9)])
def test_never_do_two_lead_at_once_and_terms_rise(candidates: int, depth: int) -> None:
    leaders: set[int] = set()
    worlds = 0
    for before, after in explore(begin(candidates), depth, claims=False):
        worlds += 1
        leading = good(after)
        leaders |= set(leading)
        assert len(leading) <= 1, after
        held = [one.view.term for one in after.ones if one.view.term is not None]
        assert len(set(held)) == len(held), after
        assert after.lock.term >= before.lock.term
        if after.lock.holder not in {"", before.lock.holder}:
            assert after.lock.term > before.lock.term
    assert worlds > 1_000
    assert {5, 6} <= leaders  # it did come to takeovers


def test_a_deadline_longer_than_the_lease_would_be_found_out() -> None:
    hasty = replace(PROFILE, deadline=5)
    assert any(len(good(world)) > 1 for _, world in explore(begin(2, hasty), 9, claims=False))


@pytest.mark.parametrize(("candidates", "depth"), [(2, 10), (3, 8)])
def test_with_claims_for_a_lock_effects_follow_the_terms(candidates: int, depth: int) -> None:
    failsafe = 0
    for before, after in explore(begin(candidates), depth, claims=True):
        assert after.fence.term >= before.fence.term
        assert after.fence == before.fence or after.fence.term > before.fence.term
        # An effect is let through for exactly the fence: at most one may have any.
        through = [
            one
            for one in after.ones
            if one.view.term is not None
            and after.now < election.good_until(one.view)
            and Fence(one.view.term, one.view.candidate.me) == after.fence
        ]
        assert len(through) <= 1
        failsafe += any(one.view.vitals.confirmed > one.view.renewed for one in through)
    assert failsafe  # somebody led on the store's word alone


def test_without_a_store_its_word_lets_nobody_go_on() -> None:
    terms: set[int] = set()
    for _, after in explore(begin(2, fenced=False), 10, claims=True):
        leading = good(after)
        terms |= set(leading)
        assert len(leading) <= 1, after
    assert {5, 6} <= terms


def everything_lost(world: World) -> World:
    """Give every candidate's write up and let it go nowhere."""
    for index in range(len(world.ones)):
        world = world.put(index, replace(world.ones[index], sending=None, stray=None))
    return world


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
def test_somebody_leads_again_whatever_happened_before(order: str) -> None:
    worlds = [after for _, after in explore(begin(2), 6, claims=True)]
    for world in worlds[:: max(len(worlds) // 300, 1)]:
        calm = everything_lost(world)
        for _ in range(8):
            for name in order:
                index = "abc".index(name)
                if index < len(calm.ones):
                    calm = step(see(calm, index), index)
                    if calm.ones[index].sending is not None:
                        calm = answered(calm, index)
                    if calm.ones[index].view.term is not None:
                        calm = claim(calm, index)
            calm = replace(calm, now=calm.now + 1)
        assert len(good(calm)) == 1, calm
