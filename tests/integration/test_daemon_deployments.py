"""A journal of another deployment, of an earlier chain, or one that was moved is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.journal import inspect
from devnet import files
from devnet.anvil import Anvil
from devnet.network import Network
from devnet.proxy import Proxy
from tests.integration.daemons import AT_ONCE, World, world


async def test_a_journal_of_another_deployment_is_not_used(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path) as here:
        await here.start()
        assert await here.daemon.terminate() == 0
        other = await Network.deploy(own_chain.anvil)
        configure(here, other)
        why = await here.refuses_to_start()
        assert "state of another deployment" in why
        assert own_chain.deployment.service_manager.hex() in why
        assert other.deployment.service_manager.hex() in why
        assert "Correct the configuration, or move the file away" in why
        configure(here, own_chain)
        await here.start()


def configure(here: World, network: Network) -> None:
    """Write the same configuration for another network."""
    host, port = here.address
    options = files.Options(
        endpoints=[network.anvil.url],
        listen=f"{host}:{port}",
        telemetry=here.telemetry,
        overrides={"telemetry": {"log_format": "json"}},
    )
    files.write(here.files.config.parent, network.deployment, options)


@pytest.mark.parametrize("away_at_first", [False, True])
async def test_a_journal_from_before_the_chain_was_created_again_is_not_used(
    own_chain: Network, tmp_path: Path, away_at_first: bool
) -> None:
    async with (
        Proxy(own_chain.anvil.url) as proxy,
        world(own_chain, tmp_path, endpoints=[proxy.url]) as here,
    ):
        await here.start()
        batch = await here.batcher.post()
        await here.answered_once(batch)
        assert await here.daemon.terminate() == 0
        port = own_chain.anvil.port
        own_chain.anvil.close()
        async with Anvil(port=port) as again:
            second = await Network.deploy(again)
            assert second.deployment == own_chain.deployment
            if away_at_first:
                await proxy.refuse()
                before = len(here.lines())
                here.daemon.start()
                await here.told("chain away at the start", since=before)
                await proxy.accept()
                assert await here.daemon.ended() == 1
                why = here.lines()[-1]["why"]
                assert "belongs to another deployment" in why
            else:
                why = await here.refuses_to_start()
                assert "state from before the chain was re-created" in why
            assert str(here.journal) in why
            here.journal.rename(tmp_path / "old.db")
            await here.start()


async def test_a_chain_that_is_created_again_under_a_running_aggregator_is_not_used(
    own_chain: Network, tmp_path: Path
) -> None:
    async with world(own_chain, tmp_path) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        await here.signed(batch, 0, 1)
        port = own_chain.anvil.port
        own_chain.anvil.close()
        await here.told("endpoint ejected")
        async with Anvil(port=port) as again:
            await Network.deploy(again)
            line = await here.told("endpoint of another chain is not used: correct its URL")
            assert "belongs to another chain with id 31337: its genesis is 0x" in line["reason"]
            await here.signed(batch, 2)
            assert here.promised() <= here.kept()
            assert here.daemon.is_running


async def test_a_journal_that_was_moved_is_not_used_until_it_is_back(
    chain: Network, tmp_path: Path
) -> None:
    async with world(chain, tmp_path, overrides=AT_ONCE) as here:
        here.online(0)
        await here.start()
        batch = await here.batcher.post()
        await here.signed(batch, 0, 1)
        assert await here.daemon.terminate() == 0
        moved = tmp_path / "moved.jsonl"
        inspect.export(here.journal, moved)
        why = await here.refuses_to_start()
        assert f"its content moved to {moved}" in why
        assert "aggregator journal import" in why
        inspect.import_(here.journal, moved)
        await here.start()
        await here.signed(batch, 2)
        await here.answered_once(batch)
        await here.keeps_its_word()
