from __future__ import annotations

import asyncio
import json
import logging
import signal
import stat
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner, Result

from aggregator import configure
from aggregator.cli import aggregator
from aggregator.journal.format import Fence
from aggregator.journal.journal import Journal
from aggregator.outbox import Kind, OutboxRow
from aligned.errors import AlignedError, BadConfiguration, ChainUnavailable, StateDamaged
from aligned.model import Address, BlockHash, Identity, Term, TransactionHash, Wei
from tests.fakes.builders import a_batch_id, block, entry, operator
from tests.fakes.configuration import right, write
from tests.fakes.goaggregator import LATE, V10, checkout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aggregator.settings import Settings


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: object, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(aggregator, [str(each) for each in arguments], obj=environment or {})


class Daemon:
    """Stands in for ``aggregator.app``."""

    def __init__(self) -> None:
        self.settings: list[Settings] = []
        self.error: AlignedError | None = None

    async def run(self, settings: Settings, environment: Mapping[str, str]) -> None:
        logging.getLogger("aggregator.app").info("running")
        self.settings.append(settings)
        if self.error is not None:
            raise self.error


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    fake = Daemon()
    module = ModuleType("aggregator.app")
    module.run = fake.run  # type: ignore[attr-defined]  # a module made here has what is put in
    monkeypatch.setitem(sys.modules, "aggregator.app", module)
    monkeypatch.setattr("aggregator.app", module, raising=False)
    return fake


# run


def test_run_ends_with_0_when_told_to_stop_before_it_has_begun(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(configure, "load", told)
    before = signal.getsignal(signal.SIGTERM)
    assert call("run", "--config", write(tmp_path, right())).exit_code == 0
    assert daemon.settings == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_ends_with_0_when_told_to_stop(daemon: Daemon, tmp_path: Path) -> None:
    file = write(tmp_path, right())
    result = call("run", "--config", file, environment={"ALIGNED_CHAIN__POLL_INTERVAL": "1s"})
    assert result.exit_code == 0
    assert [settings.chain.poll_interval for settings in daemon.settings] == [1.0]
    assert json.loads(result.stderr)["event"] == "running"


def test_run_ends_with_2_and_all_problems_of_the_configuration(
    daemon: Daemon, tmp_path: Path
) -> None:
    file = write(tmp_path, right(chain__poll_interval="often", listen__address="8090"))
    result = call("run", "--config", file)
    assert result.exit_code == 2
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "chain.poll_interval",
        "listen.address",
    ]
    assert daemon.settings == []


def test_a_configuration_found_wrong_later_ends_with_2_too(daemon: Daemon, tmp_path: Path) -> None:
    daemon.error = BadConfiguration(("listen.address: is taken", "telemetry.address: is taken"))
    result = call("run", "--config", write(tmp_path, right(telemetry={"log_level": "error"})))
    assert result.exit_code == 2
    assert result.stderr == "listen.address: is taken\ntelemetry.address: is taken\n"


@pytest.mark.parametrize("error", [StateDamaged("journal\nbroken"), ChainUnavailable("nobody")])
def test_anything_else_ends_with_1_and_one_line(
    daemon: Daemon, tmp_path: Path, error: AlignedError
) -> None:
    daemon.error = error
    result = call("run", "--config", write(tmp_path, right(telemetry={"log_level": "error"})))
    assert result.exit_code == 1
    line = json.loads(result.stderr)
    assert (line["level"], line["kind"]) == ("critical", type(error).__name__)
    assert line["why"] == str(error)


def test_a_rendered_file_warns_in_the_form_of_the_logs(daemon: Daemon, tmp_path: Path) -> None:
    result = call("run", "--config", write(tmp_path, right(rendered_by="controller", new=1)))
    assert result.exit_code == 0
    first, _ = (json.loads(line) for line in result.stderr.splitlines())
    assert (first["level"], first["setting"]) == ("warning", "new")


# config check


def test_check_shows_what_is_in_force_without_secrets(tmp_path: Path) -> None:
    endpoints = [{"name": "a", "url": "https://rpc.example/hunter2"}]
    file = write(tmp_path, right(chain__endpoints=endpoints))
    result = call("config", "check", file, environment={"ALIGNED_LISTEN__MAX_CONNECTIONS": "9"})
    assert result.exit_code == 0
    assert result.stdout.endswith(f"# OK: {file} can be used\n")
    shown = yaml.safe_load(result.stdout)
    assert shown["listen"]["max_connections"] == 9
    assert shown["aggregation"]["expiry"] == "168h"
    assert shown["chain"]["endpoints"][0]["url"] == "https://rpc.example/(redacted)"
    assert "hunter2" not in result.output


def test_check_ends_with_2_when_something_is_wrong(tmp_path: Path) -> None:
    result = call("config", "check", write(tmp_path, right(submission__bump_percent=5)))
    assert result.exit_code == 2
    assert result.stderr.startswith("submission.bump_percent: must be greater than or equal to 13")
    assert result.stdout == ""


def test_check_of_a_missing_file_says_so() -> None:
    result = call("config", "check", "none.yaml")
    assert result.exit_code == 2
    assert result.stderr == "none.yaml: cannot be read: No such file or directory\n"


# config import


def test_import_writes_files_that_only_the_owner_may_read(tmp_path: Path) -> None:
    config = checkout(tmp_path, LATE)
    (tmp_path / "etc").mkdir()
    result = call(
        "config", "import", "--go-config", config.relative_to(tmp_path), "--output",
        "etc/mine.yaml", "--chain-id", "31337",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    output, password = tmp_path / "etc/mine.yaml", tmp_path / "etc/mine.password"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (output, password)] == [0o600] * 2
    assert password.read_text() == "0123"
    settings = configure.load(output, {})
    assert settings.signer is not None
    assert settings.signer.type == "keystore"
    assert settings.signer.password_file == password
    assert settings.journal.path == tmp_path / "etc/aggregator.db"
    assert f"wrote {password}" in result.stderr
    assert "0123" not in result.output
    assert result.stdout == ""
    assert call("config", "check", output).exit_code == 0


def test_import_without_output_prints_the_file(tmp_path: Path) -> None:
    config = checkout(tmp_path, LATE)
    result = call("config", "import", "--go-config", config, "--chain-id", "31337")
    assert result.exit_code == 0, result.output
    (tmp_path / "elsewhere").mkdir()
    output = tmp_path / "elsewhere/out.yaml"
    output.write_text(result.stdout)
    settings = configure.load(output, {})
    assert settings.signer is not None
    assert settings.signer.type == "keystore"
    assert settings.signer.password_file == tmp_path / "aggregator.password"


def test_import_makes_no_password_file_for_the_empty_password(tmp_path: Path) -> None:
    config = checkout(tmp_path, V10)
    result = call(
        "config", "import", "--go-config", config, "--output", "o.yaml", "--chain-id", "31337"
    )
    assert result.exit_code == 0, result.output
    assert list(tmp_path.glob("*.password")) == []
    assert configure.load(tmp_path / "o.yaml", {}).network.chain_id == 31337


def test_import_overwrites_only_when_told_to(tmp_path: Path) -> None:
    arguments = (
        "config", "import", "--go-config", checkout(tmp_path, LATE), "--output", "o.yaml",
        "--chain-id", "31337",
    )  # fmt: skip
    assert call(*arguments).exit_code == 0
    (tmp_path / "o.yaml").write_text("mine")
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert [line.partition(": ")[0] for line in refused.stderr.splitlines()] == [
        str(tmp_path / "o.yaml"),
        str(tmp_path / "o.password"),
    ]
    assert (tmp_path / "o.yaml").read_text() == "mine"
    assert call(*arguments, "--force").exit_code == 0
    assert (tmp_path / "o.yaml").read_text() != "mine"


def test_import_to_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    config = checkout(tmp_path, V10)
    result = call(
        "config", "import", "--go-config", config, "--output", "no/o.yaml", "--chain-id", "1"
    )
    assert result.exit_code == 2
    assert "cannot be written: No such file or directory" in result.stderr


def test_import_of_a_broken_file_ends_with_2(tmp_path: Path) -> None:
    result = call("config", "import", "--go-config", checkout(tmp_path, "a: [", {}))
    assert result.exit_code == 2
    assert "line 1" in result.stderr


# journal


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A closed one with two signatures and a transaction."""
    path = tmp_path / "a.db"
    identity = Identity(
        chain_id=31337,
        genesis_hash=BlockHash(b"g" * 32),
        service_manager=Address(bytes.fromhex("1613beb3b2c4f22ee086b2b38c1476a3ce7f78e8")),
        deployment_hash=BlockHash(b"d" * 32),
    )
    row = OutboxRow(
        sender=Address(bytes.fromhex("15d34aaf54267db7d7c367839aaf71a00a2c6a65")),
        nonce=4,
        attempt=1,
        kind=Kind.ANSWER,
        batch_id=a_batch_id(1),
        created=block(100),
        raw=b"signed",
        hash=TransactionHash(b"h" * 32),
        gas=250_000,
        max_fee=Wei(2 * 10**9),
        max_priority_fee=Wei(1),
        term=Term(3),
    )
    opened = Journal.open(path, identity)

    async def fill() -> None:
        await opened.append((entry(1, 1), entry(1, 2)), height=7)
        await opened.claim(Fence(Term(3), "me"))
        await opened.record(row)
        await opened.save_operators([operator(1)], block(9))

    asyncio.run(fill())
    opened.close()
    return path


def test_inspect_tells_a_person(journal: Path) -> None:
    result = call("journal", "inspect", journal)
    assert result.exit_code == 0, result.output
    batch = "0x" + a_batch_id(1).hex()
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith(f"journal {journal}, format ")
    assert lines[1:] == [
        "deployment 0x1613beB3B2C4f22Ee086B2b38C1476A3cE7f78E8 on chain 31337",
        "operators 1, complete to block 9",
        "term 3 of me",
        "signatures 2 for 1 batches",
        f"{batch} 2",
        "refuted 0",
        "transactions 1",
        f"nonce 4.1 answer for {batch}, at most 2gwei, 0x{'68' * 32}",
    ]


def test_inspect_tells_a_program_the_same_but_no_signed_bytes(journal: Path) -> None:
    result = call("journal", "inspect", journal, "-o", "json")
    facts = json.loads(result.stdout)
    assert facts["batches"] == {"0x" + a_batch_id(1).hex(): 2}
    assert facts["signatures"] == 2
    assert facts["identity"]["service_manager"] == "0x1613beB3B2C4f22Ee086B2b38C1476A3cE7f78E8"
    assert facts["fence"] == {"term": 3, "holder": "me"}
    (row,) = facts["outbox"]
    assert (row["nonce"], row["kind"], row["max_fee"]) == (4, "answer", 2 * 10**9)
    assert row["sender"] == "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
    assert "raw" not in row


def test_a_journal_moves_by_export_and_import(journal: Path, tmp_path: Path) -> None:
    moved, there = tmp_path / "moved.jsonl", tmp_path / "b.db"
    exported = call("journal", "export", journal, moved)
    assert exported.exit_code == 0, exported.output
    assert "2 signatures of 1 batches and 1 transactions" in exported.stdout
    assert "marked as moved" in exported.stdout
    assert "refuses this journal" in call("journal", "inspect", journal).stdout
    imported = call("journal", "import", there, moved)
    assert imported.exit_code == 0, imported.output
    assert "2 signatures, 1 transactions" in imported.stdout
    assert json.loads(call("journal", "inspect", there, "-o", "json").stdout)["signatures"] == 2


def test_a_backup_leaves_the_journal_in_use(journal: Path, tmp_path: Path) -> None:
    result = call("journal", "export", "--keep", journal, tmp_path / "backup.jsonl")
    assert result.exit_code == 0
    assert "marked" not in result.stdout
    assert "refuses" not in call("journal", "inspect", journal).stdout


def test_a_damaged_journal_ends_with_1_and_says_how_to_go_on(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:5000])
    result = call("journal", "inspect", journal)
    assert result.exit_code == 1
    assert str(journal) in result.stderr


def test_a_missing_journal_is_told() -> None:
    result = call("journal", "inspect", "none.db")
    assert result.exit_code == 2
    assert "none.db" in result.stderr


# The rest


def test_the_version_is_that_of_the_distribution() -> None:
    assert call("--version").stdout.startswith("aggregator, version ")


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("run",),
        ("config", "check"),
        ("config", "import"),
        ("journal", "inspect"),
        ("journal", "export"),
        ("journal", "import"),
    ],
    ids=" ".join,
)
def test_help_shows_an_example(command: tuple[str, ...]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    _, _, examples = result.stdout.partition("Examples:\n")
    assert " ".join(("aggregator", *command)) in examples


def test_wrong_arguments_end_with_2() -> None:
    assert call("run").exit_code == 2
    assert call("fly").exit_code == 2
