from __future__ import annotations

from dataclasses import replace

import pytest

from aggregator.leadership.election import (
    DRAIN_SECONDS,
    PROFILES,
    TICK_SECONDS,
    Campaign,
    Candidate,
    Drain,
    Fence,
    Look,
    Lose,
    Record,
    Release,
    Renew,
    Resume,
    Step,
    Suspend,
    View,
    Vitals,
    Wait,
    decide,
    good_until,
    observed,
)

NOW = 1000.0
NORMAL = PROFILES["normal"]
CANDIDATE = Candidate(me="pod-0 boot", pod="pod-0", profile=NORMAL)
FIT = Vitals(wanted=True, beat=NOW, store=NOW, chain=NOW, signs=True, operators=True, window=True)
OTHERS = Record(holder="pod-1 boot", term=7, lease=5.0)
FREE = Record(term=7, lease=5.0)
MINE = Record(holder="pod-0 boot", term=8, lease=5.0)
STANDBY = View(candidate=CANDIDATE, vitals=FIT, record=OTHERS, changed=NOW, looked=NOW)
LEADER = View(
    candidate=CANDIDATE, vitals=FIT, record=MINE, changed=NOW, looked=NOW,
    term=8, renewed=NOW, next_renewal=NOW + 1.0,
)  # fmt: skip


def with_vitals(view: View, **changes: object) -> View:
    return replace(view, vitals=replace(view.vitals, **changes))  # type: ignore[arg-type] # test


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_a_leader_stops_before_anybody_else_begins(profile: object) -> None:
    assert profile.lease > profile.deadline > 2 * profile.renew  # type: ignore[attr-defined] # test


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(replace(STANDBY, record=None), Look(), id="never read"),
        pytest.param(replace(STANDBY, changed=NOW - 5, looked=NOW - 2), Look(), id="silence"),
        pytest.param(replace(STANDBY, changed=NOW - 4.9), Wait(NOW + 0.1), id="held"),
        pytest.param(replace(STANDBY, changed=NOW - 5.0), Campaign(8), id="silent for a lease"),
        pytest.param(
            replace(STANDBY, changed=NOW - 5.0, stagger=0.02), Wait(NOW + 0.02), id="staggered"
        ),
        pytest.param(
            replace(STANDBY, record=replace(OTHERS, lease=15.0), changed=NOW - 14.9),
            Wait(NOW + 0.1),
            id="the holder's lease is longer",
        ),
        pytest.param(
            replace(STANDBY, record=replace(OTHERS, lease=1.5), changed=NOW - 4.9),
            Wait(NOW + 0.1),
            id="our lease is longer",
        ),
        pytest.param(replace(STANDBY, record=FREE), Campaign(8), id="given up"),
        pytest.param(
            with_vitals(replace(STANDBY, record=FREE), fence=Fence(40, "x")),
            Campaign(41),
            id="the fence is ahead of the lock",
        ),
        pytest.param(
            with_vitals(replace(STANDBY, record=FREE), fence=Fence(7, "x"), claimed=8),
            Campaign(9),
            id="our own claim is ahead of what we heard of the fence",
        ),
        pytest.param(
            replace(STANDBY, record=replace(MINE, term=9)), Campaign(10), id="won without an answer"
        ),
        pytest.param(
            replace(STANDBY, record=replace(FREE, handover_to="pod-0")),
            Campaign(8),
            id="handed over to us",
        ),
        pytest.param(
            replace(STANDBY, record=replace(FREE, handover_to="pod-2"), changed=NOW - 4.9),
            Wait(NOW + 0.1),
            id="handed over to another",
        ),
        pytest.param(
            replace(STANDBY, record=replace(FREE, handover_to="pod-2"), changed=NOW - 5),
            Campaign(8),
            id="handed over to one who does not come",
        ),
        pytest.param(
            replace(STANDBY, record=replace(FREE, fenced=frozenset({"pod-0"}))),
            Wait(NOW + TICK_SECONDS),
            id="fenced off",
        ),
        pytest.param(
            replace(STANDBY, record=FREE, rest_until=NOW + 0.1), Wait(NOW + 0.1), id="resting"
        ),
        pytest.param(
            with_vitals(replace(STANDBY, record=FREE), wanted=False),
            Wait(NOW + TICK_SECONDS),
            id="nobody wants it",
        ),
    ],
)
def test_a_standby(view: View, step: Step) -> None:
    assert decide(view, NOW) == step


UNFIT = [
    pytest.param({"beat": NOW - 1.1}, id="loop hangs"),
    pytest.param({"store": NOW - 5.1}, id="store away"),
    pytest.param({"outbox_readable": False}, id="outbox unreadable"),
    pytest.param({"chain": NOW - 10.1}, id="chain away"),
    pytest.param({"operators": False}, id="registry not read"),
    pytest.param({"window": False}, id="window not read"),
    pytest.param({"signs": False}, id="wrong signer"),
    pytest.param({"refused_until": NOW + 1}, id="refused"),
]


@pytest.mark.parametrize(
    ("looked", "changed"),
    [
        pytest.param(NOW - 2.9, NOW - 4.0, id="in touch"),
        pytest.param(NOW - 3.1, NOW, id="out of touch"),
    ],
)
def test_silence_counts_while_in_touch(looked: float, changed: float) -> None:
    view = replace(STANDBY, looked=looked, changed=NOW - 4.0)
    assert observed(view, NOW) == replace(view, looked=NOW, changed=changed)


@pytest.mark.parametrize("vitals", UNFIT)
def test_who_is_not_fit_does_not_campaign(vitals: dict[str, object]) -> None:
    view = with_vitals(replace(STANDBY, record=FREE), **vitals)
    assert decide(view, NOW) == Wait(NOW + TICK_SECONDS)


@pytest.mark.parametrize("vitals", UNFIT)
def test_a_leader_that_is_not_fit_gives_the_lock_up_and_rests(vitals: dict[str, object]) -> None:
    step = decide(with_vitals(replace(LEADER, next_renewal=NOW), **vitals), NOW)
    assert isinstance(step, Release)
    assert step.rest


@pytest.mark.parametrize("vitals", UNFIT)
def test_a_leader_that_drains_does_not_renew_what_it_is_not_fit_for(
    vitals: dict[str, object],
) -> None:
    view = with_vitals(replace(LEADER, next_renewal=NOW, ending=NOW), **vitals)
    assert isinstance(decide(view, NOW), Release)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(LEADER, Wait(NOW + TICK_SECONDS), id="renewed"),
        pytest.param(replace(LEADER, next_renewal=NOW), Renew(), id="due"),
        pytest.param(
            replace(LEADER, record=OTHERS),
            Lose("the lock is held by pod-1 boot in term 7"),
            id="another holder",
        ),
        pytest.param(
            replace(LEADER, record=replace(MINE, term=9)),
            Lose("the lock is held by pod-0 boot in term 9"),
            id="another term",
        ),
        pytest.param(
            replace(LEADER, record=FREE),
            Lose("the lock is held by nobody in term 7"),
            id="made anew by hand",
        ),
        pytest.param(
            with_vitals(LEADER, fence=Fence(9, "pod-1 boot")),
            Lose("the store is fenced at term 9 of pod-1 boot"),
            id="a higher fence",
        ),
        pytest.param(
            with_vitals(LEADER, fence=Fence(8, "pod-1 boot")),
            Lose("the store is fenced at term 8 of pod-1 boot"),
            id="another one's fence",
        ),
        pytest.param(
            with_vitals(LEADER, fence=Fence(8, "pod-0 boot")),
            Wait(NOW + TICK_SECONDS),
            id="our own fence",
        ),
        pytest.param(
            replace(LEADER, record=replace(MINE, fenced=frozenset({"pod-0"}))),
            Drain("it is fenced off by hand"),
            id="fenced off",
        ),
        pytest.param(
            with_vitals(
                replace(LEADER, record=replace(MINE, handover_to="pod-2")),
                peers=frozenset({"pod-2"}),
            ),
            Drain("it hands over to pod-2"),
            id="handover",
        ),
        pytest.param(
            replace(LEADER, record=replace(MINE, handover_to="pod-2"), next_renewal=NOW),
            Renew(settle=True),
            id="handover to one who is not there",
        ),
        pytest.param(
            replace(LEADER, record=replace(MINE, handover_to="pod-2")),
            Wait(NOW + TICK_SECONDS),
            id="handover to one who is not there, between renewals",
        ),
        pytest.param(
            with_vitals(
                replace(
                    LEADER,
                    record=replace(MINE, handover_to="pod-2", fenced=frozenset({"pod-2"})),
                    next_renewal=NOW,
                ),
                peers=frozenset({"pod-2"}),
            ),
            Renew(settle=True),
            id="handover to one who is fenced off",
        ),
        pytest.param(
            replace(LEADER, record=replace(MINE, handover_to="pod-0"), next_renewal=NOW),
            Renew(settle=True),
            id="handover to ourselves",
        ),
        pytest.param(
            replace(
                LEADER, record=replace(MINE, handover_to="pod-2"), ending=NOW - 1, next_renewal=NOW
            ),
            Renew(),
            id="drains for one who has gone meanwhile",
        ),
        pytest.param(
            replace(LEADER, ending=NOW - 1, drained=True),
            Release("its work has stopped"),
            id="drained",
        ),
        pytest.param(
            replace(LEADER, ending=NOW - DRAIN_SECONDS),
            Release("its work has stopped"),
            id="does not drain",
        ),
        pytest.param(
            replace(LEADER, ending=NOW - 1, next_renewal=NOW), Renew(), id="renews while it drains"
        ),
        pytest.param(
            replace(LEADER, drained=True), Release("its work has ended"), id="does not want it"
        ),
    ],
)
def test_a_leader(view: View, step: Step) -> None:
    assert decide(view, NOW) == step


CUT_OFF = replace(LEADER, renewed=NOW - 3.0, looked=NOW - 3.0)
CONFIRMED = with_vitals(CUT_OFF, claimed=8, confirmed=NOW - 1.0)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(
            CUT_OFF, Suspend("neither the lock nor the store confirms its term"), id="alone"
        ),
        pytest.param(
            replace(CUT_OFF, record=replace(MINE, handover_to="pod-2"), next_renewal=NOW),
            Suspend("neither the lock nor the store confirms its term"),
            id="alone, with a wish that cannot be",
        ),
        pytest.param(CONFIRMED, Wait(NOW + TICK_SECONDS), id="the store confirms"),
        pytest.param(
            with_vitals(CUT_OFF, claimed=7, confirmed=NOW),
            Suspend("neither the lock nor the store confirms its term"),
            id="the store confirmed an earlier term",
        ),
        pytest.param(
            with_vitals(CONFIRMED, store=NOW - 5.1),
            Suspend("the lock is out of reach, and the shared store does not answer it"),
            id="not fit either",
        ),
        pytest.param(
            replace(CONFIRMED, suspended=NOW - 0.5, next_renewal=NOW), Renew(), id="not yet again"
        ),
        pytest.param(replace(CONFIRMED, suspended=NOW - 1.5), Resume(), id="confirmed again"),
        pytest.param(
            with_vitals(replace(CONFIRMED, suspended=NOW - 1.5, next_renewal=NOW), signs=False),
            Look(),
            id="confirmed but not fit",
        ),
        pytest.param(
            replace(CONFIRMED, suspended=NOW - 1.5, record=OTHERS),
            Lose("the lock is held by pod-1 boot in term 7"),
            id="replaced meanwhile",
        ),
    ],
)
def test_a_leader_out_of_reach_of_the_lock(view: View, step: Step) -> None:
    assert decide(view, NOW) == step


@pytest.mark.parametrize(
    ("view", "until"),
    [
        pytest.param(LEADER, NOW + 3.0, id="from the sending of the renewal"),
        pytest.param(CONFIRMED, NOW + 2.0, id="from the asking for the confirmation"),
        pytest.param(replace(LEADER, suspended=NOW), float("-inf"), id="suspended"),
        pytest.param(replace(LEADER, ending=NOW), float("-inf"), id="ending"),
        pytest.param(STANDBY, float("-inf"), id="standby"),
    ],
)
def test_effects_are_right_for_a_deadline(view: View, until: float) -> None:
    assert good_until(view) == until


ALONE = replace(CONFIRMED, candidate=replace(CANDIDATE, fenced=False))
"""The lock is out of reach, and there is no store whose word would count."""


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(ALONE, Suspend("no renewal confirms its term"), id="cut off"),
        pytest.param(
            replace(ALONE, suspended=NOW - 1.5, next_renewal=NOW), Renew(), id="tries again"
        ),
        pytest.param(replace(ALONE, suspended=NOW - 1.5, renewed=NOW), Resume(), id="renewed"),
        pytest.param(
            replace(ALONE, suspended=NOW - 1.5, record=OTHERS),
            Lose("the lock is held by pod-1 boot in term 7"),
            id="replaced meanwhile",
        ),
    ],
)
def test_a_leader_without_a_store_goes_by_the_lock_alone(view: View, step: Step) -> None:
    assert decide(view, NOW) == step
    assert good_until(replace(ALONE, suspended=None)) == NOW
