"""The shared store on real servers, and what they do to it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from aggregator.journal.format import Fence
from aggregator.ports import OutboxUnreadable
from aggregator.store.connection import Access, Address, Refusal, Server, Tls, connect, exchange
from aggregator.store.discovery import Fixed, Sentinels
from aggregator.store.keys import COMMANDS, SENTINEL_COMMANDS, Keys
from aggregator.store.redis import RedisStore
from aggregator.store.scripts import scripts
from aligned.errors import Deposed, StateMismatch, StoreUnavailable
from aligned.model import Entry, Signature, Term
from devnet.redis_servers import MASTER, Options
from devnet.sentinel import SentinelGroup
from tests.fakes.builders import a_batch_id, entry
from tests.fakes.redis import STEADY, a_row, discovery_of, identity, programs, servers

pytestmark = pytest.mark.usefixtures("patient_store")

ONE, FOUR, FIVE = Term(1), Term(4), Term(5)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SentinelGroup]:
    found = programs(request.param, tmp_path_factory.mktemp("programs"))
    with SentinelGroup(found, STEADY) as group:
        yield group


@pytest.fixture
def group(running: SentinelGroup) -> SentinelGroup:
    """Settled and empty."""
    running.settle()
    running.wipe()
    return running


@pytest.fixture
async def store(group: SentinelGroup) -> AsyncIterator[RedisStore]:
    async with aclosing(RedisStore(discovery_of(group), identity(), writer="a")) as one:
        yield one


@pytest.fixture
async def other(group: SentinelGroup) -> AsyncIterator[RedisStore]:
    """Another replica's."""
    async with aclosing(RedisStore(discovery_of(group), identity(), writer="b")) as one:
        yield one


def replicas(group: SentinelGroup) -> list[int]:
    return [index for index in range(len(group.machines)) if index != group.primary()]


def another_value(of: Entry) -> Entry:
    return of._replace(signature=Signature(b"\xee" * 64))


async def test_a_repeated_value_waits_for_replicas_on_a_fresh_connection(
    group: SentinelGroup, store: RedisStore
) -> None:
    await store.put([entry()])
    address = Address("127.0.0.1", group.machines[group.primary()].port)
    key = Keys.of(identity()).batch(entry().batch_id)
    again = b"return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"
    repeat = ("EVAL", again, 1, key, entry().operator_id, entry().signature)
    for index in replicas(group):
        group.pause(index)
    frozen = await connect(Server(address=address), "conformance")
    try:
        assert await exchange(frozen, [repeat, ("WAIT", 1, 200)]) == [0, 0]
    finally:
        await frozen.disconnect()
        for index in replicas(group):
            group.resume(index)
    awake = await connect(Server(address=address), "conformance")
    written, copies = await exchange(awake, [repeat, ("WAIT", 1, 5000)])
    await awake.disconnect()
    assert written == 0
    assert isinstance(copies, int)
    assert copies >= 1


async def test_nothing_is_confirmed_while_every_replica_is_frozen(
    group: SentinelGroup, store: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put([entry()])
    monkeypatch.setattr("aggregator.store.calls.WAIT_MILLISECONDS", 200)
    for index in replicas(group):
        group.pause(index)
    try:
        for one in (store, other):  # on a connection that wrote before, and on a fresh one
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await one.put([entry()])
        with pytest.raises(StoreUnavailable):
            await store.claim(ONE, "a")
    finally:
        for index in replicas(group):
            group.resume(index)
    monkeypatch.setattr("aggregator.store.calls.WAIT_MILLISECONDS", 20_000)
    await store.put([entry()])


async def test_scripts_that_the_server_forgot_are_loaded_again(
    group: SentinelGroup, store: RedisStore
) -> None:
    await store.put([entry(1)])
    group.ask(group.machines[group.primary()].port, "SCRIPT", "FLUSH")
    await store.put([entry(2)])
    assert await store.batch_ids() == {a_batch_id(1), a_batch_id(2)}


async def test_another_deployments_state_is_refused_and_left_alone(
    group: SentinelGroup, store: RedisStore
) -> None:
    await store.put([entry(1)])
    stranger = RedisStore(discovery_of(group), identity(deployment=2), writer="x")
    async with aclosing(stranger):
        for call in (stranger.put([entry(2)]), stranger.claim(FIVE, "x"), stranger.fence()):
            with pytest.raises(StateMismatch, match="another deployment"):
                await call
    assert await store.batch_ids() == {a_batch_id(1)}
    assert await store.fence() == Fence(Term(0), "")


async def test_state_that_changed_hands_under_an_open_connection_is_refused(
    group: SentinelGroup, store: RedisStore
) -> None:
    await store.put([entry(1)])
    group.ask(group.machines[group.primary()].port, "FLUSHALL")
    stranger = RedisStore(discovery_of(group), identity(deployment=2), writer="x")
    async with aclosing(stranger):
        await stranger.put([entry(2)])
    with pytest.raises(StateMismatch):
        await store.put([entry(1)])


async def test_state_of_a_later_release_is_refused(group: SentinelGroup, store: RedisStore) -> None:
    await store.put([entry()])
    key = (Keys.of(identity()).prefix + b"meta").decode()
    group.ask(group.machines[group.primary()].port, "HSET", key, "format", "99")
    with pytest.raises(StateMismatch, match="later release"):
        await store.put([entry()])


async def test_at_the_memory_limit_nothing_is_confirmed_and_forgetting_helps(
    group: SentinelGroup, store: RedisStore
) -> None:
    await store.put([entry(1)])
    port = group.machines[group.primary()].port
    group.ask(port, "CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="OOM"):
            await store.put([entry(2)])
        await store.forget([a_batch_id(1)])
    finally:
        group.ask(port, "CONFIG", "SET", "maxmemory", "0")
    assert await store.batch_ids() == set()
    await store.put([entry(2)])


async def test_without_enough_replicas_the_server_refuses_and_nothing_is_confirmed(
    group: SentinelGroup, store: RedisStore
) -> None:
    port = group.machines[group.primary()].port
    group.ask(port, "CONFIG", "SET", "min-replicas-to-write", "9")
    try:
        with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
            await store.put([entry()])
    finally:
        group.ask(port, "CONFIG", "SET", "min-replicas-to-write", "0")


async def test_a_replica_leads_to_its_primary(group: SentinelGroup) -> None:
    address = Address("127.0.0.1", group.machines[replicas(group)[0]].port)
    async with aclosing(RedisStore(Fixed(Server(address=address)), identity(), writer="a")) as one:
        await one.put([entry()])
        assert one.primary.address == Address(
            "127.0.0.1", group.machines[group.primary()].public_port
        )


async def test_a_primary_without_replicas_may_do_where_none_are_asked_for(
    group: SentinelGroup,
) -> None:
    address = Address("127.0.0.1", group.machines[group.primary()].port)
    fixed = Fixed(Server(address=address))
    async with aclosing(RedisStore(fixed, identity(), writer="a", copies=0)) as one:
        await one.put([entry()])
        assert await one.batch_ids() == {entry().batch_id}


async def test_a_second_value_is_kept_beside_the_first_and_takes_its_place_when_evicted(
    store: RedisStore, other: RedisStore
) -> None:
    bad, good = another_value(entry()), entry()
    await other.put([bad])
    assert await store.merge([good]) == (0, ())
    assert store.counted.conflicts == 1
    await store.claim(ONE, "a")
    await store.evict(ONE, "a", [bad])
    stored = await store.signatures([entry().batch_id])
    assert stored == {entry().batch_id: {entry().operator_id: good.signature}}


async def test_a_wrong_second_value_is_evicted_from_its_place(store: RedisStore) -> None:
    await store.put([entry()])
    await store.put([another_value(entry())])
    await store.claim(ONE, "a")
    await store.evict(ONE, "a", [another_value(entry())])
    await store.evict(ONE, "a", [entry()])  # the first one too: nothing is left
    assert await store.signatures([entry().batch_id]) == {entry().batch_id: {}}


async def test_whoever_offers_an_evicted_value_is_told(
    store: RedisStore, other: RedisStore
) -> None:
    await store.put([entry()])
    await store.claim(ONE, "a")
    await store.evict(ONE, "a", [entry()])
    placed = await other.merge([entry(), entry(2)])
    assert placed.refuted == (entry(),)
    assert placed.new == 1


async def test_a_fence_that_was_wiped_comes_back_with_the_next_write_of_whoever_knows_it(
    group: SentinelGroup, store: RedisStore, other: RedisStore
) -> None:
    await store.claim(FIVE, "a")
    assert (await other.beat("pod-b", b"")).fence == Fence(FIVE, "a")
    group.wipe()
    await other.put([])
    async with aclosing(RedisStore(discovery_of(group), identity(), writer="z")) as zombie:
        with pytest.raises(Deposed):
            await zombie.claim(FOUR, "zombie")
        assert zombie.known_fence == Fence(FIVE, "a")
    await store.record(FIVE, "a", a_row())


async def test_rows_that_were_wiped_are_merged_without_a_term(
    group: SentinelGroup, store: RedisStore, other: RedisStore
) -> None:
    await store.claim(ONE, "a")
    await store.record(ONE, "a", a_row(7))
    group.wipe()
    await other.merge([], [a_row(7)])
    await other.merge([], [a_row(7, raw=b"never confirmed")])  # the stored one counts
    assert list(await store.claim(ONE, "a")) == [a_row(7)]


async def test_an_outbox_that_cannot_be_read_is_told_once_and_begins_no_term(
    group: SentinelGroup, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await store.merge([], [a_row(7)])
    port, key = group.machines[group.primary()].port, Keys.of(identity()).outbox.decode()
    group.ask(port, "HSET", key, "of a later release", "what only that one reads")
    for _ in range(2):
        with pytest.raises(OutboxUnreadable):
            await store.claim(ONE, "a")
        with pytest.raises(OutboxUnreadable):
            await store.rows()
    assert not store.is_outbox_readable
    assert await store.fence() == Fence(ONE, "a")
    [line] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "cannot lead" in line.msg
    assert vars(line)["key"] == key
    group.ask(port, "HDEL", key, "of a later release")
    assert await store.rows() == [a_row(7)]
    assert store.is_outbox_readable
    assert "can be read again" in caplog.text


async def test_a_claim_is_confirmed_as_long_as_it_is_the_fence(
    store: RedisStore, other: RedisStore
) -> None:
    await store.claim(ONE, "a")
    await store.confirm(ONE, "a")
    await other.claim(FIVE, "b")
    with pytest.raises(Deposed, match="term 5, held by b"):
        await store.confirm(ONE, "a")


async def test_replicas_see_each_other(store: RedisStore, other: RedisStore) -> None:
    await store.beat("pod-a", b"{1}")
    beat = await other.beat("pod-b", b"two\n words \0")
    assert {(member.pod, member.facts) for member in beat.members} == {
        ("pod-a", b"{1}"),
        ("pod-b", b"two\n words \0"),
    }
    assert all(0 <= member.age < 30 for member in beat.members)


async def test_only_one_of_two_swaps_of_the_same_version_succeeds(
    store: RedisStore, other: RedisStore
) -> None:
    assert await store.swap("", "", b"") == (False, "", b"")
    assert await store.swap("", "v1", b"mine") == (True, "v1", b"mine")
    assert await other.swap("", "v2", b"yours") == (False, "v1", b"mine")
    assert await other.swap("v1", "v3", b"yours") == (True, "v3", b"yours")


async def test_every_script_says_what_it_takes_and_returns() -> None:
    for name, script in scripts().items():
        assert b"Returns:" in script.text, name
        assert b"KEYS[1]" in script.text, name


def _tls_files(folder: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: certificates are made with it")
    made = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
         "-out", folder / "certificate.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SentinelGroup]:
    """Users with a password and no more rights than we ask for."""
    prefix = Keys.of(identity()).prefix.decode()
    rights = " ".join(f"+{command}" for command in COMMANDS)
    sentinel_rights = " ".join(f"+{command}" for command in SENTINEL_COMMANDS)
    options = Options(
        server=[f"user agg on >word resetchannels ~{prefix}* -@all {rights}"],
        sentinel=[f"user agg on >word resetchannels &+switch-master -@all {sentinel_rights}"],
    )
    with SentinelGroup(programs("redis", tmp_path), options) as group:
        yield group


async def test_our_user_needs_no_more_rights_than_documented(
    guarded: SentinelGroup, tmp_path: Path
) -> None:
    word = tmp_path / "password"
    word.write_text("word\n")
    access = Access(username="agg", password_file=word)
    sentinels = [Server(address=one.address, access=access) for one in servers(guarded)]
    discovery = Sentinels(sentinels, master=MASTER, access=access)
    async with aclosing(RedisStore(discovery, identity(), writer="a")) as one:
        await one.put([entry()])
        await one.claim(ONE, "a")
        await one.record(ONE, "a", a_row())
        await one.drop_rows(ONE, "a", [a_row()])
        await one.put([another_value(entry())])
        await one.evict(ONE, "a", [entry()])
        await one.beat("pod", b"")
        await one.swap("", "1", b"")
        assert await one.batch_ids() == {entry().batch_id}
        assert await one.rows() == []
        await one.signatures([entry().batch_id])
        async with one.primary.link() as link:
            await one.news(link, b"0-0", limit=9, block_milliseconds=1)
        await one.forget([entry().batch_id])
    for sentinel in sentinels:
        subscriber = await connect(sentinel, "test")
        [reply] = await exchange(subscriber, [("SUBSCRIBE", "+switch-master")])
        assert not isinstance(reply, Refusal)
        await subscriber.disconnect()
    word.write_text("wrong")
    async with aclosing(RedisStore(discovery, identity(), writer="a")) as one:
        with pytest.raises(StoreUnavailable, match="password"):
            await one.put([entry()])


async def test_a_primary_is_spoken_to_over_tls(tmp_path: Path) -> None:
    found = programs("redis", tmp_path)
    _tls_files(tmp_path)
    certificate = tmp_path / "certificate.pem"
    tls = Tls(ca_file=certificate, certificate_file=certificate, key_file=tmp_path / "key.pem")
    with SentinelGroup(found, Options(machines=1)) as group:
        plain = group.machines[0].port
        for name, value in (
            ("tls-ca-cert-file", "certificate.pem"),
            ("tls-cert-file", "certificate.pem"),
            ("tls-key-file", "key.pem"),
        ):
            group.ask(plain, "CONFIG", "SET", name, str(tmp_path / value))
        port = _enable_tls(group, plain)
        server = Server(address=Address("127.0.0.1", port), access=Access(tls=tls))
        async with aclosing(RedisStore(Fixed(server), identity(), writer="a", copies=0)) as one:
            await one.put([entry()])
        stranger = Server(address=server.address, access=Access(tls=Tls()))
        async with aclosing(RedisStore(Fixed(stranger), identity(), writer="a")) as one:
            with pytest.raises(StoreUnavailable, match="certificate"):
                await one.put([entry()])


def _enable_tls(group: SentinelGroup, plain: int) -> int:
    for port in range(plain + 1, plain + 50):
        if group.ask(plain, "CONFIG", "SET", "tls-port", str(port)).startswith("OK"):
            return port
    pytest.fail("no port for TLS")
