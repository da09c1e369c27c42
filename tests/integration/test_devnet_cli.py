from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from aggregator.settings import Settings
from devnet.__main__ import main
from devnet.rpc import Node, NodeAway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def up(installed_anvil: None, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "devnet", "up", "--folder", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*command, "--port", "0", "--every", "0", "--no-operators"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.startswith("no batches"):
                break
        yield process
        process.kill()
        process.wait()


def _devnet(*arguments: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, "-m", "devnet", *arguments], capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout + run.stderr


async def test_up_runs_a_network_that_batch_posts_to_and_ends_in_order(
    up: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = Settings.model_validate(yaml.safe_load((folder / "aggregator.yaml").read_text()))
    url = settings.chain.endpoints[0].url
    assert url is not None
    code, output = _devnet(
        "batch", "--folder", str(folder), "--wait", "0", "--root", "0x" + "ab" * 32
    )
    assert (code, "posted in block" in output) == (0, True)
    code, output = _devnet("batch", "--folder", str(folder), "--wait", "0.1")
    assert (code, "not verified after 0.1 s" in output) == (1, True)
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0
    with pytest.raises(NodeAway):
        await Node(url).call("eth_chainId")
    code, output = _devnet("batch", "--folder", str(folder))
    assert (code, "Connect call failed" in output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["batch", "--folder", "nowhere"], "python -m devnet up", id="no network"),
        pytest.param(["batch", "--root", "0x12"], "32 bytes", id="short root"),
        pytest.param(["batch", "--root", "xyz"], "not hexadecimal", id="no root"),
        pytest.param(["up", "--offline", "5"], "5 of 4 operators", id="too many offline"),
        pytest.param(["up", "--aggregator", "here"], "not HOST:PORT", id="no address"),
        pytest.param(
            ["load", "--operators", "1", "--batches", "1", "--aggregator", "127.0.0.1:1"],
            "Connect call failed",
            id="nobody listens",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in {1, 2}
    assert words in result.output


def test_help_begins_with_what_to_type() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert "In one terminal:   python -m devnet up\n" in result.output
