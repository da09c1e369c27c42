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
from aggregator.store.keys import Keys
from aggregator.store.redis import RedisStore
from aggregator.store.replica import Held
from aggregator.store.shared import SharedStore
from aggregator.store.sharing import Sharing
from aligned.model import BatchId, Entry, OperatorId, Signature
from devnet.sentinel import SentinelGroup
from tests.contracts import test_store
from tests.contracts.test_store import Bench
from tests.fakes.redis import STEADY, discovery_of, identity, programs

pytestmark = pytest.mark.usefixtures("patient_store")

globals().update({name: one for name, one in vars(test_store).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(programs("valkey", tmp_path_factory.mktemp("programs")), STEADY) as running:
        yield running


@pytest.fixture
async def bench(group: SentinelGroup, tmp_path: Path) -> AsyncIterator[Bench]:
    group.wipe()
    journal = Journal.open(tmp_path / "journal.db", identity())
    held = Held(Batches(), journal, [], lambda: 7)
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
    journal.close()
