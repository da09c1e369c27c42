from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from tests.nemesis.__main__ import main
from tests.nemesis.plan import Kind, Options, described, draw


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--plan-only"])


def test_the_plan_is_printed_with_its_seed_and_how_to_replay_it() -> None:
    result = run("--seed", "7", "--minutes", "3")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    plan = described(draw(Options(seed=7, minutes=3)))
    assert lines[: len(plan)] == plan
    assert lines[len(plan)] == "replay: python -m tests.nemesis --seed 7 --minutes 3"


def test_without_a_seed_every_run_has_its_own() -> None:
    assert run().output != run().output


def test_faults_can_be_chosen() -> None:
    result = run("--seed", "7", "--faults", "redis-all, kill")
    assert "--faults kill,redis-all" in result.output
    told = [line for line in result.output.splitlines() if "at batch" in line]
    assert told
    assert all("kill" in line or "redis-all" in line for line in told)


def test_an_unknown_fault_is_refused_with_a_hint() -> None:
    result = run("--faults", "kill,flood")
    assert result.exit_code == 2
    assert "'flood' is not a valid Kind; see --help for the kinds" in result.output


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").touch()
    result = run("--folder", str(tmp_path))
    assert result.exit_code == 2
    assert "is not empty" in result.output


def test_help_explains_every_fault() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {kind.value} " in output for kind in Kind)
