from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devnet.anvil import Anvil
from devnet.batcher import Batcher
from devnet.contracts import artifacts, check
from devnet.keys import keys
from devnet.network import ETHER, OWNER, Reverted, transaction
from devnet.node import install

if TYPE_CHECKING:
    from pathlib import Path

    from devnet.network import Network


@pytest.mark.skipif(
    not (install.FOLDER / "node_modules" / "solc").exists(),
    reason="solc is not installed: python -m devnet.node.install",
)
def test_the_committed_contracts_are_what_the_source_compiles_to() -> None:
    assert check.compiled() == artifacts.FILE.read_text()


async def test_operators_are_registered_with_their_stakes(chain: Network) -> None:
    registry = artifacts.load().registry
    call = {
        "to": "0x" + chain.deployment.registry_coordinator.hex(),
        "data": "0x" + registry.call("getCurrentTotalStake", 0).hex(),
    }
    answer = await chain.node.call("eth_call", call, "latest")
    assert int(answer, 16) == 400
    assert chain.operators == keys(4)


async def test_an_operator_does_not_register_twice(chain: Network) -> None:
    with pytest.raises(Reverted):
        await chain.register(chain.operators[:1], [1])


async def test_an_operator_leaves_and_comes_back(chain: Network) -> None:
    operator = chain.operators[0]
    await chain.deregister(operator)
    with pytest.raises(Reverted):
        await chain.set_stake(operator, 5)
    await chain.rejoin(operator, 5)


async def test_every_test_finds_the_chain_as_deployed(chain: Network) -> None:
    before = await chain.anvil.head(), await chain.anvil.base_fee()
    snapshot = await chain.anvil.snapshot()
    await chain.anvil.set_base_fee(100 * 10**9)
    await chain.anvil.automine(on=False)
    await chain.node.call("eth_sendTransaction", transaction(OWNER, OWNER, b"", gas=21_000))
    await chain.anvil.mine(3)
    await chain.anvil.revert(snapshot)
    assert (await chain.anvil.head(), await chain.anvil.base_fee()) == before
    assert await chain.anvil.pool() == []
    assert await chain.node.call("anvil_getAutomine") is True


async def test_a_batch_needs_a_balance_that_covers_its_fee_limit(chain: Network) -> None:
    batcher = Batcher(chain)
    with pytest.raises(Reverted):
        await batcher.post(fee_limit=ETHER)
    await batcher.deposit(ETHER)
    posted = await batcher.post(fee_limit=ETHER)
    record = await chain.batch(posted.batch_id)
    assert (record.created_block, record.responded) == (posted.created_block, False)


async def test_a_root_may_come_from_two_senders_but_once_from_each(chain: Network) -> None:
    first, second = Batcher(chain), Batcher(chain, account=OWNER)
    root = bytes(32)
    one = await first.post(root, value=ETHER)
    other = await second.post(root, value=ETHER)
    assert one.batch_id != other.batch_id
    with pytest.raises(Reverted):
        await first.post(root)


async def test_a_stopped_chain_comes_back_with_its_blocks_and_states(own_chain: Network) -> None:
    anvil = own_chain.anvil
    await anvil.set_balance("0x" + "11" * 20, 7)
    await anvil.mine(3)
    head, port = await anvil.head(), anvil.port
    block = await own_chain.node.call("eth_getBlockByNumber", hex(head), False)
    await anvil.set_balance("0x" + "11" * 20, 8)
    await anvil.mine()
    anvil.stop()
    anvil.start()
    assert (anvil.port, await anvil.head()) == (port, head + 1)
    assert await own_chain.node.call("eth_getBlockByNumber", hex(head), False) == block
    assert await own_chain.node.call("eth_getBalance", "0x" + "11" * 20, hex(head - 1)) == "0x7"


async def test_a_frozen_chain_answers_after_it_thaws(own_chain: Network) -> None:
    own_chain.anvil.freeze()
    async with asyncio.TaskGroup() as group:
        head = group.create_task(own_chain.anvil.head())
        await asyncio.sleep(0)
        assert not head.done()
        own_chain.anvil.thaw()
    assert head.result() > 0


async def test_a_reorganization_replaces_blocks(own_chain: Network) -> None:
    anvil = own_chain.anvil
    await anvil.mine(3)
    head = await anvil.head()
    before = await own_chain.node.call("eth_getBlockByNumber", hex(head), False)
    await anvil.reorg(2)
    after = await own_chain.node.call("eth_getBlockByNumber", hex(head), False)
    assert before["hash"] != after["hash"]


async def test_a_waiting_transaction_can_be_dropped(own_chain: Network) -> None:
    anvil = own_chain.anvil
    await anvil.automine(on=False)
    sent = await own_chain.node.call(
        "eth_sendTransaction", transaction(OWNER, OWNER, b"", gas=21_000)
    )
    assert [waiting["hash"] for waiting in await anvil.pool()] == [sent]
    await anvil.drop(sent)
    assert await anvil.pool() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_the_chain_ends_when_its_parent_is_killed(installed_anvil: None, tmp_path: Path) -> None:
    program = (
        "import sys, tempfile, threading; tempfile.tempdir = sys.argv[1]\n"
        "from devnet.anvil import Anvil\n"
        "chain = Anvil(); chain.start(); print(chain.pid, flush=True); threading.Event().wait()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    watched = os.pidfd_open(child)
    parent.kill()
    parent.wait()
    try:
        assert select.select([watched], [], [], 10)[0] == [watched]
    finally:
        os.close(watched)


def test_a_chain_that_is_closed_leaves_no_files(installed_anvil: None) -> None:
    chain = Anvil()
    chain.start()
    folder = chain.folder
    chain.close()
    assert not folder.exists()
