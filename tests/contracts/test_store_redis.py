"""The suite of the port ``Store`` on the shared implementation, over every server at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from aggregator.store.keys import Keys
from aggregator.store.redis import RedisStore
from aligned.model import BatchId, Entry, OperatorId, Signature
from devnet.sentinel import SentinelGroup
from tests.contracts import test_store
from tests.contracts.test_store import Bench
from tests.fakes.redis import STEADY, discovery_of, identity, programs

pytestmark = pytest.mark.usefixtures("patient_store")

globals().update({name: one for name, one in vars(test_store).items() if name.startswith("test_")})


@pytest.fixture(scope="module", params=["valkey", "redis"])
def group(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SentinelGroup]:
    found = programs(request.param, tmp_path_factory.mktemp("programs"))
    with SentinelGroup(found, STEADY) as running:
        yield running


@pytest.fixture
async def bench(group: SentinelGroup) -> AsyncIterator[Bench]:
    group.wipe()
    keys = Keys.of(identity())
    store = RedisStore(discovery_of(group), identity(), writer="contract")
    with redis.Redis(port=group.machines[group.primary()].port) as client:

        def entries() -> set[Entry]:
            return {
                Entry(BatchId(batch_id), OperatorId(operator_id), Signature(signature))
                for batch_id in client.smembers(keys.open)
                for operator_id, signature in client.hgetall(keys.batch(batch_id)).items()
            }

        yield Bench(store, store.put, entries)
        await store.aclose()
