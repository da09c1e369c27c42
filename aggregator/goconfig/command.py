"""``aggregator config import``: reads the Go configuration, asks the chain, writes the files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from aggregator import configure
from aggregator.goconfig import probe
from aggregator.goconfig.convert import Request, Shared, convert
from aligned.errors import BadConfiguration


def import_go_config(  # one for each option of the command
    go_config: Path,
    deployment: Path | None,
    *,
    output: Path | None,
    chain_id: int | None,
    force: bool,
    shared: Shared | None = None,
) -> tuple[str, list[str]]:
    """Convert and write; return our file's text and what a person should know, one line each.

    Args:
        go_config: The Go aggregator's YAML.
        deployment: Its deployment JSON, instead of the one that is named there.
        output: Where to write; None writes nothing but a password file in the current folder.
        chain_id: Instead of asking.
        force: Overwrite files.
        shared: The Redis of several replicas.

    Raises:
        BadConfiguration: It cannot be converted, or a file exists or cannot be written.
    """
    current = Path.cwd()
    target = current / output if output is not None else None
    folder = target.parent if target is not None else current
    password = folder / f"{target.stem if target is not None else 'aggregator'}.password"
    request = Request(
        config=go_config,
        deployment=deployment,
        chain_id=chain_id,
        folder=folder,
        current=current,
        password_file=password.name if target is not None else str(password),
        shared=shared,
    )
    result = convert(request, lambda urls: asyncio.run(probe.chain_id(urls)))
    notes = list(result.notes)
    written = [path for path in (target, password if result.password else None) if path]
    if not force and (taken := [path for path in written if path.exists()]):
        problem = "exists already; pass --force to overwrite it"
        raise BadConfiguration(tuple(f"{path}: {problem}" for path in taken))
    if result.password:
        _write(password, result.password)
        notes.append(
            f"wrote {password} (mode 0600): the keystore's password stands in clear in"
            f" {go_config}; remove it there when the Go aggregator is gone"
        )
    if target is not None:
        _write(target, result.text)
        configure.load(target, {})
        notes.append(f"wrote {target} (mode 0600); next: aggregator config check {output}")
    return result.text, notes


def _write(path: Path, text: str) -> None:
    """Write a file that nobody else may read.

    Raises:
        BadConfiguration: It cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
    except OSError as error:
        raise BadConfiguration((f"{path}: cannot be written: {error.strerror}",)) from error
