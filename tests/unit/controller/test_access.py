from __future__ import annotations

from copy import deepcopy
from typing import Any

from controller import names, ports
from controller.access import OWN, SERVED, By, Right, rules
from controller.handlers import WATCHED
from controller.reconcile import Reconciler
from controller.resource import parse
from tests.fakes.recording import RecordingCluster
from tests.unit.controller.stories import NAMESPACE, World


def recorded(world: World) -> RecordingCluster:
    recording = RecordingCluster(world.cluster)
    world.reconciler = Reconciler(recording, world.release, world, world.time, lambda: "secret")
    return recording


async def every_story() -> set[Right]:
    """The rights that a life uses: made, rolled, grown, changed in kind, cleaned up."""
    world = World()
    recording = recorded(world)
    world.create()
    await world.settle()
    world.change({"submission": {"maxInFlight": 2}})  # evictions, and a handover
    await world.settle()
    world.change({"journal": {"size": "2Gi"}})
    await world.settle()
    leftovers(world)
    await world.turn()
    return recording.used


def leftovers(world: World) -> None:
    """One object of each kind that is rendered no more, as an older release may leave it."""
    owner = names.owner_reference(parse(world.resource()))
    for kind in ports.OWNED:
        live = deepcopy(world.cluster.all(kind, NAMESPACE)[0])
        metadata = {
            "name": f"old-{kind.plural}",
            "namespace": NAMESPACE,
            "labels": live["metadata"]["labels"],
            "ownerReferences": [owner],
        }
        world.cluster.put(
            {
                part: value
                for part, value in (live | {"metadata": metadata}).items()
                if part != "status"
            }
        )


async def test_the_rights_of_a_pass_are_those_that_it_uses() -> None:
    used = await every_story()
    listed = {right for right, by in SERVED.items() if by is By.PASS}
    watched = {right for right, by in SERVED.items() if by is By.WATCH and right.verb == "list"}
    assert used - listed - watched == set()
    assert listed - used == set()


def test_every_watch_may_list_and_watch() -> None:
    for kind in (ports.AGGREGATORS, *WATCHED):
        group = kind.api_version.rpartition("/")[0]
        for verb in ("list", "watch"):
            assert Right(group, kind.plural, verb) in SERVED
    watches = {right for right in SERVED if right.verb == "watch"}
    assert len(watches) == len(WATCHED) + 1


async def test_what_pods_are_granted_is_ours_to_grant() -> None:
    world = World()
    world.create()
    await world.turn()
    granted: set[Right] = set()
    for role in world.cluster.all(ports.ROLES, NAMESPACE):
        for rule in role["rules"]:
            granted |= {
                Right(group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    assert granted
    assert granted <= SERVED.keys()
    assert {right for right, by in SERVED.items() if by is By.GRANT} <= granted


def test_secrets_are_never_read() -> None:
    assert {right.verb for right in SERVED | OWN if right.resource == "secrets"} == {"create"}


def test_rules_say_the_same_as_rights() -> None:
    made: list[dict[str, Any]] = rules(SERVED)
    said = {
        Right(group, resource, verb)
        for rule in made
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert said == set(SERVED)
    assert rules(OWN) == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["create", "get", "update", "watch"],
        }
    ]
    assert not any("*" in str(rule) for rule in made)
