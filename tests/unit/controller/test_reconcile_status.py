"""Stories of what is told."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from controller import ports
from controller.conditions import LEADERLESS_SECONDS
from controller.errors import ClusterAway, Conflict, Refused
from controller.reconcile import CALM_SECONDS, Reconciler
from tests.unit.controller.stories import LEASE_SECONDS, NAME, NAMESPACE, World, ready


@pytest.fixture
def world() -> World:
    return World()


async def test_a_controller_that_reaches_no_pod_says_only_what_it_sees(world: World) -> None:
    await ready(world)
    world.reachable = False
    await world.settle()
    assert world.is_ready()
    for of in ("StoreHealthy", "StateDurable", "ChainReachable", "SubmissionHealthy"):
        assert world.condition(of)["status"] == "Unknown", of


async def test_a_failover_is_told_as_the_new_leader_recorded_it(world: World) -> None:
    await ready(world)
    world.kubelet.trouble = lambda pod: "Crash" if pod["metadata"]["name"] == "agg-0" else ""
    world.kubelet.settle(2)
    world.elect()
    await world.reconcile()
    assert world.is_ready()
    told = world.told()
    assert told["leader"]["pod"] == "agg-1"
    [failover] = told["failovers"]
    assert (failover["from"], failover["to"], failover["reason"]) == (
        "agg-0",
        "agg-1",
        "LeaseExpired",
    )
    assert (failover["detectMs"], failover["electMs"], failover["resumeMs"]) == (5, 6, 7)
    assert told["highestTerm"] == 2
    assert world.condition("FaultTolerant")["reason"] == "ReplicasMissing"


async def test_a_group_that_nobody_leads_for_long_is_not_ready(world: World) -> None:
    await ready(world)
    since = world.condition("Ready")["lastTransitionTime"]
    world.time.advance(600)
    await world.reconcile()
    assert world.is_ready()
    world.time.advance(20)
    await world.reconcile()
    assert world.is_ready()
    world.time.advance(60)
    await world.reconcile()
    assert world.condition("Ready")["reason"] == "LeaderSilent"
    assert world.condition("Ready")["lastTransitionTime"] > since
    world.elect()
    await world.reconcile()
    assert world.is_ready()


async def test_a_leader_that_stopped_to_renew_is_told_without_waiting_for_a_calm_look(
    world: World,
) -> None:
    await ready(world)
    await world.reconcile()
    world.time.advance(1)
    world.elect()  # for the last time, which is seen a minute later
    world.time.advance(CALM_SECONDS - 1)
    soon = (await world.reconcile()).requeue_after
    assert world.is_ready()
    assert soon is not None
    world.time.advance(soon)
    await world.reconcile()
    assert world.condition("Ready")["reason"] == "LeaderSilent"
    assert soon == LEADERLESS_SECONDS + LEASE_SECONDS


async def test_a_leader_that_renews_has_its_group_looked_at_no_sooner(world: World) -> None:
    await ready(world)
    for _ in range(3):
        world.time.advance(CALM_SECONDS)
        world.elect()
        assert (await world.reconcile()).requeue_after == CALM_SECONDS


@pytest.mark.parametrize("gave_up", [False, True], ids=["silent", "given up"])
async def test_a_controller_that_just_started_takes_no_old_lease_for_a_leader(
    world: World, gave_up: bool
) -> None:
    await ready(world)
    if gave_up:
        lease = world.cluster.read(ports.LEASES, NAMESPACE, NAME)
        assert lease is not None
        world.cluster.edit({**lease, "spec": {"holderIdentity": ""}}, "aggregator")
    world.time.advance(86_400)
    world.restarted()
    await world.reconcile()
    reason = "NoLeader" if gave_up else "LeaderSilent"
    for of in ("Ready", "LeaderElected"):
        assert (world.condition(of)["status"], world.condition(of)["reason"]) == ("False", reason)
    world.elect()
    await world.reconcile()
    assert world.is_ready()


async def test_a_leader_whose_clock_differs_is_not_taken_for_silent(world: World) -> None:
    await ready(world)
    renewed(world, behind=34)
    world.restarted()
    await world.reconcile()
    assert world.is_ready()
    renewed(world, behind=3600)  # more than clocks should differ
    world.restarted()
    await world.reconcile()
    assert world.condition("Ready")["reason"] == "LeaderSilent"
    for _ in range(3):
        world.time.advance(15)
        renewed(world, behind=3600)
        await world.reconcile()
        assert world.is_ready()


def renewed(world: World, *, behind: float) -> None:
    """Let the leader renew the Lease by a clock that is so many seconds behind."""
    lease = world.cluster.read(ports.LEASES, NAMESPACE, NAME)
    assert lease is not None
    told = (world.time.now - timedelta(seconds=behind)).isoformat()
    world.cluster.edit({**lease, "spec": {"renewTime": told}}, "aggregator")


async def test_an_invalid_spec_stalls_until_it_is_mended(world: World) -> None:
    await ready(world)
    world.change({"replicas": 50})
    await world.reconcile()
    assert world.condition("Stalled")["reason"] == "InvalidSpec"
    assert "spec.replicas" in world.condition("Stalled")["message"]
    assert world.condition("Ready")["status"] == "False"
    assert "leader" not in world.told()  # nobody looked
    world.cluster.writes.clear()
    await world.reconcile()
    assert world.cluster.writes == []
    world.change({"replicas": 3})
    await world.settle()
    assert world.is_ready()


async def test_what_the_api_server_refuses_is_told(world: World) -> None:
    world.cluster.refuse = lambda each: (
        "spec.template: bad" if each["kind"] == "StatefulSet" else None
    )
    world.create()
    await world.reconcile()
    told = world.condition("Stalled")
    assert (told["status"], told["reason"]) == ("True", "Refused")
    assert "spec.template: bad" in told["message"]


async def test_a_right_that_is_missing_is_told(world: World) -> None:
    world.create()
    world.cluster.fail(3, Refused("services is forbidden", 403), "apply")
    await world.reconcile()
    assert world.condition("Stalled")["reason"] == "Forbidden"


async def test_two_resources_that_sign_with_one_account_are_both_warned(world: World) -> None:
    account = {"submission": {"blocked": None, "account": "0x" + "ab" * 20}}
    world.said = {f"{name}-{n}": account for name in ("agg", "other") for n in range(3)}
    await ready(world)
    world.create(name="other")
    await world.settle("other")
    await world.reconcile()
    for one, another in (("agg", "other"), ("other", "agg")):
        told = world.condition("SubmissionHealthy", one)
        assert (told["status"], told["reason"]) == ("False", "DuplicateSigner")
        assert told["message"].startswith(f"{another} signs")
    world.cluster.remove(ports.AGGREGATORS, NAMESPACE, "other")
    await world.reconcile("other")
    await world.reconcile()
    assert world.condition("SubmissionHealthy")["status"] == "True"


async def test_what_changed_is_an_event_once(world: World) -> None:
    await ready(world)
    world.cluster.events.clear()
    world.change({"image": "other"})
    await world.settle()
    told = [(event["reason"], event["type"]) for event in world.cluster.events]
    assert ("RollingOut", "Normal") in told
    assert ("Serving", "Normal") in told
    names_of_events = [event["metadata"]["name"] for event in world.cluster.events]
    assert len(set(names_of_events)) == len(names_of_events)


async def test_an_outage_that_comes_again_is_an_event_again(world: World) -> None:
    await ready(world)
    world.cluster.events.clear()
    for _ in range(2):
        world.time.advance(600)
        await world.reconcile()
        world.time.advance(60)
        await world.reconcile()
        assert world.condition("Ready")["reason"] == "LeaderSilent"
        world.elect()
        await world.reconcile()
        assert world.is_ready()
    assert outages(world) == 2


async def test_of_two_controllers_that_see_an_outage_one_tells_it(world: World) -> None:
    await ready(world)
    world.cluster.events.clear()
    both = world.reconciler, world.restarted()
    ends = []

    async def look(one: Reconciler) -> None:
        try:
            await one.reconcile(NAMESPACE, NAME)
            ends.append("told")
        except Conflict:
            ends.append("conflict")

    for pause in (1, 600):  # the first look of one that just started takes longer
        world.time.advance(pause)
        ends.clear()
        async with asyncio.TaskGroup() as group:
            for one in both:
                group.create_task(look(one))
    assert sorted(ends) == ["conflict", "told"]
    for _ in range(2):
        await world.reconcile()
    assert outages(world) == 1


def outages(world: World) -> int:
    """How often an Event told that nobody leads."""
    told = [event["message"].partition(":")[0] for event in world.cluster.events]
    return told.count("LeaderElected=False")


async def test_an_event_that_cannot_be_recorded_fails_no_pass(world: World) -> None:
    await ready(world)
    world.change({"replicas": 50})
    for nth in range(1, 6):
        world.cluster.fail(nth, ClusterAway("500"), "record")
    assert (await world.reconcile()).wrote == 1


async def test_a_suspended_resource_signs_with_no_account(world: World) -> None:
    account = {"submission": {"blocked": None, "account": "0x" + "ab" * 20}}
    world.said = {f"{name}-{n}": account for name in ("agg", "other") for n in range(3)}
    await ready(world)
    world.change({"suspend": True})
    await world.settle()
    world.create(name="other")
    await world.settle("other")
    assert world.condition("SubmissionHealthy", "other")["status"] == "True"


HOSTILE: tuple[object, ...] = (
    "x", 7, -1, True, [], ["x"], [[]], {}, {"a": 1}, float("nan"), float("inf"), 10**30, None,
)  # fmt: skip
"""Where something else is to be."""

FIELDS = (
    ("role",), ("role", "term"), ("replicas",), ("replicas", "unfit"), ("replicas", "store"),
    ("replicas", "store", "primary"), ("replicas", "store", "in_sync"),
    ("replicas", "fence", "term"), ("replicas", "failovers"), ("chain",), ("chain", "endpoints"),
    ("chain", "seen_seconds_ago"), ("submission",), ("submission", "account"),
    ("submission", "blocked"), ("parked",),
)  # fmt: skip


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
async def test_whatever_a_replica_says_a_pass_ends_with_a_report(
    world: World, path: tuple[str, ...]
) -> None:
    await ready(world)
    for garbage in HOSTILE:
        said: Any = garbage
        for key in reversed(path):
            said = {key: said}
        world.said = dict.fromkeys(("agg-0", "agg-1", "agg-2"), said)
        world.change({"template": {"metadata": {"annotations": {"try": repr(garbage)}}}})
        await world.turn()
        told = world.told()
        assert told["observedGeneration"] == world.resource()["metadata"]["generation"]
        assert told["highestTerm"] < 2**31


@pytest.mark.parametrize("field", ["at", "over", "term", "detect_ms", "resume_ms"])
async def test_a_takeover_that_makes_no_sense_is_told_as_far_as_it_does(
    world: World, field: str
) -> None:
    await ready(world)
    for garbage in (*HOSTILE, "x" * 500):
        takeover = {"term": 3, "over": "agg-2.boot", "detect_ms": 1, "elect_ms": 1, "resume_ms": 1}
        world.said = {"agg-1": {"replicas": {"failovers": [takeover | {field: garbage}]}}}
        world.cluster.edit(world.resource() | {"status": {"failovers": None}})
        await world.reconcile()
        for told in world.told().get("failovers", ()):
            assert datetime.fromisoformat(told["at"]).tzinfo is not None
            assert len(told["from"]) <= 253


async def test_a_leader_that_never_said_since_when_is_no_news_at_each_look(world: World) -> None:
    await ready(world)
    lease = world.cluster.read(ports.LEASES, NAMESPACE, "agg")
    assert lease is not None
    world.cluster.edit(lease | {"spec": {"acquireTime": None}})
    await world.turn()
    world.cluster.writes.clear()
    for _ in range(3):
        await world.turn()
    assert world.cluster.writes == []
