from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from devnet.node import install

if TYPE_CHECKING:
    from pathlib import Path

_NPM = """#!/bin/sh
echo "$@" >> "{calls}"
if [ -e "{broken}" ]; then echo "registry away" >&2; exit 1; fi
/bin/mkdir -p node_modules
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an npm that writes down its calls, and a checkout of its own."""
    folder, programs = tmp_path / "node", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(install.FOLDER / name, folder)
    for name in ("npm", "node"):
        program = programs / name
        program.write_text(_NPM.format(calls=tmp_path / "calls", broken=tmp_path / "broken"))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(install, "FOLDER", folder)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def _calls(machine: Path) -> list[str]:
    file = machine / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_packages_are_installed_once_and_without_their_scripts(machine: Path) -> None:
    assert "installed" in install.install()
    assert "are installed" in install.install()
    assert _calls(machine) == ["ci --ignore-scripts --no-audit --no-fund"]


@pytest.mark.parametrize("name", ["package.json", "package-lock.json", ".npmrc"])
def test_a_change_installs_again(machine: Path, name: str) -> None:
    install.install()
    with (machine / "node" / name).open("a") as file:
        file.write("\n")
    install.install()
    assert len(_calls(machine)) == 2


def test_a_failure_is_told_in_npm_s_words_and_tried_again(machine: Path) -> None:
    (machine / "broken").touch()
    failed = CliRunner().invoke(install.main)
    assert failed.exit_code == 1
    assert "registry away" in failed.output
    (machine / "broken").unlink()
    assert CliRunner().invoke(install.main).exit_code == 0
    assert len(_calls(machine)) == 2
