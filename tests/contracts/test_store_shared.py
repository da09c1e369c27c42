"""The suite of the port ``Store`` on what several replicas use: Redis first, then the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import redis as server

from aggregator.batches import Batches
from aggregator.journal.journal import Journal
from aggregator.ports import RowTaken
from aggregator.store.keys import Keys
from aggregator.store.redis import RedisStore
from aggregator.store.replica import Held
from aggregator.store.shared import SharedStore
from aggregator.store.sharing import Sharing
from aligned.model import BatchId, Entry, OperatorId, Signature
from devnet.sentinel import SentinelGroup
from tests.contracts import test_store
from tests.contracts.test_store import Bench
from tests.fakes.redis import STEADY, PastInMemory, discovery_of, identity, programs

pytestmark = pytest.mark.usefixtures("patient_store")

globals().update({name: one for name, one in vars(test_store).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(programs("valkey", tmp_path_factory.mktemp("programs")), STEADY) as running:
        yield running


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal.db", identity())
    yield opened
    opened.close()


@pytest.fixture
async def bench(group: SentinelGroup, journal: Journal) -> AsyncIterator[Bench]:
    group.wipe()
    held = Held(Batches(), journal, PastInMemory())
    keys = Keys.of(identity())
    async with aclosing(RedisStore(discovery_of(group), identity(), writer="contract")) as redis:
        client: Any = server.Redis(port=group.machines[group.primary()].port)
        store = SharedStore(redis, journal, held, Sharing(redis, held))

        async def share(entries: Sequence[Entry]) -> None:
            await journal.append(entries, height=7)
            await store.put(entries)

        def entries() -> set[Entry]:
            return {
                Entry(BatchId(batch_id), OperatorId(operator_id), Signature(signature))
                for batch_id in client.smembers(keys.open)
                for operator_id, signature in client.hgetall(keys.batch(batch_id)).items()
            }

        yield Bench(store, share, entries)
        client.close()


async def test_a_journal_that_holds_another_row_does_not_stop_a_leader(
    bench: Bench, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    lost, won = test_store.row(raw=b"first"), test_store.row(raw=b"second")
    await journal.record(lost)
    await bench.store.claim(test_store.ONE, "a")
    await bench.store.record(test_store.ONE, "a", won)
    assert journal.load().outbox == [won]
    assert "the store's counts" in caplog.text
    assert list(await bench.store.claim(test_store.TWO, "b")) == [won]


async def test_a_row_that_the_term_did_not_know_is_known_to_the_next(bench: Bench) -> None:
    known, ours = test_store.row(raw=b"first"), test_store.row(raw=b"second")
    await bench.store.claim(test_store.ONE, "a")
    await bench.store.record(test_store.ONE, "a", known)
    with pytest.raises(RowTaken):
        await bench.store.record(test_store.ONE, "a", ours)
    assert list(await bench.store.claim(test_store.TWO, "b")) == [known]
