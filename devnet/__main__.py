"""``python -m devnet``: a local Aligned to try the aggregator on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aligned.model import Address
from devnet import load as loading, running
from devnet.anvil import ChainFailed
from devnet.batcher import ACCOUNTS
from devnet.keys import keys
from devnet.network import Reverted
from devnet.operator import Seen
from devnet.rpc import NodeAway

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from devnet.network import Network

_T = TypeVar("_T")
_ROOT_BYTES = 32
_MENDABLE = (running.NotVerified, ChainFailed, NodeAway, Reverted, OSError)
_FOLDER = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".cache/devnet",
    show_default=True,
    help="Where the network's files are.",
)
_AGGREGATOR = click.option(
    "--aggregator",
    default="127.0.0.1:8090",
    show_default=True,
    metavar="HOST:PORT",
    help="Where operators deliver their signatures.",
)
_OFFLINE = click.option(
    "--offline",
    default=0,
    show_default=True,
    help="How many operators do not sign. With more than a third, batches stay open.",
)
_PAUSE = click.option(
    "--retry-pause",
    default=10.0,
    show_default=True,
    help="Seconds between an operator's ten attempts, as in the Go operator.",
)


@click.group()
def main() -> None:
    """Run a local Aligned: chain, contracts, operators with real keys, batches.

    \b
    In one terminal:   python -m devnet up
    In another one:    aggregator run --config .cache/devnet/aggregator.yaml
    In a third one:    python -m devnet batch

    Then kill the aggregator in the middle of a batch, start it again, and see what is lost.
    The chain needs anvil: python -m devnet.node.install
    """  # noqa: D301 - click takes the character for "leave these lines as they are"


@main.command()
@_FOLDER
@_AGGREGATOR
@_OFFLINE
@_PAUSE
@click.option("--port", default=8545, show_default=True, help="Of the chain; 0: a free one.")
@click.option("--operators", default=4, show_default=True, help="How many to register.")
@click.option("--every", default=10.0, show_default=True, help="Seconds between batches; 0: none.")
@click.option("--block-time", type=float, help="Seconds between blocks. [default: at once]")
@click.option("--no-operators", is_flag=True, help="Register them, and run them elsewhere.")
@click.option("--real-keystore", is_flag=True, help="Encrypt the keystore as wallets do (slow).")
def up(  # noqa: PLR0913 - one parameter for each option
    *,
    folder: Path,
    aggregator: str,
    offline: int,
    retry_pause: float,
    port: int,
    operators: int,
    every: float,
    block_time: float | None,
    no_operators: bool,
    real_keystore: bool,
) -> None:
    """Start everything and post batches until Ctrl-C.

    Writes an aggregator's configuration, its keystore, and the deployment files Aligned's own
    scripts write. Every start is a new chain.
    """
    options = running.Options(
        folder=folder,
        port=port,
        operators=operators,
        offline=_checked_offline(offline, operators),
        run_operators=not no_operators,
        aggregator=_host_port(aggregator),
        every_seconds=every,
        block_seconds=block_time,
        pause_seconds=retry_pause,
        real_keystore=real_keystore,
    )
    _run(running.up(options, click.echo))


@main.command()
@_FOLDER
@click.option(
    "--sender",
    type=click.IntRange(0, len(ACCOUNTS) - 1),
    default=1,
    show_default=True,
    help="Which of the batchers posts it; `up` is number 0.",
)
@click.option("--root", help="Merkle root, 0x and 64 digits. [default: random]")
@click.option("--wait", default=60.0, show_default=True, help="Seconds for its answer; 0: none.")
def batch(*, folder: Path, sender: int, root: str | None, wait: float) -> None:
    """Post one batch and wait until it is verified."""
    merkle_root = None if root is None else _root(root)
    network = _attach(folder)
    _run(
        running.post_one(
            network, sender=sender, root=merkle_root, wait_seconds=wait, say=click.echo
        )
    )


@main.command()
@_FOLDER
@_AGGREGATOR
@_OFFLINE
@_PAUSE
def operators(*, folder: Path, aggregator: str, offline: int, retry_pause: float) -> None:
    """Run the operators of `up --no-operators`."""
    network = _attach(folder)
    count = len(network.operators)
    address = _host_port(aggregator)
    fleet = running.fleet_of(
        network, address, offline=_checked_offline(offline, count), pause_seconds=retry_pause
    )
    _run(running.operate(fleet, address, click.echo))


@main.command()
@_AGGREGATOR
@click.option("--operators", default=200, show_default=True, help="Connections, one call at once.")
@click.option("--batches", default=20, show_default=True, help="Signatures of each operator.")
@click.option("--rate", default=0.0, help="Calls per second over all. [default: as fast as it can]")
@click.option("--seconds", default=60.0, show_default=True, help="When to stop waiting.")
def load(*, aggregator: str, operators: int, batches: int, rate: float, seconds: float) -> None:
    """Send signatures as fast as they are taken.

    They are on batches that are on no chain; prints what came of it as JSON.
    """
    host, port = _host_port(aggregator)
    seen = [Seen(os.urandom(32), Address(os.urandom(20))) for _ in range(batches)]
    prepared = loading.prepare(keys(operators), seen)
    if rate:
        run = loading.open_loop(prepared, host, port, rate=rate, seconds=seconds)
    else:
        run = loading.closed_loop(prepared, host, port, seconds=seconds)
    click.echo(json.dumps(_run(run).summary()))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's work.

    Raises:
        ClickException: Something that a person can mend, in a line.
    """
    try:
        return asyncio.run(_until_terminated(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("stopped")
        sys.exit(0)
    except _MENDABLE as problem:
        raise click.ClickException(str(problem)) from problem
    except ExceptionGroup as group:
        mendable = group.subgroup(_MENDABLE)
        if mendable is None:
            raise
        raise click.ClickException(str(mendable.exceptions[0])) from group


async def _until_terminated(work: Coroutine[Any, Any, _T]) -> _T:
    """SIGTERM ends it in order, as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _attach(folder: Path) -> Network:
    try:
        return running.attach(folder)
    except running.NoNetwork as none:
        raise click.ClickException(str(none)) from none


def _checked_offline(offline: int, operators: int) -> int:
    if not 0 <= offline <= operators:
        raise click.BadParameter(f"{offline} of {operators} operators cannot be offline")
    return offline


def _root(text: str) -> bytes:
    try:
        root = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not hexadecimal") from error
    if len(root) != _ROOT_BYTES:
        raise click.BadParameter(f"a root has {_ROOT_BYTES} bytes, not {len(root)}")
    return root


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise click.BadParameter(f"{text!r} is not HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    main()
