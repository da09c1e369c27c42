from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.errors import ClusterAway, Conflict, Gone, Refused
from controller.essence import Key
from controller.guarded import GuardedCluster
from controller.lead import NotLeading
from controller.ports import AGGREGATORS, CONFIG_MAPS, PODS
from controller.queue import Backoff, WorkQueue
from controller.reconcile import Outcome
from controller.workers import Workers, resync
from tests.fakes.cluster import FakeCluster
from tests.fakes.virtual_time import now, run
from tests.kubernetes import an_aggregator

DEMO, OTHER = Key("test", "demo"), Key("test", "other")
NOTHING = Outcome()


class Office:
    """Workers, and passes that do as they are told."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []
        self.results: list[str] = []
        self.drift = 0
        self.plan: list[Outcome | Exception | float] = []
        """Of the next passes: how they end, or how long they take."""
        self.writes: list[str] = []
        """Kinds that each pass writes."""
        self.queue: WorkQueue[Key] = WorkQueue(now, Backoff(random=lambda: 0.0))
        self.workers = Workers(self.queue, self, self, now)

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        self.began.append((name, round(now(), 3)))
        for kind in self.writes:
            self.workers.wrote(kind, "status" if kind == "status" else "apply")
        step = self.plan.pop(0) if self.plan else NOTHING
        if isinstance(step, float):
            await asyncio.sleep(step)
            return NOTHING
        if isinstance(step, Exception):
            raise step
        return step

    def passed(self, result: str, seconds: float) -> None:
        self.results.append(result)

    def drifted(self) -> None:
        self.drift += 1

    @asynccontextmanager
    async def open(self, count: int = 2) -> Any:
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(self.workers.work()) for _ in range(count)]
            yield
            for one in working:
                one.cancel()


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test in virtual time."""

    def test() -> None:
        run(story())

    return test


@told
async def test_a_change_of_a_resource_is_a_pass_at_once() -> None:
    office = Office()
    async with office.open():
        office.workers.resource(DEMO)
        await asyncio.sleep(1)
    assert office.began == [("demo", 0.0)]
    assert office.results == ["done"]


@told
async def test_a_burst_of_changes_of_objects_is_one_pass() -> None:
    office = Office()
    async with office.open():
        for _ in range(20):
            office.workers.child(DEMO)
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
    assert office.began == [("demo", 0.1)]


@told
async def test_a_pass_comes_again_when_it_wants_to() -> None:
    office = Office()
    office.plan = [Outcome(requeue_after=7.0), NOTHING]
    async with office.open():
        office.workers.resource(DEMO)
        await asyncio.sleep(60)
    assert office.began == [("demo", 0.0), ("demo", 7.0)]


@told
async def test_what_fails_comes_again_later_each_time_until_it_succeeds() -> None:
    office = Office()
    office.plan = [ClusterAway("500"), Conflict("409"), Gone("404"), NOTHING, ClusterAway("500")]
    async with office.open():
        office.workers.resource(DEMO)
        await asyncio.sleep(60)
        office.workers.resource(DEMO)
        await asyncio.sleep(60)
    assert office.began == [("demo", at) for at in (0.0, 0.2, 0.6, 1.4, 60.0, 60.2)]
    assert office.results == ["away", "conflict", "conflict", "done", "away", "done"]


@told
async def test_a_busy_api_server_is_left_alone_for_as_long_as_it_asks() -> None:
    office = Office()
    office.plan = [ClusterAway("429", retry_after=9.0)]
    async with office.open():
        office.workers.resource(DEMO)
        await asyncio.sleep(60)
    assert office.began == [("demo", 0.0), ("demo", 9.0)]


@told
async def test_one_resource_that_fails_holds_up_no_other() -> None:
    office = Office()
    office.plan = [Refused("403", 403)]
    async with office.open(count=1):
        office.workers.resource(DEMO)
        office.workers.resource(OTHER)
        await asyncio.sleep(0.1)
        assert office.began == [("demo", 0.0), ("other", 0.0)]
    assert office.results == ["refused", "done"]


@told
async def test_a_pass_that_hangs_is_cut_off_and_comes_again() -> None:
    office = Office()
    office.plan = [1000.0]
    async with office.open(count=1):
        office.workers.resource(DEMO)
        await asyncio.sleep(30)
        assert office.workers.longest == 30
        await asyncio.sleep(70)
    assert office.began == [("demo", 0.0), ("demo", 60.2)]
    assert office.results == ["late", "done"]
    assert office.workers.longest == 0


async def open_for(office: Office, seconds: float) -> None:
    async with office.open():
        await asyncio.sleep(seconds)


@told
async def test_a_defect_that_one_resource_brings_up_stops_no_other() -> None:
    office = Office()
    office.plan = [KeyError("a defect")]
    office.workers.resource(DEMO)
    office.workers.resource(OTHER)
    await open_for(office, 1)
    assert sorted(name for name, _ in office.began) == ["demo", "demo", OTHER.name]
    assert office.results == ["defect", "done", "done"]


@told
async def test_a_stop_lets_passes_under_way_end_and_begins_no_other() -> None:
    office = Office()
    office.plan = [5.0, 8.0]
    async with office.open(count=2):
        for key in (DEMO, OTHER, Key("test", "third")):
            office.workers.resource(key)
        await asyncio.sleep(1)
        await office.workers.stop()
        assert now() == 8.0
        await asyncio.sleep(10)
    assert [name for name, _ in office.began] == ["demo", "other"]
    assert office.results == ["done", "done"]


@told
async def test_what_a_list_finds_and_no_event_told_is_drift() -> None:
    office = Office()
    async with office.open():
        office.workers.list([DEMO])
        await asyncio.sleep(1)
        office.writes = ["Service"]
        office.workers.list([DEMO])
        await asyncio.sleep(1)
        assert office.drift == 1
        office.workers.child(DEMO)
        await asyncio.sleep(1)
    assert len(office.began) == 3
    assert office.drift == 1


@pytest.mark.parametrize("step", [Outcome(requeue_after=5.0), ClusterAway("500")])
def test_work_that_goes_on_is_no_drift(step: Outcome | Exception) -> None:
    async def story() -> None:
        office = Office()
        office.writes = ["Service"]
        office.plan = [step, step]
        async with office.open():
            office.workers.list([DEMO])
            await asyncio.sleep(100)
        assert len(office.began) == 3
        assert office.drift == 0

    run(story())


@pytest.mark.parametrize("written", ["status", "Event"])
def test_a_report_is_no_drift(written: str) -> None:
    async def story() -> None:
        office = Office()
        office.writes = [written]
        async with office.open():
            for _ in range(3):
                office.workers.list([DEMO])
                await asyncio.sleep(1)
        assert len(office.began) == 3
        assert office.drift == 0

    run(story())


@told
async def test_an_event_during_a_pass_is_not_taken_for_drift() -> None:
    office = Office()
    office.plan = [1.0]
    async with office.open():
        office.workers.list([DEMO])
        await asyncio.sleep(0.5)
        office.workers.child(DEMO)
        office.writes = ["Service"]
        await asyncio.sleep(5)
    assert len(office.began) == 2
    assert office.drift == 0


# Lists.


class Listing(FakeCluster):
    def __init__(self) -> None:
        super().__init__()
        self.listed: list[float] = []

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        self.listed.append(now())
        return await super().list(*args, **kwargs)


@told
async def test_everything_is_listed_every_few_minutes() -> None:
    office, cluster = Office(), Listing()
    cluster.put(an_aggregator("test", "demo"))
    cluster.put(an_aggregator("test", "other"))
    async with office.open(), asyncio.TaskGroup() as tasks:
        listing = tasks.create_task(
            resync(cluster, ["test"], office.workers, asyncio.Event(), 300.0)
        )
        await asyncio.sleep(3600)
        listing.cancel()
    pauses = [later - at for at, later in zip(cluster.listed, cluster.listed[1:], strict=False)]
    assert cluster.listed[0] == 0
    assert 10 < len(pauses) < 15
    assert all(270 <= pause <= 330 for pause in pauses)
    assert len(set(pauses)) > 1
    assert len(office.began) == 2 * len(cluster.listed)


@told
async def test_a_list_that_fails_is_asked_for_again_soon() -> None:
    office, cluster = Office(), Listing()
    cluster.put(an_aggregator("test", "demo"))
    cluster.fail(1, ClusterAway("500"))
    async with office.open(), asyncio.TaskGroup() as tasks:
        listing = tasks.create_task(resync(cluster, [None], office.workers, asyncio.Event()))
        await asyncio.sleep(6)
        listing.cancel()
    assert cluster.listed == [0.0, 5.0]
    assert office.began == [("demo", 5.0)]


@told
async def test_who_missed_something_has_everything_listed_at_once() -> None:
    office, cluster, wanted = Office(), Listing(), asyncio.Event()
    async with office.open(), asyncio.TaskGroup() as tasks:
        listing = tasks.create_task(resync(cluster, ["one", "two"], office.workers, wanted))
        await asyncio.sleep(42)
        wanted.set()
        await asyncio.sleep(42)
        listing.cancel()
    assert cluster.listed == [0.0, 0.0, 42.0, 42.0]


# Writes.


class Guard:
    def __init__(self) -> None:
        self.leads = True
        self.wrote: list[tuple[str, str]] = []
        self.fake = FakeCluster()
        self.cluster = GuardedCluster(
            self.fake, self.require, lambda *write: self.wrote.append(write)
        )

    def require(self) -> None:
        if not self.leads:
            raise NotLeading("it was lost")


def a_map(name: str = "one") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "test"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}


def every_write(guard: Guard) -> list[Callable[[], Coroutine[Any, Any, object]]]:
    cluster, status = guard.cluster, an_aggregator("test") | {"status": {"replicas": 1}}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "test"}}
    return [
        lambda: cluster.create(a_map()),
        lambda: cluster.apply(a_map("two")),
        lambda: cluster.apply(status, subresource="status"),
        lambda: cluster.patch(a_map("two") | {"data": {"a": "1"}}),
        lambda: cluster.delete(CONFIG_MAPS, "test", "gone", uid="gone"),
        lambda: cluster.evict("test", "gone", uid="gone"),
        lambda: cluster.record(event),
    ]


async def test_every_write_is_counted_by_kind_and_verb() -> None:
    guard = Guard()
    guard.fake.put(an_aggregator("test"))
    for write in every_write(guard):
        await write()
    assert guard.wrote == [
        ("ConfigMap", "create"),
        ("ConfigMap", "apply"),
        ("AlignedAggregator", "status"),
        ("ConfigMap", "patch"),
        ("ConfigMap", "delete"),
        ("Pod", "evict"),
        ("Event", "create"),
    ]


async def test_who_does_not_lead_reads_and_writes_nothing() -> None:
    guard = Guard()
    guard.fake.put(an_aggregator("test"))
    guard.leads = False
    for write in every_write(guard):
        with pytest.raises(NotLeading):
            await write()
    assert guard.wrote == []
    assert guard.fake.writes == []
    assert guard.fake.events == []
    assert len(await guard.cluster.list(AGGREGATORS, None)) == 1
    assert await guard.cluster.get(PODS, "test", "none") is None


async def test_a_dry_run_is_no_write() -> None:
    guard = Guard()
    guard.leads = False
    await guard.cluster.create(a_map(), dry_run=True)
    assert guard.wrote == []
    assert guard.fake.writes == []


async def test_what_failed_is_not_counted() -> None:
    guard = Guard()
    guard.fake.fail(1, Conflict("409"))
    with pytest.raises(Conflict):
        await guard.cluster.create(a_map())
    assert guard.wrote == []
