from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import Any

import pytest

from controller import rollout
from controller.observed import LeaseView, Observed, PodView, ReplicaView, SetView
from controller.rollout import Asked, Evict, Handover, Nothing, Step, Stuck, Wait, plan

DECLINED = 2
"""Times that a leader declines before the controller loses patience."""

ADDRESSES = ("10.96.0.1", "10.96.0.2", "10.96.0.3")


def pod(ordinal: int, settings: str = "new", *, of: str = "agg", **about: Any) -> PodView:
    known: dict[str, Any] = {"ready": True, "uid": f"{of}{ordinal}", "seconds": 1e6} | about
    return PodView(name=f"{of}-{ordinal}", ordinal=ordinal, settings_hash=settings, **known)


def group(*pods: PodView, replicas: int | None = None) -> SetView:
    wanted = len(pods) if replicas is None else replicas
    return SetView(uid="set", replicas=wanted, settings_hash="new", image="i", pods=pods)


def lease(pod_name: str = "agg-0", **about: Any) -> LeaseView:
    known: dict[str, Any] = {"term": 3, "lease_seconds": 5.0} | about
    return LeaseView(holder=f"{pod_name}.boot" if pod_name else "", pod=pod_name, **known)


def merged(*names: str, in_sync: bool = True, primary: str = "") -> dict[str, ReplicaView]:
    store = {"in_sync": in_sync, "reachable": True, "primary": primary}
    return {name: ReplicaView(said={"replicas": {"store": store}}) for name in names}


def unfit(why: str, *names: str) -> dict[str, ReplicaView]:
    store = {"in_sync": True, "reachable": True}
    return {name: ReplicaView(said={"replicas": {"store": store, "unfit": why}}) for name in names}


def asked(to: str = "agg-1", *, seconds: float, last: float | None = None) -> Asked:
    return Asked(to=to, seconds=seconds, last_seconds=seconds if last is None else last)


def step(observed: Observed, *, paused: bool = False, asked: Asked | None = None) -> Step:
    return plan(observed, paused=paused, asked=asked)


ALL = merged("agg-0", "agg-1", "agg-2")
OLD = group(pod(0, "old"), pod(1, "old"), pod(2, "old"))
LAST = group(pod(0, "old"), pod(1), pod(2))


# Cases.


def evicted(step: Step) -> str:
    assert isinstance(step, Evict), step
    return step.pod.name


def waits(step: Step) -> str:
    assert isinstance(step, Wait), step
    return step.note.reason


def test_nothing_to_do() -> None:
    assert step(Observed(aggregator=group(pod(0), pod(1)), lease=lease())) == Nothing()
    assert step(Observed()) == Nothing()


def test_a_standby_goes_first_and_the_highest_of_them() -> None:
    assert evicted(step(Observed(aggregator=OLD, lease=lease(), replicas=ALL))) == "agg-2"
    leads = Observed(aggregator=OLD, lease=lease("agg-2"), replicas=ALL)
    assert evicted(step(leads)) == "agg-1"


def test_a_standby_waits_for_the_one_before_to_be_ready_and_merged() -> None:
    two = group(pod(0, "old"), pod(1, "old"), pod(2, ready=False, seconds=1))
    assert waits(step(Observed(aggregator=two, lease=lease(), replicas=ALL))) == "PodStarting"
    two = group(pod(0, "old"), pod(1, "old"), pod(2, seconds=1))
    behind = Observed(aggregator=two, lease=lease(), replicas=merged("agg-2", in_sync=False))
    assert waits(step(behind)) == "PodMerging"


@pytest.mark.parametrize(("seconds", "goes"), [(59.0, False), (60.0, True)])
def test_a_pod_that_cannot_be_asked_is_taken_for_merged_after_a_while(
    seconds: float, goes: bool
) -> None:
    two = group(pod(0, "old"), pod(1, "old"), pod(2, seconds=seconds))
    silent = {"agg-2": ReplicaView(said=None, why="no answer")}
    found = step(Observed(aggregator=two, lease=lease(), replicas=silent))
    assert isinstance(found, Evict) == goes


def test_the_leader_hands_over_to_a_new_pod_before_it_goes() -> None:
    assert step(Observed(aggregator=LAST, lease=lease(), replicas=ALL)) == Handover("agg-1")


def test_nobody_is_handed_over_to_who_shall_not_lead() -> None:
    fenced = lease(fenced=frozenset({"agg-1"}))
    assert step(Observed(aggregator=LAST, lease=fenced, replicas=ALL)) == Handover("agg-2")
    fenced = lease(fenced=frozenset({"agg-1", "agg-2"}))
    assert evicted(step(Observed(aggregator=LAST, lease=fenced, replicas=ALL))) == "agg-0"


@pytest.mark.parametrize("to", ["agg-1", ""], ids=["says nothing", "declines"])
def test_a_leader_that_does_not_hand_over_goes_all_the_same(to: str) -> None:
    last = Observed(aggregator=LAST, lease=lease(handover_to=to), replicas=ALL)
    assert step(last, asked=asked(seconds=29, last=1)) == Handover("agg-1", ask=False)
    assert evicted(step(last, asked=asked(seconds=30, last=1))) == "agg-0"


def test_a_leader_that_declined_is_asked_again_after_a_while_and_for_the_next() -> None:
    declined = Observed(aggregator=LAST, lease=lease(), replicas=ALL)
    at_once = step(declined, asked=asked("agg-1", seconds=4.9))
    assert at_once == Handover("agg-1", ask=False)
    assert step(declined, asked=asked("agg-1", seconds=5)) == Handover("agg-2")
    assert step(declined, asked=asked("agg-2", seconds=10, last=5)) == Handover("agg-1")
    assert step(declined, asked=asked("agg-0", seconds=5)) == Handover("agg-1")


def test_a_wish_for_who_leads_already_is_none() -> None:
    own = Observed(aggregator=LAST, lease=lease(handover_to="agg-0"), replicas=ALL)
    assert step(own) == Handover("agg-1")


def test_nobody_is_handed_over_to_who_says_that_it_cannot_lead() -> None:
    one = merged("agg-2") | unfit("its main loop hangs", "agg-1")
    last = Observed(aggregator=LAST, lease=lease(), replicas=one)
    assert step(last) == Handover("agg-2")
    assert step(last, asked=asked("agg-2", seconds=5)) == Handover("agg-2")
    assert evicted(step(last, asked=asked("agg-2", seconds=30))) == "agg-0"


@pytest.mark.parametrize("leader", ["agg-0", ""], ids=["leads", "nobody leads"])
def test_the_last_old_pod_stays_while_no_new_one_can_lead(leader: str) -> None:
    why = "it has no endpoint with a fresh head"
    last = Observed(
        aggregator=LAST,
        lease=lease(leader, silent_seconds=60),
        replicas=unfit(why, "agg-1", "agg-2"),
    )
    found = step(last, asked=asked(seconds=1e6))
    assert waits(found) == "NoFitHeir"
    assert isinstance(found, Wait)
    assert f"agg-1: {why}; agg-2: {why}" in found.note.message
    said = unfit("x" * 10_000, "agg-1", "agg-2")
    found = step(replace(last, replicas=said))
    assert isinstance(found, Wait)
    assert len(found.note.message) < 1000


def test_who_cannot_be_asked_may_be_able_to_lead() -> None:
    silent = {"agg-1": ReplicaView(said=None, why="no answer")} | unfit("it hangs", "agg-2")
    last = Observed(aggregator=LAST, lease=lease(), replicas=silent)
    assert step(last) == Handover("agg-1")
    assert evicted(step(last, asked=asked(seconds=30))) == "agg-0"
    junk = {"agg-1": ReplicaView(said={"replicas": {"unfit": {"a": 1}, "store": {}}})}
    assert step(replace(last, replicas=junk)) == Handover("agg-1")


def test_nobody_goes_while_replicas_choose_a_leader() -> None:
    between = lease("", silent_seconds=1)
    assert waits(step(Observed(aggregator=OLD, lease=between, replicas=ALL))) == "ElectionUnderWay"
    nobody = lease("", silent_seconds=60)
    assert evicted(step(Observed(aggregator=OLD, lease=nobody, replicas=ALL))) == "agg-2"


def test_the_only_replica_is_replaced() -> None:
    assert evicted(step(Observed(aggregator=group(pod(0, "old"))))) == "agg-0"


def test_what_is_outdated_and_broken_goes_first() -> None:
    reverted = group(pod(0), pod(1), pod(2, "bad", ready=False, trouble="ImagePullBackOff"))
    assert evicted(step(Observed(aggregator=reverted, lease=lease()))) == "agg-2"
    two = group(pod(0, ready=False, trouble="Unschedulable"), pod(1, "old", ready=False))
    assert evicted(step(Observed(aggregator=two, lease=lease()))) == "agg-1"


@pytest.mark.parametrize("of", ["agg", "agg-redis"])
def test_what_lacks_its_image_and_was_made_from_another_template_is_made_anew(of: str) -> None:
    about = {"of": of, "revision": "r2"}

    def with_last(revision: str = "r1", **changed: Any) -> Observed:
        down: dict[str, Any] = {"ready": False, "trouble": "ImagePullBackOff"} | changed
        last = pod(2, of=of, revision=revision, **down)
        seen = replace(group(pod(0, **about), pod(1, **about), last), revision="r2")
        if of == "agg":
            return Observed(aggregator=seen, lease=lease())
        return Observed(aggregator=group(pod(0)), redis=seen, lease=lease())

    assert evicted(step(with_last())) == f"{of}-2"
    assert waits(step(with_last(), paused=True)) == "RolloutPaused"
    assert isinstance(step(with_last("r2")), Stuck)  # anew it would be the same
    assert step(with_last(ready=True, trouble="")) == Nothing()
    assert waits(step(with_last(trouble="", seconds=60.0))) == "PodStarting"
    assert waits(step(with_last(trouble="Unschedulable"))) == "PodWaiting"
    crashing = step(with_last(trouble="CrashLoopBackOff"))  # with an ephemeral journal, maybe
    assert isinstance(crashing, Stuck | Wait)
    assert step(with_last(terminating=True)) != Evict(pod(2))
    unknown = with_last()
    for name in ("aggregator", "redis"):
        if (seen := getattr(unknown, name)) is not None:
            unknown = replace(unknown, **{name: replace(seen, revision="")})
    assert isinstance(step(unknown), Stuck)


def test_paused_nothing_is_replaced() -> None:
    broken = group(pod(0), pod(1, "old", ready=False))
    for each in (OLD, broken):
        found = step(Observed(aggregator=each, lease=lease(), replicas=ALL), paused=True)
        assert waits(found) == "RolloutPaused"
    assert step(Observed(aggregator=group(pod(0))), paused=True) == Nothing()


def test_nothing_that_serves_goes_while_another_is_missing_or_stopping() -> None:
    for pods in ((pod(0, "old"), pod(1, "old")), (pod(0, "old"), pod(1), pod(2, terminating=True))):
        found = step(Observed(aggregator=group(*pods, replicas=3), lease=lease(), replicas=ALL))
        assert waits(found) in {"PodsMissing", "PodsStopping"}


@pytest.mark.parametrize(
    ("trouble", "seconds", "stuck"),
    [
        ("ImagePullBackOff", 29, False),
        ("ImagePullBackOff", 30, True),
        ("InvalidImageName", 0, True),
        ("CrashLoopBackOff", 59, False),
        ("CrashLoopBackOff", 60, True),
        ("ContainerCreating", 1e6, False),
        ("Unschedulable", 1e6, False),
        ("", 1799, False),
        ("", 1800, True),
    ],
)
def test_a_new_pod_that_cannot_get_ready_stops_the_roll(
    trouble: str, seconds: float, stuck: bool
) -> None:
    broken = pod(2, ready=False, trouble=trouble, seconds=seconds)
    observed = Observed(aggregator=group(pod(0, "old"), pod(1, "old"), broken), lease=lease())
    found = step(observed)
    assert isinstance(found, Stuck) == stuck
    assert isinstance(found, Stuck | Wait)


def redis(*settings: str, **about: Any) -> SetView:
    return group(*(pod(n, each, of="agg-redis", **about) for n, each in enumerate(settings)))


def seen(primary: int, **about: Any) -> Observed:
    replicas = merged("agg-0", "agg-1", primary=f"{ADDRESSES[primary]}:6379")
    return Observed(redis_addresses=ADDRESSES, replicas=replicas, lease=lease(), **about)


def test_redis_goes_before_the_aggregator_and_its_primary_last() -> None:
    old = redis("old", "old", "old")
    assert evicted(step(seen(2, redis=old, aggregator=OLD))) == "agg-redis-1"
    assert evicted(step(seen(2, redis=redis("old", "new", "old"), aggregator=OLD))) == "agg-redis-0"
    assert evicted(step(seen(2, redis=redis("new", "new", "old"), aggregator=OLD))) == "agg-redis-2"


def test_a_redis_pod_waits_until_the_one_before_is_filled() -> None:
    fresh = replace(
        redis("old", "old", "new"),
        pods=(*redis("old", "old").pods, pod(2, of="agg-redis", seconds=1)),
    )
    behind = Observed(
        redis=fresh, replicas=merged("agg-0", in_sync=False), aggregator=group(pod(0))
    )
    assert waits(step(behind)) == "RedisMerging"
    unseen = Observed(redis=fresh, aggregator=group(pod(0)))
    assert waits(step(unseen)) == "RedisMerging"
    filled = Observed(redis=fresh, replicas=merged("agg-0"), aggregator=group(pod(0)))
    assert evicted(step(filled)) == "agg-redis-1"


def test_redis_waits_for_the_aggregator_and_the_other_way_round() -> None:
    down = group(pod(0), pod(1, ready=False, seconds=1))
    assert waits(step(seen(0, redis=redis("old", "old", "old"), aggregator=down))) == "PodStarting"
    down = group(pod(0, of="agg-redis"), pod(1, of="agg-redis", ready=False, seconds=1))
    assert waits(step(seen(0, redis=down, aggregator=OLD))) == "PodStarting"


# Every interleaving.


@dataclass(frozen=True)
class Pod:
    settings: str = "old"
    phase: str = "ready"
    """ready, stopping, gone or starting."""
    merged: bool = True


@dataclass(frozen=True)
class State:
    """What the controller sees and what happens to it, in any order."""

    aggregator: tuple[Pod, ...]
    redis: tuple[Pod, ...] = ()
    leader: int | None = 0
    handover_to: int | None = None
    asked: int | None = None
    """Ordinal that the leader was last asked to hand over to."""
    declined: int = 0
    """Times that it declined."""
    is_patient: bool = True
    """The controller has not waited for the handover for too long."""
    primary: int = 0
    mishaps: int = 1
    """That may still happen: a pod crashes, a node goes, a leader gives up."""


def view(pods: tuple[Pod, ...], of: str) -> SetView:
    views = [
        pod(
            ordinal,
            each.settings,
            of=of,
            ready=each.phase == "ready",
            terminating=each.phase == "stopping",
            seconds=1.0,
        )
        for ordinal, each in enumerate(pods)
        if each.phase != "gone"
    ]
    return group(*views, replicas=len(pods))


def observed(state: State) -> Observed:
    store = {"reachable": True, "primary": f"{ADDRESSES[state.primary]}:6379"}
    return Observed(
        aggregator=view(state.aggregator, "agg"),
        redis=view(state.redis, "agg-redis") if state.redis else None,
        redis_addresses=ADDRESSES,
        lease=lease(
            "" if state.leader is None else f"agg-{state.leader}",
            handover_to="" if state.handover_to is None else f"agg-{state.handover_to}",
        ),
        replicas={
            f"agg-{ordinal}": ReplicaView(
                said={"replicas": {"store": store | {"in_sync": each.merged}}}
            )
            for ordinal, each in enumerate(state.aggregator)
            if each.phase == "ready"
        },
    )


def planned(state: State) -> Step:
    seconds = rollout.AGAIN_SECONDS if state.is_patient else rollout.HANDOVER_SECONDS
    is_asked = state.asked is not None and state.leader is not None
    known = None if not is_asked else asked(f"agg-{state.asked}", seconds=seconds)
    return plan(observed(state), paused=False, asked=known)


def acted(state: State) -> State:
    """The state after the controller's next step; raises if the step may not be taken."""
    found = planned(state)
    if isinstance(found, Handover):
        to = int(found.to[-1])
        return replace(state, handover_to=to, asked=to) if found.ask else state
    if not isinstance(found, Evict):
        return state
    name, ordinal = found.pod.name.rsplit("-", 1)
    field = "redis" if name.endswith("redis") else "aggregator"
    pods: tuple[Pod, ...] = getattr(state, field)
    gone = pods[int(ordinal)]
    assert gone.settings == "old"
    if gone.phase == "ready":
        assert all(each.phase == "ready" for each in (*state.aggregator, *state.redis)), state
        others = [each for number, each in enumerate(pods) if number != int(ordinal)]
        is_last = int(ordinal) == (state.primary if field == "redis" else state.leader)
        assert not is_last or all(each.settings == "new" for each in others), state
    return with_pod(state, field, int(ordinal), replace(gone, phase="stopping"))


def with_pod(state: State, field: str, ordinal: int, pod: Pod) -> State:
    pods: tuple[Pod, ...] = getattr(state, field)
    changed = (*pods[:ordinal], pod, *pods[ordinal + 1 :])
    return replace(state, **{field: changed})  # type: ignore[arg-type]  # a field of that type


def happenings(state: State, answer: str) -> Iterator[State]:
    """What may happen next beside the controller."""
    for field in ("aggregator", "redis"):
        pods: tuple[Pod, ...] = getattr(state, field)
        for ordinal, each in enumerate(pods):
            if each.phase == "stopping":
                yield stopped(state, field, ordinal)
            elif each.phase == "gone":
                new = Pod("new", "starting", merged=field == "redis")
                yield with_pod(state, field, ordinal, new)
            elif each.phase == "starting":
                yield with_pod(state, field, ordinal, replace(each, phase="ready"))
            elif not each.merged:
                yield with_pod(state, field, ordinal, replace(each, merged=True))
    yield from elections(state, answer)
    if state.mishaps:
        yield from mishaps(replace(state, mishaps=state.mishaps - 1))


def mishaps(state: State) -> Iterator[State]:
    yield replace(state, leader=None)
    for field in ("aggregator", "redis"):
        pods: tuple[Pod, ...] = getattr(state, field)
        for ordinal, each in enumerate(pods):
            yield stopped(state, field, ordinal)
            if each.phase == "ready":
                yield with_pod(state, field, ordinal, replace(each, phase="starting"))


def stopped(state: State, field: str, ordinal: int) -> State:
    state = with_pod(state, field, ordinal, Pod(phase="gone"))
    if field == "aggregator" and state.leader == ordinal:
        return replace(state, leader=None)
    if field == "redis" and state.primary == ordinal:
        return replace(state, primary=(ordinal + 1) % len(state.redis))
    return state


def elections(state: State, answer: str) -> Iterator[State]:
    if state.leader is None:
        for ordinal, each in enumerate(state.aggregator):
            if each.phase == "ready":
                yield leads(state, ordinal)
    elif state.handover_to is not None:
        if answer == "hands over":
            yield leads(state, state.handover_to)
        elif answer == "declines":
            declined = state.declined + 1
            is_patient = declined <= DECLINED
            yield replace(state, handover_to=None, declined=declined, is_patient=is_patient)
        elif state.is_patient:
            yield replace(state, is_patient=False)


def leads(state: State, ordinal: int) -> State:
    return replace(state, leader=ordinal, handover_to=None, asked=None, declined=0, is_patient=True)


@pytest.mark.parametrize("answer", ["hands over", "says nothing", "declines"])
@pytest.mark.parametrize("leader", [0, 1, 2])
@pytest.mark.parametrize("with_redis", [False, True], ids=["alone", "with redis"])
def test_in_any_order_of_happenings_a_roll_ends_and_takes_one_pod_at_a_time(
    with_redis: bool, leader: int, answer: str
) -> None:
    redis_pods = (Pod(),) * 3 if with_redis else ()
    start = State((Pod(),) * 3, redis_pods, leader, primary=leader)
    graph: dict[State, set[State]] = {}
    left = [start]
    while left:
        state = left.pop()
        if state not in graph:
            graph[state] = {acted(state), *happenings(state, answer)} - {state}
            left += graph[state]
    for state, following in graph.items():
        if not following:
            assert isinstance(planned(state), Nothing), state
            assert all(each == Pod("new") for each in (*state.aggregator, *state.redis))
    assert len(graph) > 100
    # Nothing comes round again, so every way through it is finite.
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(graph)


def test_a_primary_that_is_no_address_is_no_primary() -> None:
    store: dict[str, Any] = {"in_sync": True, "primary": ["10.96.0.1:6379"]}
    said = {"agg-0": ReplicaView(said={"replicas": {"store": store}})}
    redis = group(*(pod(n, "old", of="agg-redis") for n in range(3)))
    seen = Observed(redis=redis, replicas=said, redis_addresses=ADDRESSES)
    assert evicted(step(seen)) == "agg-redis-2"


def test_pods_whose_probes_were_late_are_not_replaced_for_it() -> None:
    late = group(*(pod(n, "old", ready=False, seconds=14.0) for n in range(3)))
    assert waits(step(Observed(aggregator=late, lease=lease()))) == "PodStarting"
    down = group(*(pod(n, "old", ready=False, seconds=15.0) for n in range(3)))
    assert evicted(step(Observed(aggregator=down, lease=lease()))) == "agg-2"
    broken = group(pod(0, "old", ready=False, seconds=1.0, trouble="CrashLoopBackOff"))
    assert evicted(step(Observed(aggregator=broken, lease=lease()))) == "agg-0"
