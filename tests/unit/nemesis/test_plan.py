from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.nemesis.plan import (
    Kind,
    Manner,
    Options,
    Target,
    command,
    described,
    draw,
    is_promised,
    manner,
    quorum,
)

SEEDS = st.integers(0, 10**6)


def options(seed: int, minutes: float = 20.0, kinds: tuple[Kind, ...] = tuple(Kind)) -> Options:
    return Options(seed=seed, minutes=minutes, kinds=kinds)


def test_the_same_seed_gives_the_same_plan_in_every_release_of_python() -> None:
    """Written out: a plan that changes makes the seeds in old reports worthless."""
    assert described(draw(options(13, minutes=0.5))) == [
        "seed 13: 30 batches, one every 1 s, signed by 5 operators; profile fast; 4 steps",
        "   1. at batch    4: term the leader for 0.2 s + redis-scripts the primary, 0.8 s later",
        "   2. at batch    8: redis-empty the primary",
        "   3. at batch   13: kill the leader for 2.2 s",
        (
            "   4. at batch   20: kill-persisted the leader for 1.5 s"
            " + redis-old the primary for 3.9 s, 0.4 s later"
        ),
    ]


@given(SEEDS)
def test_a_plan_is_a_function_of_its_options(seed: int) -> None:
    assert draw(options(seed)) == draw(options(seed))
    assert manner(options(seed), 3) == manner(options(seed), 3)


def test_another_seed_gives_another_plan() -> None:
    assert draw(options(1)).steps != draw(options(2)).steps


@given(SEEDS)
def test_every_kind_has_its_turn(seed: int) -> None:
    first = [step.faults[0].kind for step in draw(options(seed)).steps]
    assert set(first[: len(Kind)]) == set(Kind)


@given(SEEDS)
def test_nothing_beyond_the_promises_happens_at_once(seed: int) -> None:
    for step in draw(options(seed)).steps:
        assert is_promised(tuple(fault.kind for fault in step.faults))


@pytest.mark.parametrize(
    ("kinds", "promised"),
    [
        ((Kind.KILL,), True),
        ((Kind.KILL, Kind.REDIS_ALL), True),
        ((Kind.WIPE,), True),
        ((Kind.WIPE, Kind.REDIS_SCRIPTS), True),
        ((Kind.WIPE, Kind.REDIS_FAILOVER), False),
        ((Kind.WIPE, Kind.REDIS_KILL), False),
        ((Kind.WIPE, Kind.REDIS_GONE), False),
        ((Kind.REDIS_EMPTY, Kind.WIPE), False),
        ((Kind.KILL, Kind.STOP), False),
        ((Kind.REDIS_KILL, Kind.REDIS_PAUSE), False),
    ],
)
def test_a_lost_disk_beside_a_redis_that_forgets_is_not_promised(
    kinds: tuple[Kind, ...], promised: bool
) -> None:
    assert is_promised(kinds) is promised


@given(SEEDS)
def test_steps_begin_in_order_and_leave_time_at_the_end(seed: int) -> None:
    plan = draw(options(seed, minutes=3))
    begins = [step.batch for step in plan.steps]
    assert begins == sorted(begins)
    assert begins[-1] <= plan.batches - 9


@given(SEEDS)
def test_only_what_was_asked_for_is_broken(seed: int) -> None:
    chosen = (Kind.KILL, Kind.REDIS_PAUSE)
    plan = draw(options(seed, kinds=chosen))
    assert {fault.kind for step in plan.steps for fault in step.faults} == set(chosen)


def test_no_faults_are_a_plan_too() -> None:
    assert draw(options(1, kinds=())).steps == ()


def test_the_leader_is_hit_more_often_than_not() -> None:
    faults = [fault for step in draw(options(1, minutes=600)).steps for fault in step.faults]
    aimed = [one.target for one in faults if not one.kind.is_of_redis]
    assert aimed.count(Target.LEADER) > aimed.count(Target.STANDBY)


@given(SEEDS)
def test_a_frozen_replica_stands_still_for_5_to_20_seconds(seed: int) -> None:
    faults = [fault for step in draw(options(seed)).steps for fault in step.faults]
    assert all(5 <= one.seconds <= 20 for one in faults if one.kind is Kind.STOP)


@given(SEEDS, st.integers(1, 1000))
def test_every_batch_gets_its_quorum(seed: int, batch: int) -> None:
    chosen, delays = manner(options(seed), batch)
    signers = [delay for delay in delays if delay is not None]
    assert len(signers) == (quorum(5) if chosen is Manner.LEAN else 5)
    assert all(-2 <= delay <= 10 for delay in signers)
    in_time = [delay for delay in signers if delay <= 1]
    assert (len(in_time) < quorum(5)) == (chosen in {Manner.HELD, Manner.LEAN})


def test_a_quorum_is_67_percent() -> None:
    assert [quorum(count) for count in (3, 4, 5, 6, 100)] == [3, 3, 4, 5, 67]


def test_the_command_replays_the_plan() -> None:
    assert command(options(7, minutes=3)) == "python -m tests.nemesis --seed 7 --minutes 3"
    unusual = Options(
        seed=7,
        minutes=0.5,
        profile="normal",
        kinds=(Kind.KILL, Kind.REDIS_ALL),
        pace=0.5,
        operators=7,
    )
    assert command(unusual) == (
        "python -m tests.nemesis --seed 7 --minutes 0.5 --profile normal "
        "--faults kill,redis-all --pace 0.5 --operators 7"
    )
