from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.api.status import ConditionType
from controller.conditions import Work
from controller.desired.known import Release
from controller.observed import LeaseView, Note, Observed, PodView, ReplicaView, SetView
from controller.resource import Resource, parse
from controller.status import (
    Status,
    compute_status,
    condition_of,
    highest_term,
    stalled_status,
)
from tests.unit.controller.stories import SPEC

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RELEASE = Release(image="aggregator:1", redis_image="valkey:1")


def resource(
    spec: dict[str, Any] | None = None, status: Status | None = None, generation: int = 1
) -> Resource:
    metadata = {"name": "agg", "namespace": "test", "uid": "uid", "generation": generation}
    return parse({"metadata": metadata, "spec": SPEC | (spec or {}), "status": status or {}})


def pods(of: str, count: int = 3, **about: Any) -> tuple[PodView, ...]:
    known: dict[str, Any] = {"ready": True, "settings_hash": "h", "seconds": 1e6}
    return tuple(
        PodView(name=f"{of}-{n}", uid=f"{of}{n}", ordinal=n, node=f"node-{n}", **(known | about))
        for n in range(count)
    )


def group(of: str = "agg", *, members: tuple[PodView, ...] | None = None, **about: Any) -> SetView:
    image = "valkey:1" if of.endswith("redis") else "aggregator:1"
    known: dict[str, Any] = {"uid": of, "replicas": 3, "settings_hash": "h", "image": image}
    return SetView(pods=pods(of) if members is None else members, **(known | about))


LEASE = LeaseView(
    holder="agg-0.boot", pod="agg-0", term=2, acquired="2026-03-01T11:00:00Z", lease_seconds=5.0
)
GOOD: dict[str, Any] = {
    "role": {"term": 2},
    "replicas": {"store": {"reachable": True, "in_sync": True}, "failovers": []},
    "chain": {"seen_seconds_ago": 1.5, "endpoints": [{"name": "main", "healthy": True}]},
    "submission": {"blocked": None},
    "parked": [],
}


def replica(**about: Any) -> ReplicaView:
    return ReplicaView(said=deepcopy(GOOD) | about)


CALM = Observed(
    aggregator=group(),
    redis=group("agg-redis"),
    lease=LEASE,
    replicas={f"agg-{n}": replica() for n in range(3)},
    redis_addresses=("10.96.0.1", "10.96.0.2", "10.96.0.3"),
)


def told(
    observed: Observed = CALM,
    work: Work | None = None,
    of: Resource | None = None,
    now: datetime = NOW,
) -> Status:
    return compute_status(of or resource(), observed, work or Work(), RELEASE, now)


def condition(status: Status, of: str) -> tuple[str, str, str]:
    [found] = [each for each in status["conditions"] if each["type"] == of]
    return found["status"], found["reason"], found["message"]


def test_all_is_well() -> None:
    status = told()
    abnormal = {"Reconciling", "Stalled"}
    assert {each["type"] for each in status["conditions"]} == {each.value for each in ConditionType}
    for each in status["conditions"]:
        assert each["status"] == ("False" if each["type"] in abnormal else "True"), each
        assert each["observedGeneration"] == 1
        assert each["lastTransitionTime"] == "2026-03-01T12:00:00Z"
    assert (status["replicas"], status["readyReplicas"], status["image"]) == (3, 3, "aggregator:1")
    assert status["leader"] == {"pod": "agg-0", "term": 2, "since": "2026-03-01T11:00:00Z"}
    assert status["highestTerm"] == 2


def test_the_same_facts_give_the_same_bytes_later() -> None:
    first = told()
    later = told(of=resource(status=first), now=NOW + timedelta(hours=1))
    assert later == first


def test_times_are_those_of_changes() -> None:
    first, later = told(), NOW + timedelta(hours=1)
    away = replace(CALM, replicas={})
    status = told(away, of=resource(status=first), now=later)
    times = {each["type"]: each["lastTransitionTime"] for each in status["conditions"]}
    assert times["Ready"] == "2026-03-01T12:00:00Z"
    assert times["StoreHealthy"] == "2026-03-01T13:00:00Z"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"aggregator": None}, "Creating"),
        ({"redis": None}, "Creating"),
        ({"aggregator": group(settings_hash="other")}, "RollingOut"),
        ({"redis": group("agg-redis", settings_hash="other")}, "RollingOut"),
        ({"aggregator": group(replicas=2)}, "RollingOut"),
        ({"aggregator": group(replicas=4)}, "PodsStarting"),
        ({"aggregator": group(members=pods("agg", ready=False))}, "PodsStarting"),
        ({"aggregator": group(members=pods("agg", terminating=True))}, "PodsStarting"),
        ({"lease": None}, "LeaseMissing"),
        ({"lease": LeaseView(holder="", pod="", term=0)}, "NoLeader"),
        ({"lease": replace(LEASE, silent_seconds=36.0)}, "LeaderSilent"),
        ({"lease": replace(LEASE, holder="", pod="", silent_seconds=36.0)}, "NoLeader"),
    ],
)
def test_not_ready(change: dict[str, Any], reason: str) -> None:
    status = told(replace(CALM, **change))
    assert condition(status, "Ready")[:2] == ("False", reason)


def test_a_change_of_leader_alone_does_not_take_ready_away() -> None:
    between = replace(LEASE, holder="", pod="", silent_seconds=3.0)
    status = told(replace(CALM, lease=between))
    assert condition(status, "Ready")[0] == "True"
    assert "leader" not in status


def test_a_pod_that_fails_later_does_not_take_ready_away() -> None:
    one_down = (replace(pods("agg")[0], ready=False), *pods("agg")[1:])
    observed = replace(CALM, aggregator=group(members=one_down))
    waiting = Work(waiting=Note("PodStarting", "agg-0 is not ready yet."))
    first = told(observed, waiting)
    assert condition(first, "Ready")[:2] == ("False", "PodStarting")
    later = told(observed, waiting, resource(status=told()))
    assert condition(later, "Ready")[0] == "True"
    assert condition(later, "Reconciling")[:2] == ("True", "PodStarting")
    assert condition(later, "FaultTolerant")[:2] == ("False", "ReplicasMissing")
    renewed = told(observed, waiting, resource(status=told(), generation=2))
    assert condition(renewed, "Ready")[:2] == ("False", "PodStarting")


def test_a_generation_stays_rolled_out_while_nobody_leads() -> None:
    one_down = (replace(pods("agg")[0], ready=False), *pods("agg")[1:])
    silent = replace(
        CALM, aggregator=group(members=one_down), lease=replace(LEASE, silent_seconds=99)
    )
    status = told(silent, of=resource(status=told()))
    assert condition(status, "Ready")[:2] == ("False", "LeaderSilent")
    led = told(replace(silent, lease=LEASE), of=resource(status=status))
    assert condition(led, "Ready")[0] == "True"


def test_stalled_is_told_with_what_to_do() -> None:
    stalled = Work(stalled=Note("NameConflict", "Service agg exists and is not ours."))
    status = told(work=stalled)
    assert condition(status, "Stalled") == (
        "True",
        "NameConflict",
        "Service agg exists and is not ours.",
    )
    assert condition(status, "Ready")[:2] == ("False", "NameConflict")
    assert condition(status, "Reconciling")[0] == "False"


def test_secrets_are_named_when_pods_do_not_start() -> None:
    stuck = pods("agg", ready=False, trouble="ContainerCreating", seconds=20.0)
    status = told(replace(CALM, aggregator=group(members=stuck)))
    state, reason, message = condition(status, "Reconciling")
    assert (state, reason) == ("True", "WaitingForSecrets")
    assert "key (key keystore.json), key (key password)" in message
    fresh = pods("agg", ready=False, trouble="ContainerCreating", seconds=5.0)
    early = told(replace(CALM, aggregator=group(members=fresh)))
    assert condition(early, "Reconciling")[1] == "PodsStarting"


def test_a_redis_secret_that_may_be_somebody_elses_is_named_where_it_may_be_to_blame() -> None:
    hint = "If Secret agg-redis is not owned by this resource, delete it: it is made anew."
    stuck = pods("agg", ready=False, trouble="ContainerCreating", seconds=20.0)
    observed = replace(CALM, aggregator=group(members=stuck))
    assert condition(told(observed), "Reconciling")[2].endswith(hint)
    external = resource({"redis": {"mode": "External", "external": {"url": "redis://elsewhere"}}})
    assert "agg-redis" not in condition(told(observed, of=external), "Reconciling")[2]
    crashing = pods("agg-redis", ready=False, trouble="CrashLoopBackOff")
    observed = replace(CALM, redis=group("agg-redis", members=crashing))
    stalled = Work(stalled=Note("CrashLoopBackOff", "agg-redis-0 does not get ready."))
    for of in ("Ready", "Stalled"):
        assert (
            condition(told(observed, stalled), of)[2] == f"agg-redis-0 does not get ready. {hint}"
        )
    assert hint not in condition(told(CALM, stalled), "Stalled")[2]


def heard(**about: Any) -> Observed:
    return replace(CALM, replicas=dict(CALM.replicas) | {"agg-0": replica(**about)})


def store(**about: Any) -> dict[str, Any]:
    return {"store": {"reachable": True, "in_sync": True} | about, "failovers": []}


@pytest.mark.parametrize(
    ("about", "of", "status", "reason"),
    [
        ({"replicas": store(reachable=False)}, "StoreHealthy", "False", "RedisUnreachable"),
        ({"replicas": store(in_sync=False)}, "StateDurable", "False", "Merging"),
        (
            {"chain": {"seen_seconds_ago": None, "endpoints": []}},
            "ChainReachable",
            "False",
            "NoEndpoint",
        ),
        (
            {"chain": {"seen_seconds_ago": 61, "endpoints": [{"healthy": True}]}},
            "ChainReachable",
            "False",
            "NoEndpoint",
        ),
        (
            {
                "chain": {
                    "seen_seconds_ago": 1,
                    "endpoints": [{"name": "a", "healthy": True}, {"name": "b", "healthy": False}],
                }
            },
            "ChainReachable",
            "True",
            "SomeEndpointsDown",
        ),
        (
            {"submission": {"blocked": "CannotSend: own_funds: 1 wei"}},
            "SubmissionHealthy",
            "False",
            "OwnFunds",
        ),
        (
            {"parked": [{"reason": "fee_limit"}, {"reason": "too_early"}]},
            "SubmissionHealthy",
            "False",
            "FeeLimit",
        ),
        ({"parked": [{"reason": "too_early"}]}, "SubmissionHealthy", "True", "Submitting"),
    ],
)
def test_what_replicas_say(about: dict[str, Any], of: str, status: str, reason: str) -> None:
    assert condition(told(heard(**about)), of)[:2] == (status, reason)
    assert condition(told(heard(**about)), "Ready")[0] == "True"


def test_what_moves_in_a_replicas_words_moves_nothing_in_ours() -> None:
    one = told(
        heard(submission={"blocked": "CannotSend: own_funds: 1 wei"}, parked=[{"reason": "paused"}])
    )
    two = told(
        heard(
            submission={"blocked": "CannotSend: own_funds: 2 wei"},
            parked=[{"reason": "paused"}] * 9,
        )
    )
    assert one == two


def test_where_nobody_answers_nothing_is_known() -> None:
    silent = {f"agg-{n}": ReplicaView(said=None, why="no answer") for n in range(3)}
    for replicas, reason in ((silent, "NoReplicaAnswers"), ({}, "NoReplica")):
        status = told(replace(CALM, replicas=replicas))
        for of in ("StoreHealthy", "StateDurable", "ChainReachable"):
            assert condition(status, of)[:2] == ("Unknown", reason)
        assert condition(status, "SubmissionHealthy")[:2] == ("Unknown", "LeaderUnreachable")
        assert condition(status, "Ready")[0] == "True"


def test_an_observer_sends_nothing_and_that_is_healthy() -> None:
    status = told(of=resource({"submission": {"mode": "Observe"}}))
    assert condition(status, "SubmissionHealthy")[:2] == ("True", "Observing")


def test_who_signs_with_the_same_account_is_named_within_the_namespace() -> None:
    same = (("elsewhere", "hidden"), ("test", "other"))
    status = told(replace(CALM, same_signer=same))
    state, reason, message = condition(status, "SubmissionHealthy")
    assert (state, reason) == ("False", "DuplicateSigner")
    assert message.startswith("a resource of another namespace, other signs with the same account")
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (("a", "b", "c"), "Spread"),
        (("a", "a", "b"), "PodsShareNode"),
        (("a", "a", "a"), "PodsShareNode"),
    ],
)
def test_pods_that_share_a_node(nodes: tuple[str, ...], reason: str) -> None:
    placed = tuple(replace(pod, node=node) for pod, node in zip(pods("agg"), nodes, strict=True))
    status = told(replace(CALM, aggregator=group(members=placed)))
    assert condition(status, "FaultTolerant")[1] == reason


def test_one_replica_is_an_outage_away() -> None:
    alone = group(members=pods("agg", 1), replicas=1)
    status = told(replace(CALM, aggregator=alone), of=resource({"replicas": 1}))
    assert condition(status, "FaultTolerant")[:2] == ("False", "OneReplica")
    assert condition(status, "Ready")[0] == "True"


def test_without_redis_the_only_replica_leads() -> None:
    spec = {"replicas": 1, "redis": {"mode": "None"}}
    alone = Observed(
        aggregator=group(members=pods("agg", 1), replicas=1), replicas={"agg-0": replica()}
    )
    status = told(alone, of=resource(spec))
    assert status["leader"] == {"pod": "agg-0", "term": 2, "since": "2026-03-01T12:00:00Z"}
    assert condition(status, "LeaderElected")[:2] == ("True", "OnlyReplica")
    assert condition(status, "StoreHealthy")[:2] == ("True", "JournalOnly")
    assert condition(status, "StateDurable")[:2] == ("True", "Journalled")
    later = told(alone, of=resource(spec, status), now=NOW + timedelta(hours=1))
    assert later == status
    unheard = told(
        replace(alone, replicas={}), of=resource(spec, status), now=NOW + timedelta(hours=1)
    )
    assert unheard["leader"] == status["leader"]


def test_journals_that_go_with_their_pods_are_told() -> None:
    status = told(of=resource({"journal": {"mode": "Ephemeral"}}))
    assert condition(status, "StateDurable")[:2] == ("False", "EphemeralJournals")


def test_a_newer_image_is_offered_where_none_was_asked_for() -> None:
    newer = Release(image="aggregator:2", redis_image="valkey:1")
    status = compute_status(resource(), CALM, Work(), newer, NOW)
    assert condition(status, "UpToDate")[:2] == ("False", "NewerImageAvailable")
    asked = compute_status(resource({"image": "aggregator:1"}), CALM, Work(), newer, NOW)
    assert condition(asked, "UpToDate")[0] == "True"


def test_no_newer_image_is_offered_where_a_template_asks_for_one() -> None:
    newer = Release(image="aggregator:2", redis_image="valkey:2")
    ours = {"spec": {"containers": [{"name": "aggregator", "image": "aggregator:1"}]}}
    server = {"spec": {"containers": [{"name": "redis", "image": "valkey:1"}]}}
    asked = resource({"template": ours, "redis": {"managed": {"template": server}}})
    assert condition(compute_status(asked, CALM, Work(), newer, NOW), "UpToDate")[0] == "True"


BEFORE = {"image": "aggregator:0", "redis": {"image": "valkey:0"}}


@pytest.mark.parametrize(
    ("change", "work"),
    [
        ({"settings_hash": "other"}, Work()),
        ({"members": pods("agg", 2)}, Work()),
        ({"members": pods("agg", ready=False)}, Work()),
        ({"members": (), "replicas": 0}, Work()),
        ({"uid": ""}, Work()),
        ({}, Work(stalled=Note("Refused", "The API server takes no such set."))),
        ({}, Work(waiting=Note("CannotApply", "The API server is away."))),
        ({"image": "x" * 513}, Work()),
    ],
    ids=["outdated", "missing", "unready", "suspended", "left", "refused", "away", "too long"],
)
def test_an_image_counts_as_rolled_out_once_all_pods_serve_with_it(
    change: dict[str, Any], work: Work
) -> None:
    asked = change.get("image", "aggregator:1")
    template = {"spec": {"containers": [{"name": "aggregator", "image": asked}]}}
    of = resource({"template": template}, status=BEFORE)
    observed = replace(CALM, aggregator=group(**change))
    assert told(observed, work, of)["image"] == "aggregator:0"
    whole = resource({"image": "aggregator:1"}, status=BEFORE)
    assert told(of=whole)["image"] == "aggregator:1"


def test_an_image_is_kept_as_it_was_asked_for_whatever_was_made_of_it() -> None:
    spec = {"image": "aggregator:1", "redis": {"managed": {"image": "valkey:1"}}}
    rewritten = replace(
        CALM,
        aggregator=group(image="mirror/aggregator:1"),
        redis=group("agg-redis", image="mirror/valkey:1"),
    )
    status = told(rewritten, of=resource(spec, status=BEFORE))
    assert (status["image"], status["redis"]["image"]) == ("aggregator:1", "valkey:1")
    later = told(rewritten, of=resource(status=status))
    assert (later["image"], later["redis"]["image"]) == ("aggregator:1", "valkey:1")


def test_a_holder_of_any_length_is_told() -> None:
    long = "x" * 300
    status = told(replace(CALM, lease=replace(LEASE, holder=f"{long}.boot", pod=long)))
    assert status["leader"]["pod"] == long[:253]


def failover(term: int, over: str, **about: Any) -> dict[str, Any]:
    times = {
        "detect_ms": 1,
        "elect_ms": 2,
        "resume_ms": 3,
        "at": f"2026-03-01T11:{term:02}:00.000Z",
    }
    return {"term": term, "over": over} | times | about


def changes(**by_pod: list[dict[str, Any]]) -> Observed:
    replicas = {
        pod.replace("_", "-"): replica(replicas=store() | {"failovers": found})
        for pod, found in by_pod.items()
    }
    return replace(CALM, replicas=replicas)


def test_failovers_are_those_that_the_leaders_recorded() -> None:
    observed = changes(
        agg_0=[failover(1, ""), failover(4, "")], agg_1=[failover(2, "agg-0.ab"), failover(3, "")]
    )
    found = told(observed)["failovers"]
    assert [(each["term"], each["from"], each["to"]) for each in found] == [
        (4, "agg-1", "agg-0"),
        (3, "agg-1", "agg-1"),
        (2, "agg-0", "agg-1"),
    ]
    assert [(each["reason"], each["planned"]) for each in found] == [
        ("Handover", True),
        ("Handover", True),
        ("LeaseExpired", False),
    ]
    assert found[2]["at"] == "2026-03-01T11:02:00.000Z"
    assert (found[2]["detectMs"], found[2]["electMs"], found[2]["resumeMs"]) == (1, 2, 3)


def test_failovers_outlive_the_pods_that_recorded_them_and_are_few() -> None:
    first = told(changes(agg_1=[failover(2, "agg-0.ab")]))
    later = told(changes(agg_2=[failover(3, "agg-1.cd")]), of=resource(status=first))
    assert [each["term"] for each in later["failovers"]] == [3, 2]
    assert later["failovers"][1] == first["failovers"][0]
    many = told(changes(agg_1=[failover(term, "x.y") for term in range(2, 40)]))
    assert [each["term"] for each in many["failovers"]] == list(range(39, 29, -1))


def test_pods_that_a_former_resource_of_the_name_left_tell_nothing_of_this_one() -> None:
    observed = changes(agg_1=[failover(9, "agg-0.ab")])
    left = pods("agg", resource_uid="another")
    status = told(replace(observed, aggregator=group(uid="", members=left)))
    assert status["failovers"] == []
    own = pods("agg", resource_uid="uid")
    status = told(replace(observed, aggregator=group(uid="", members=own)))
    assert [each["term"] for each in status["failovers"]] == [9]


def test_a_failover_without_a_time_has_that_of_when_it_was_heard_of() -> None:
    old = failover(2, "agg-0.ab")
    del old["at"]
    first = told(changes(agg_1=[old]))
    assert first["failovers"][0]["at"] == "2026-03-01T12:00:00Z"
    later = told(changes(agg_1=[old]), of=resource(status=first), now=NOW + timedelta(hours=1))
    assert later["failovers"] == first["failovers"]


def test_the_highest_term_never_falls() -> None:
    assert highest_term({"highestTerm": 9}, CALM) == 9
    assert highest_term({}, CALM) == 2
    fenced = heard(replicas={"fence": {"term": 12, "holder": "x"}})
    assert highest_term({"highestTerm": 9}, fenced) == 12


def test_a_spec_that_was_not_understood_says_nothing_of_what_runs() -> None:
    before = told()
    manifest = {"metadata": {"name": "agg", "generation": 2}, "status": before}
    status = stalled_status(manifest, Note("InvalidSpec", "spec.replicas: too many"), NOW)
    assert status["observedGeneration"] == 2
    assert condition(status, "Ready")[:2] == ("False", "InvalidSpec")
    assert condition(status, "Stalled") == ("True", "InvalidSpec", "spec.replicas: too many")
    assert condition(status, "ChainReachable")[0] == "Unknown"
    assert status.keys().isdisjoint({"leader", "replicas", "readyReplicas"})
    kept = ("highestTerm", "failovers", "redis", "image", "selector")
    assert {key: status.get(key) for key in kept} == {key: before.get(key) for key in kept}


def test_a_head_that_was_seen_at_no_time_is_not_fresh() -> None:
    chain = {"seen_seconds_ago": float("nan"), "endpoints": [{"name": "main", "healthy": True}]}
    seen = replace(CALM, replicas={"agg-0": replica(chain=chain)})
    told = compute_status(resource(), seen, Work(), RELEASE, NOW)
    assert condition_of(told, ConditionType.CHAIN_REACHABLE)["reason"] == "NoEndpoint"


def test_addresses_that_are_missing_for_now_are_not_forgotten() -> None:
    former = {"redis": {"addresses": ["10.96.0.1", "10.96.0.2", "10.96.0.3"]}}
    seen = replace(CALM, redis_addresses=())
    told = compute_status(resource(status=former), seen, Work(), RELEASE, NOW)
    assert told["redis"]["addresses"] == former["redis"]["addresses"]
