"""Compiles the contracts again and compares: ``python -m devnet.contracts.check [--write]``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from devnet.contracts import artifacts
from devnet.node import install

_COMPILER_SECONDS = 120


class CompilationFailed(click.ClickException):
    """The contracts could not be compiled."""


def compiled() -> str:
    """Compile the contracts; return the artifact file's text.

    Raises:
        CompilationFailed: The compiler is missing or refuses the source.
    """
    script = Path(__file__).with_name("compile.mjs")
    run = subprocess.run(  # noqa: S603 - a program of ours, arguments of ours
        [*install.node(), str(script), str(install.FOLDER)],
        capture_output=True,
        text=True,
        timeout=_COMPILER_SECONDS,
        check=False,
    )
    if run.returncode != 0:
        raise CompilationFailed(run.stderr.strip() or f"node ended with {run.returncode}")
    return run.stdout


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Replace artifacts.json instead of comparing.")
def main(*, write: bool) -> None:
    """Compare artifacts.json with the source, or write it.

    Raises:
        CompilationFailed: See ``compiled``; or the two differ.
    """
    text = compiled()
    if write:
        artifacts.FILE.write_text(text)
    elif text != artifacts.FILE.read_text():
        raise CompilationFailed(
            "artifacts.json is not what Devnet.sol compiles to; run with --write"
        )
    click.echo(f"{artifacts.FILE.name}: as compiled")


if __name__ == "__main__":
    main()
