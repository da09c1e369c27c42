"""A development network for a person: everything up, batches now and then, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligned.model import Address
from devnet import files
from devnet.anvil import Anvil
from devnet.batcher import ACCOUNTS, Batcher, Posted, verified
from devnet.keys import keys
from devnet.network import ETHER, Deployment, Network, hexed
from devnet.operator import Fleet, Retries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Say = Callable[[str], None]

_NETWORK_FILE = "devnet.json"
_STAKE = 100
_DIAL_AGAIN_SECONDS = 1.0
_TELL_SECONDS = 0.5
_DEPOSIT = 100 * ETHER
_TELEMETRY_STEP = 1001


class NoNetwork(Exception):
    """The folder does not describe a running network."""


class NotVerified(Exception):
    """Nobody answered a batch in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``up`` starts."""

    folder: Path
    port: int
    operators: int
    offline: int
    """How many of them do not sign."""
    run_operators: bool
    aggregator: tuple[str, int]
    every_seconds: float
    """Between batches; 0: none."""
    block_seconds: float | None
    pause_seconds: float
    """Between an operator's attempts."""
    real_keystore: bool


async def up(options: Options, say: Say) -> None:
    """Run a network until cancelled.

    Raises:
        ChainFailed: Anvil does not start.
    """
    async with Anvil(port=options.port, block_seconds=options.block_seconds) as anvil:
        network = await Network.deploy(anvil, stakes=[_STAKE] * options.operators)
        _write(options, network, say)
        fleet = fleet_of(
            network,
            options.aggregator,
            offline=options.offline,
            pause_seconds=options.pause_seconds,
        )
        batcher = Batcher(network)
        await batcher.deposit(_DEPOSIT)
        posted: list[Posted] = []
        async with asyncio.TaskGroup() as group:
            if options.run_operators:
                group.create_task(operate(fleet, options.aggregator, say), name="operators")
                if options.every_seconds:
                    await fleet.watching()
            group.create_task(_tell(network, posted, fleet, say), name="verified")
            await _post(batcher, posted, options.every_seconds, say)


def _write(options: Options, network: Network, say: Say) -> None:
    host, port = options.aggregator
    deployment = network.deployment
    for stale in options.folder.glob("aggregator.db*"):
        stale.unlink()  # of a chain that is gone; the aggregator would refuse it
    written = files.write(
        options.folder,
        deployment,
        files.Options(
            endpoints=[network.anvil.url],
            listen=f"{host}:{port}",
            telemetry=f"{host}:{port + _TELEMETRY_STEP}",
            scrypt=files.SCRYPT_REAL if options.real_keystore else files.SCRYPT_CHEAP,
        ),
    )
    facts = {"port": network.anvil.port, "operators": options.operators}
    (options.folder / _NETWORK_FILE).write_text(json.dumps(facts) + "\n")
    say(f"chain             {network.anvil.url}, id {deployment.chain_id}")
    say(f"service manager   {hexed(deployment.service_manager)}")
    say(f"registry          {hexed(deployment.registry_coordinator)}")
    say(f"state retriever   {hexed(deployment.operator_state_retriever)}")
    say(f"operators         {options.operators}, stake {_STAKE} each, {options.offline} offline")
    say(f"files             {options.folder}")
    say("start the aggregator in another terminal:")
    say(f"  aggregator run --config {written.config}")


def fleet_of(
    network: Network, aggregator: tuple[str, int], *, offline: int, pause_seconds: float
) -> Fleet:
    """Return the network's operators, the last ``offline`` of them silent."""
    fleet = Fleet(network, aggregator, retries=Retries(pause_seconds=pause_seconds))
    for operator in fleet.operators[len(fleet.operators) - offline :]:
        operator.online = False
    return fleet


async def operate(fleet: Fleet, aggregator: tuple[str, int], say: Say) -> None:
    """Run operators; where Go operators end for want of an aggregator, these wait for it."""
    host, port = aggregator
    told = False
    while True:
        try:
            await fleet.connect()
            break
        except OSError:
            if not told:
                say(f"operators wait for an aggregator at {host}:{port}")
            told = True
            await asyncio.sleep(_DIAL_AGAIN_SECONDS)
    say(f"operators connected to {host}:{port}")
    await fleet.run()


async def _post(batcher: Batcher, posted: list[Posted], every_seconds: float, say: Say) -> None:
    if not every_seconds:
        say("no batches of its own; post one with: python -m devnet batch")
        await asyncio.Event().wait()
    while True:
        batch = await batcher.post()
        posted.append(batch)
        say(f"batch {hexed(batch.batch_id)} posted in block {batch.created_block}")
        await asyncio.sleep(every_seconds)


async def _tell(network: Network, posted: list[Posted], fleet: Fleet, say: Say) -> None:
    """Say which of ``posted`` were verified, and take them off the list."""
    while True:
        answers = await network.all_answers() if posted else {}
        for batch in [item for item in posted if item.batch_id in answers]:
            posted.remove(batch)
            signed = len(fleet.book.acknowledged(batch.batch_id))
            say(
                f"batch {hexed(batch.batch_id)} verified by {answers[batch.batch_id][0]},"
                f" {signed} of {len(fleet.operators)} operators acknowledged"
            )
        await asyncio.sleep(_TELL_SECONDS)


def attach(folder: Path) -> Network:
    """Return the network that ``up`` runs with this folder.

    Raises:
        NoNetwork: There is none.
    """
    try:
        facts = json.loads((folder / _NETWORK_FILE).read_text())
        document = json.loads((folder / "alignedlayer_deployment_output.json").read_text())
    except FileNotFoundError as missing:
        msg = f"no network in {folder}: start one with: python -m devnet up --folder {folder}"
        raise NoNetwork(msg) from missing
    addresses, chain = document["addresses"], document["chainInfo"]
    deployment = Deployment(
        chain_id=chain["chainId"],
        block=chain["deploymentBlock"],
        service_manager=_address(addresses["alignedLayerServiceManager"]),
        registry_coordinator=_address(addresses["registryCoordinator"]),
        operator_state_retriever=_address(addresses["operatorStateRetriever"]),
    )
    network = Network(Anvil(port=facts["port"]), deployment)
    network.operators = keys(facts["operators"])
    return network


async def post_one(
    network: Network, *, sender: int, root: bytes | None, wait_seconds: float, say: Say
) -> None:
    """Post one batch, and wait until it is verified.

    Raises:
        NodeAway: The network does not run.
        Reverted: The contract refuses it.
        NotVerified: Nobody answers it in time.
    """
    batch = await Batcher(network, ACCOUNTS[sender]).post(root, value=ETHER)
    say(f"batch {hexed(batch.batch_id)} posted in block {batch.created_block}")
    say(f"root {hexed(batch.merkle_root)}, sender {hexed(batch.sender)}")
    if not wait_seconds:
        return
    try:
        (answer, *_) = await verified(network, batch, seconds=wait_seconds)
    except TimeoutError as late:
        raise NotVerified(f"not verified after {wait_seconds:g} s") from late
    say(f"verified by {answer}")


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
