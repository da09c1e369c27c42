"""Release N beside N-1 over one store: the format is raised when all replicas read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from aggregator.store.keys import Keys
from aggregator.store.redis import RedisStore
from aligned.errors import StateMismatch
from aligned.model import Term
from devnet.sentinel import SentinelGroup
from tests.fakes.builders import entry
from tests.fakes.redis import STEADY, a_row, discovery_of, identity, programs

pytestmark = pytest.mark.usefixtures("patient_store")

ONE = Term(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(programs("valkey", tmp_path_factory.mktemp("programs")), STEADY) as group:
        yield group


class Releases:
    """Stores of replicas that run different releases."""

    def __init__(self, group: SentinelGroup, stack: AsyncExitStack) -> None:
        self.group = group
        self._stack = stack

    def store(self, pod: str, reads: int, steady: float = 0.0) -> RedisStore:
        """Return the store of a replica whose release reads formats up to ``reads``."""
        store = RedisStore(
            discovery_of(self.group), identity(), writer=pod, reads=reads, steady=steady
        )
        self._stack.push_async_callback(store.aclose)
        return store

    @property
    def format(self) -> str:
        meta = Keys.of(identity()).prefix.decode() + "meta"
        port = self.group.machines[self.group.primary()].port
        return self.group.ask(port, "HGET", meta, "format").split("\n")[-1]

    def leave(self, pod: str) -> None:
        """Forget a replica, as the store does when it has been silent for long."""
        members = Keys.of(identity()).prefix.decode() + "members"
        self.group.ask(self.group.machines[self.group.primary()].port, "HDEL", members, pod)


@pytest.fixture
async def releases(running: SentinelGroup) -> AsyncIterator[Releases]:
    running.wipe()
    async with AsyncExitStack() as stack:
        yield Releases(running, stack)


async def test_a_new_store_begins_with_what_every_release_reads(releases: Releases) -> None:
    await releases.store("new", reads=2).put([entry()])
    assert releases.format == "1"
    await releases.store("old", reads=1).put([entry()])


async def test_a_leader_of_the_new_release_leaves_the_format_while_an_old_one_lives(
    releases: Releases,
) -> None:
    new, old = releases.store("new", reads=2), releases.store("old", reads=1)
    await old.beat("old", b"")
    await new.beat("new", b"")
    await new.claim(ONE, "new")
    await new.confirm(ONE, "new")
    assert (releases.format, new.format) == ("1", 1)
    await old.put([entry()])
    await new.record(ONE, "new", a_row())
    assert await old.rows() == [a_row()]


async def test_the_leader_raises_the_format_when_all_read_the_new_one(
    releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = releases.store("first", reads=2), releases.store("second", reads=2)
    old = releases.store("old", reads=1)
    await old.beat("old", b"")
    for pod, store in (("first", first), ("second", second)):
        await store.beat(pod, b"")
    await first.claim(ONE, "first")
    await first.confirm(ONE, "first")
    assert releases.format == "1"
    releases.leave("old")
    await first.beat("first", b"")
    await first.confirm(ONE, "first")
    assert (releases.format, first.format) == ("2", 2)
    assert "every replica reads it" in caplog.text
    await second.put([entry()])
    with pytest.raises(StateMismatch, match="written by a later release"):
        await releases.store("old", reads=1).put([entry()])


async def test_an_old_leader_raises_nothing(releases: Releases) -> None:
    old, new = releases.store("old", reads=1), releases.store("new", reads=2)
    await new.beat("new", b"")
    await old.beat("old", b"")
    await old.claim(ONE, "old")
    await old.confirm(ONE, "old")
    assert releases.format == "1"


async def test_who_has_not_heard_of_the_others_raises_nothing(releases: Releases) -> None:
    new = releases.store("new", reads=2)
    await new.claim(ONE, "new")
    await new.confirm(ONE, "new")
    assert releases.format == "1"


async def test_a_wiped_store_begins_anew_and_is_raised_again(releases: Releases) -> None:
    new = releases.store("new", reads=2)
    await new.beat("new", b"")
    await new.claim(ONE, "new")
    await new.confirm(ONE, "new")
    assert releases.format == "2"
    releases.group.wipe()
    await new.put([entry()])
    assert releases.format == "1"
    await new.beat("new", b"")
    await new.confirm(ONE, "new")
    assert releases.format == "2"


async def test_a_store_that_forgot_its_members_is_not_raised_before_all_were_heard_again(
    releases: Releases,
) -> None:
    new, old = releases.store("new", reads=2, steady=3600.0), releases.store("old", reads=1)
    await old.beat("old", b"")
    await new.beat("new", b"")
    await new.claim(ONE, "new")
    releases.group.wipe()
    await new.beat("new", b"")
    await new.confirm(ONE, "new")
    assert releases.format == "1"
    await old.put([entry()])
