"""Endpoints that hang, lag, refuse, lie or forget, before the aggregator and alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from devnet.faults import EVERY_METHOD, Faults, LogLimit, RpcError
from devnet.network import Network, hexed
from devnet.proxy import Proxy
from tests.integration.daemons import AT_ONCE, UNHURRIED, merged, mining, pooled, world

QUICK = merged(AT_ONCE, {"chain": {"request_timeout": "2s", "poll_interval": "100ms"}})
"""Faults are found out soon; what works is given time on a busy machine."""

GWEI = 10**9

LIMITED = RpcError(-32005, "daily request count exceeded, request rate limited")


FAILED = RpcError(-32603, "internal error")
SIMULATIONS = ("eth_call", "eth_estimateGas", "eth_simulateV1")


@pytest.fixture
async def proxy(chain: Network) -> AsyncIterator[Proxy]:
    async with Proxy(chain.anvil.url) as running:
        yield running


def _set(**values: object) -> Callable[[Faults], None]:
    def switch(faults: Faults) -> None:
        for name, value in values.items():
            setattr(faults, name, value)

    return switch


FAULTS = {
    "hangs": _set(hang=True),
    "lags": _set(lag_blocks=3),
    "is limited": _set(status=429),
    "fails": _set(status=503),
    "refuses every call": _set(errors={EVERY_METHOD: LIMITED}),
    "has no logs": _set(errors={"eth_getLogs": RpcError(-32601, "method not found")}),
    "simulates nothing": _set(errors=dict.fromkeys(SIMULATIONS, FAILED)),
    "refuses transactions": _set(errors={"eth_sendRawTransaction": LIMITED}),
    "swallows transactions": _set(swallow_sends=True),
    "limits logs": _set(log_limit=LogLimit(2)),
    "is strict": _set(strict_replacement=True),
    "is another chain": _set(chain_id=5),
}

EJECTED = {"hangs", "is limited", "fails", "refuses every call"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_beside_a_good_endpoint_no_fault_of_the_first_one_matters(
    chain: Network, tmp_path: Path, proxy: Proxy, fault: str
) -> None:
    urls = [proxy.url, chain.anvil.url]
    await chain.anvil.mine(5)
    async with world(chain, tmp_path, endpoints=urls, overrides=QUICK) as here:
        FAULTS[fault](proxy.faults)
        await here.start()
        async with mining(chain.anvil):
            batch = await here.batcher.post()
            await here.answered_once(batch)
        await here.acknowledged(batch, 4)
        if fault in EJECTED:
            line = await here.told("endpoint ejected")
            assert (line["endpoint"], line["level"]) == ("devnet-0", "warning")
        if fault == "is another chain":
            line = await here.told("endpoint of another chain is not used: correct its URL")
            assert line["reason"] == "belongs to chain 5, not 31337"
        await here.keeps_its_word()


async def test_an_endpoint_that_goes_away_and_comes_back_is_used_again(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    urls = [proxy.url, chain.anvil.url]
    async with world(chain, tmp_path, endpoints=urls, overrides=QUICK) as here:
        await here.start()
        await proxy.refuse()
        await here.answered_once(await here.batcher.post())
        await here.told("endpoint ejected: the next one is asked")
        await proxy.accept()
        await here.told("endpoint is back")
        proxy.counts.clear()
        await here.answered_once(await here.batcher.post())
        assert proxy.counts["eth_getBalance"] > 0
        await here.keeps_its_word()


@pytest.mark.parametrize("fault", ["hangs", "is limited", "refuses every call"])
async def test_while_the_only_endpoint_is_away_signatures_are_taken(
    chain: Network, tmp_path: Path, proxy: Proxy, fault: str
) -> None:
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=QUICK) as here:
        here.online(0)
        await here.start()
        known = await here.batcher.post()
        FAULTS[fault](proxy.faults)
        line = await here.told("chain away: responses are still taken")
        assert (line["level"], "devnet-0" in line["reason"]) == ("warning", True)
        unseen = await here.batcher.post()
        await here.signed(known)
        await here.signed(unseen)
        proxy.faults = Faults()
        await here.told("chain is back")
        await here.answered_once(known, unseen)
        await here.keeps_its_word()


async def test_a_lagging_endpoint_delays_an_answer_and_loses_nothing(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    await chain.anvil.mine(5)
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=QUICK) as here:
        here.online(0)
        await here.start()
        proxy.faults.lag_blocks = 3
        batch = await here.batcher.post()
        await here.signed(batch)
        await here.holds(batch, 4, block=None)
        async with mining(chain.anvil):
            await here.answered_once(batch)
        await here.keeps_its_word()


async def test_transactions_that_an_endpoint_forgets_are_sent_again(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    overrides = merged(QUICK, UNHURRIED)
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=overrides) as here:
        await here.start()
        proxy.faults.swallow_sends = True
        batch = await here.batcher.post()
        await here.told("transaction sent")
        proxy.faults.swallow_sends = False
        async with mining(chain.anvil):
            answer = await here.answered_once(batch)
        (row,) = here.loaded().outbox
        assert hexed(row.hash) == answer
        assert proxy.swallowed[0] == hexed(row.raw)
        await here.keeps_its_word()


async def test_transactions_that_an_endpoint_refuses_are_kept_and_sent_again(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    overrides = merged(QUICK, UNHURRIED)
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=overrides) as here:
        await here.start()
        proxy.faults.errors["eth_sendRawTransaction"] = LIMITED
        batch = await here.batcher.post()
        await here.told("no endpoint takes the transaction: it is kept and sent again")
        proxy.faults.errors.clear()
        async with mining(chain.anvil):
            answer = await here.answered_once(batch)
        assert [hexed(row.hash) for row in here.loaded().outbox] == [answer]
        await here.keeps_its_word()


async def test_a_limit_on_logs_is_found_and_kept(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    async with world(chain, tmp_path, endpoints=[proxy.url], overrides=QUICK) as here:
        here.online(0)
        old = await here.batcher.post()
        await chain.anvil.mine(200)
        proxy.faults.log_limit = LogLimit(7)
        await here.start()
        await here.signed(old)
        await here.answered_once(old)
        here.online(4)
        await here.answered_once(await here.batcher.post())


async def test_an_answer_that_the_market_left_behind_is_replaced_as_strict_nodes_demand(
    own_chain: Network, tmp_path: Path
) -> None:
    async with (
        Proxy(own_chain.anvil.url) as proxy,
        world(own_chain, tmp_path, endpoints=[proxy.url], overrides=QUICK) as here,
    ):
        proxy.faults.strict_replacement = True
        await here.start()
        await own_chain.anvil.automine(on=False)
        batch = await here.batcher.post()
        first = await pooled(own_chain.anvil)
        async with mining(own_chain.anvil, 10 * GWEI):
            answer = await here.answered_once(batch)
        rows = here.loaded().outbox
        assert {row.nonce for row in rows} == {rows[0].nonce}
        assert hexed(rows[0].hash) == first
        assert answer in {hexed(row.hash) for row in rows[1:]}
        await here.keeps_its_word()


async def test_endpoints_of_other_chains_alone_end_it_with_their_names(
    chain: Network, tmp_path: Path, proxy: Proxy
) -> None:
    async with world(chain, tmp_path, endpoints=[proxy.url]) as here:
        proxy.faults.chain_id = 5
        here.daemon.start()
        assert await here.daemon.ended() == 2
        host = proxy.url.removeprefix("http://")
        expected = f"chain.endpoints[0].url: devnet-0 ({host}) belongs to chain 5, not 31337"
        assert expected in here.daemon.log_text()
        # corrected, it runs
        proxy.faults.chain_id = None
        await here.start()
        await here.answered_once(await here.batcher.post())
