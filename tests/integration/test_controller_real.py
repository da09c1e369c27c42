"""Processes of the controller at a real API server, with the rights that it is given there."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller import names, ports
from controller.access import OWN, SERVED, Right, rules
from controller.kubeconfig import api_server
from controller.lead import SAFE
from controller.ports import AGGREGATORS, LEASES, Kind
from tests.cluster.faults import Faults, faults
from tests.integration.controllers import Controller, controller, of_account, started
from tests.kubernetes import Admin, an_aggregator, environment, kubeconfig, path_of
from tests.waiting import until

RBAC = "rbac.authorization.k8s.io"
DONE = 'controller_reconciles_total{result="done"}'
TRIES = 3


def is_ours(found: Any) -> bool:
    """Tell whether the controller made it; others make accounts and ConfigMaps as well."""
    return bool(found["metadata"].get("labels", {}).get(names.MANAGED_BY) == names.MANAGER)


@dataclass(frozen=True)
class Place:
    """A namespace, and an administrator of it."""

    admin: Admin
    namespace: str
    folder: Path

    async def read(self, kind: Kind, name: str) -> Any:
        status, found = await self.admin.try_call("GET", path_of(kind, self.namespace, name))
        return found if status == 200 else None

    async def all(self, kind: Kind) -> list[Any]:
        return list((await self.admin.call("GET", path_of(kind, self.namespace)))["items"])

    async def ours(self) -> dict[str, str]:
        """Uids of all objects that the controller made."""
        return {
            f"{kind.kind} {each['metadata']['name']}": each["metadata"]["uid"]
            for kind in ports.OWNED
            for each in await self.all(kind)
            if is_ours(each)
        }

    async def create(self, name: str = "demo", **spec: object) -> Any:
        body = an_aggregator(self.namespace, name)
        body["spec"] |= spec
        return await self.admin.call("POST", path_of(AGGREGATORS, self.namespace), body)

    async def account(self, served: list[Right], own: list[Right], home: str = "") -> Path:
        """A kubeconfig of a service account with exactly these rights.

        Args:
            served: In this namespace.
            own: In that of the controller's Lease.
            home: That namespace. Absent: this one.
        """
        account = {"metadata": {"name": "controller"}}
        await self.admin.call("POST", path_of(ports.SERVICE_ACCOUNTS, self.namespace), account)
        await self._allow("served", self.namespace, served)
        await self._allow("own", home or self.namespace, own)
        return await of_account(self.admin, self.folder, self.namespace, "controller")

    async def _allow(self, name: str, namespace: str, rights: list[Right]) -> None:
        me = {"kind": "ServiceAccount", "name": "controller", "namespace": self.namespace}
        named = {"metadata": {"name": name}}
        role = named | {"rules": rules(rights)}
        await self.admin.call("POST", path_of(ports.ROLES, namespace), role)
        ref = {"apiGroup": RBAC, "kind": "Role", "name": name}
        binding = named | {"roleRef": ref, "subjects": [me]}
        await self.admin.call("POST", path_of(ports.ROLE_BINDINGS, namespace), binding)

    @asynccontextmanager
    async def running(
        self, config: Path, *options: str, pod: str = "controller-0"
    ) -> AsyncIterator[Controller]:
        here = ("--namespace", self.namespace, "--lease-namespace", self.namespace)
        async with controller(config, self.folder, *here, *options, pod=pod) as one:
            await started(one)
            yield one


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    with api_server({}, kubeconfig()) as server:
        async with Admin(server) as admin, admin.namespace("operation") as namespace:
            await admin.apply_crd()
            yield Place(admin, namespace, tmp_path)


@pytest.fixture
async def config(place: Place) -> Path:
    """With the rights that are written down."""
    return await place.account(list(SERVED), list(OWN))


async def is_told(place: Place, name: str = "demo") -> bool:
    found = await place.read(AGGREGATORS, name)
    return bool(found and found.get("status", {}).get("conditions"))


async def is_made(place: Place, name: str = "demo") -> bool:
    return await place.read(ports.STATEFUL_SETS, name) is not None


async def settled(place: Place) -> dict[str, str]:
    """All objects, when no more are made."""
    seen: list[dict[str, str]] = [{}]

    async def holds() -> bool:
        seen.append(await place.ours())
        return bool(seen[-1]) and seen[-1] == seen[-2] and await is_made(place)

    await until(holds, "everything is made")
    return seen[-1]


async def test_the_rights_that_are_written_down_are_enough(place: Place, config: Path) -> None:
    async with place.running(config) as one:
        await place.create(journal={"size": "1Gi"})
        made = await settled(place)
        assert {"StatefulSet demo", "StatefulSet demo-redis", "Lease demo"} <= made.keys()
        await until(lambda: is_told(place), "its status is told")
        assert await one.stops() == 0
        log = one.log.read_text()
    assert "forbidden" not in log.lower()
    lease = await place.read(LEASES, names.MANAGER)
    assert not lease["spec"].get("holderIdentity")
    assert lease["spec"]["leaseTransitions"] == 1


async def test_the_rights_on_its_own_lease_are_enough_where_nothing_is_served(
    place: Place,
) -> None:
    async with place.admin.namespace("home") as home:
        config = await place.account(list(SERVED), list(OWN), home)
        there = ("--lease-namespace", home)
        async with place.running(config, *there) as one:
            await place.create(redis={"mode": "None"}, replicas=1)
            await settled(place)
            assert await one.stops() == 0
            assert "forbidden" not in one.log.read_text().lower()
        lease = await place.admin.call("GET", path_of(LEASES, home, names.MANAGER))
        assert not lease["spec"].get("holderIdentity")
        assert lease["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize(
    "missing", [Right("", "services", "patch"), Right("policy", "poddisruptionbudgets", "list")]
)
async def test_a_right_that_is_missing_is_told(place: Place, missing: Right) -> None:
    config = await place.account([right for right in SERVED if right != missing], list(OWN))
    here = ("--namespace", place.namespace, "--lease-namespace", place.namespace)
    async with controller(config, place.folder, *here) as one:
        await place.create()

        async def is_said() -> bool:
            found = await place.read(AGGREGATORS, "demo")
            return missing.resource in one.log.read_text() or missing.resource in str(
                found.get("status")
            )

        await until(is_said, "what is missing is told")


async def test_what_is_deleted_or_changed_by_hand_is_repaired(place: Place, config: Path) -> None:
    async with place.running(config) as one:
        await place.create(redis={"mode": "None"}, replicas=1)
        made = await settled(place)
        for kind in ports.OWNED:
            for each in await place.all(kind):
                name = each["metadata"]["name"]
                if f"{kind.kind} {name}" in made:
                    await place.admin.call("DELETE", path_of(kind, place.namespace, name))

        async def is_repaired() -> bool:
            now = await place.ours()
            return now.keys() == made.keys() and not now.items() & made.items()

        await until(is_repaired, "all is made again")
        service = path_of(ports.SERVICES, place.namespace, "demo")
        await place.admin.merge(service, {"spec": {"ports": [{"port": 1, "name": "other"}]}})

        async def is_changed_back() -> bool:
            found = (await place.read(ports.SERVICES, "demo"))["spec"]
            return 8090 in {port["port"] for port in found["ports"]}

        await until(is_changed_back, "it is changed back")
        assert await one.metric("controller_drift_repaired_total") == 0.0


async def test_deletion_needs_no_controller(place: Place, config: Path) -> None:
    async with place.running(config) as one:
        await place.create(redis={"mode": "None"}, replicas=1)
        made = await settled(place)
        one.send(signal.SIGKILL)
        await one.ended()
    found = await place.read(AGGREGATORS, "demo")
    assert "finalizers" not in found["metadata"]
    assert not found["metadata"].get("annotations")
    await place.admin.call("DELETE", path_of(AGGREGATORS, place.namespace, "demo"))

    async def is_collected() -> bool:
        return not (await place.ours()).keys() & made.keys()

    await until(is_collected, "all its objects go")


async def test_one_of_two_works_and_the_other_takes_over(place: Place, config: Path) -> None:
    async with (
        place.running(config, pod="one") as one,
        place.running(config, pod="other") as other,
    ):
        await until(lambda: any_leads(one, other), "one leads")
        leader, standby = (one, other) if await one.leads() else (other, one)
        await place.create(redis={"mode": "None"}, replicas=1)
        await settled(place)
        assert await standby.metric(DONE) == 0.0
        leader.send(signal.SIGKILL)
        await place.create("second", redis={"mode": "None"}, replicas=1)
        await until(lambda: is_made(place, "second"), "the other works")
        assert await standby.leads()
        lease = await place.read(LEASES, names.MANAGER)
        assert lease["spec"]["leaseTransitions"] == 2


async def any_leads(*controllers: Controller) -> bool:
    return any([await one.leads() for one in controllers])


async def test_at_rest_nothing_but_leases_is_written(place: Place, config: Path) -> None:
    async with place.running(config, "--resync", "10s") as one:
        for name in ("demo", "second"):
            await place.create(name, redis={"mode": "None"}, replicas=1, suspend=True)
        await settled(place)
        await until(lambda: is_told(place, "second"), "all is told")
        await until(lambda: are_known(place), "the cluster's own controllers know the sets")
        passes = await one.metric(DONE)
        await until(lambda: more(one, DONE, passes + 2), "some passes are done")
        before, passes = await versions(place), await one.metric(DONE)
        await until(lambda: more(one, DONE, passes + 4), "more passes are done")
        assert await versions(place) == before
        assert await one.metric("controller_drift_repaired_total") == 0.0


async def are_known(place: Place) -> bool:
    """Tell whether the sets' status is there: after an outage that may be late, and is a write."""
    sets = await place.all(ports.STATEFUL_SETS)
    return all(
        each.get("status", {}).get("observedGeneration") == each["metadata"]["generation"]
        for each in sets
    )


async def more(one: Controller, metric: str, than: float) -> bool:
    return await one.metric(metric) > than


async def versions(place: Place) -> dict[str, tuple[str, list[str]]]:
    """What the resources are at, and everything that the controller made but Leases.

    With who wrote them and when, so that a difference says whose it is.
    """
    kinds = [kind for kind in ports.OWNED if kind != LEASES]
    found = {
        f"{names.KIND} {each['metadata']['name']}": each for each in await place.all(AGGREGATORS)
    }
    for kind in kinds:
        for each in await place.all(kind):
            if is_ours(each):
                found[f"{kind.kind} {each['metadata']['name']}"] = each
    return {name: version(each["metadata"]) for name, each in found.items()}


def version(metadata: Any) -> tuple[str, list[str]]:
    wrote = [
        f"{each['manager']} {each.get('subresource', '')} {each['time']}"
        for each in metadata.get("managedFields", ())
    ]
    return metadata["resourceVersion"], wrote


async def test_fifty_resources_are_little_work(place: Place, config: Path) -> None:
    async with place.running(config, "--resync", "10s") as one:
        for number in range(50):
            await place.create(f"demo-{number}", redis={"mode": "None"}, replicas=1)

        async def all_told() -> bool:
            found = await place.all(AGGREGATORS)
            return all(each.get("status", {}).get("conditions") for each in found)

        await until(all_told, "all are made and told", seconds=240)
        before = one.memory()
        passes = await one.metric(DONE)
        await until(lambda: more(one, DONE, passes + 300), "all are looked at again", seconds=240)
        print(f"memory: {before:.0f} MB, then {one.memory():.0f} MB")  # noqa: T201 - for a reader
        assert one.memory() < 250


# Faults.


@pytest.fixture
def broken() -> Faults:
    them = faults(environment("CLUSTER_FAULTS"))
    if them is None:
        pytest.skip("CLUSTER_FAULTS names nothing that can stop this cluster's API server")
    return them


async def test_an_api_server_that_was_away_for_thirty_seconds(
    place: Place, config: Path, broken: Faults
) -> None:
    async with (
        place.running(config, pod="one") as one,
        place.running(config, pod="other") as other,
    ):
        await until(lambda: any_leads(one, other), "one leads")
        leader, standby = (one, other) if await one.leads() else (other, one)
        await place.create(redis={"mode": "None"}, replicas=1)
        await settled(place)
        await asyncio.to_thread(broken.stop_api_server)
        stopped = time.monotonic()
        try:
            assert await leader.ended() == 1, "who cannot renew ends, and is started again"
            await asyncio.sleep(max(stopped + 30 - time.monotonic(), 0.0))
        finally:
            await asyncio.to_thread(broken.start_api_server)
        assert standby.code is None
        await until(standby.leads, "the other leads")
        await until(lambda: takes(place), "the API server takes requests")
        path = path_of(ports.SERVICES, place.namespace, "demo")
        uid = (await place.read(ports.SERVICES, "demo"))["metadata"]["uid"]
        await place.admin.call("DELETE", path)

        async def is_back() -> bool:
            found = await place.read(ports.SERVICES, "demo")
            return found is not None and found["metadata"]["uid"] != uid

        await until(is_back, "it works as before", seconds=120)


async def takes(place: Place) -> bool:
    try:
        await place.all(AGGREGATORS)
    except (AssertionError, OSError):
        return False
    return True


async def test_a_deletion_while_the_controller_was_stopped_and_history_was_lost(
    place: Place, config: Path, broken: Faults
) -> None:
    # Suspended there are no pods to wait for: no pass comes by itself.
    await place.create(redis={"mode": "None"}, replicas=1, suspend=True)
    for _ in range(TRIES):
        async with place.running(config) as one:
            if await makes_again_what_no_event_told(place, one, broken):
                # Nothing but its watches could tell it of this one: it lists every five minutes.
                await place.create("second", redis={"mode": "None"}, replicas=1, suspend=True)
                await until(lambda: is_made(place, "second"), "it watches again")
                assert one.code is None
                return
    pytest.skip(
        "this machine is too slow: each time the Lease ran out before the API server was back"
    )


async def makes_again_what_no_event_told(place: Place, one: Controller, broken: Faults) -> bool:
    """Whether it did; False: its Lease ran out meanwhile, so that it ended and shows nothing."""
    await until(lambda: more(one, DONE, 1), "some passes are done")
    made = await settled(place)
    stopped = time.monotonic()
    one.send(signal.SIGSTOP)
    # It has to be away before: what it sends to a process that is stopped is read later.
    await asyncio.to_thread(broken.stop_api_server)
    await asyncio.to_thread(broken.start_api_server)
    await until(lambda: takes(place), "the API server takes requests")
    await place.admin.call("DELETE", path_of(ports.SERVICES, place.namespace, "demo"))
    one.send(signal.SIGCONT)
    was_long = time.monotonic() - stopped > SAFE.deadline / 2

    async def is_back() -> bool:
        found = await place.read(ports.SERVICES, "demo")
        is_new = found is not None and found["metadata"]["uid"] != made["Service demo"]
        return is_new or one.code is not None

    await until(is_back, "it is made again", seconds=120)
    assert one.code is None or (one.code == 1 and was_long), "only who cannot renew ends"
    return one.code is None


async def test_a_definition_that_was_deleted_and_applied_again(place: Place, config: Path) -> None:
    await place.admin.needs_to_be_alone()
    async with place.running(config) as one:
        await place.create(redis={"mode": "None"}, replicas=1)
        await settled(place)
        await place.admin.delete_crd()
        ended = "controller_watches_ended_total"
        await until(lambda: more(one, ended, 0), "the watches have ended")
        await place.admin.apply_crd()
        await started(one)
        await place.create("again", redis={"mode": "None"}, replicas=1)
        await until(lambda: is_made(place, "again"), "it works again")
        assert one.code is None
