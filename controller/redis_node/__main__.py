"""The command line: ``redis-node start`` is the init step of a managed Redis pod."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from controller.redis_node.render import Unusable
from controller.redis_node.start import NoHairpin, Place, start


@click.group()
def main() -> None:
    """Programs of a managed Redis pod."""


@main.command(name="start")
@click.option("--pod", required=True, help="This pod's name; ends with its ordinal.")
@click.option("--config", default="/config", show_default=True, help="Folder of the ConfigMap.")
@click.option("--secrets", default="/secrets", show_default=True, help="Folder of the Secret.")
@click.option("--data", default="/data", show_default=True, help="Folder to write to.")
@click.option("--listen", help="Address to listen at; absent: all of them.")
def start_command(pod: str, config: str, secrets: str, data: str, listen: str | None) -> None:
    """Find out who is primary and write the configuration of server and Sentinel."""
    signal.signal(signal.SIGTERM, _end)  # process 1 of a container ignores what it does not handle
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    place = Place(config=Path(config), secrets=Path(secrets), data=Path(data), listen=listen)
    try:
        asyncio.run(start(place, pod))
    except (NoHairpin, Unusable) as problem:
        print(f"ERROR {problem}", file=sys.stderr)
        sys.exit(1)


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
