from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from controller import names
from controller.api.crd import crd
from controller.cli import controller

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "aggregator.yaml"


def call(*arguments: str, text: str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(controller, arguments, obj=environment, input=text)


def rendered(*arguments: str, text: str | None = None) -> list[dict[str, Any]]:
    result = call("render", *arguments, text=text)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def test_help_teaches_by_examples() -> None:
    assert "kubectl apply --server-side" in call("--help").output
    shown = call("run", "--help").output
    for option in ("--namespace", "--all-namespaces", "--image", "--lease-name", "--telemetry"):
        assert option in shown
        assert f"CONTROLLER_{option.strip('-').replace('-', '_').upper()}" in shown


def test_the_definition_is_shown() -> None:
    assert yaml.safe_load(call("crd").stdout) == crd()


def test_all_problems_of_a_run_are_told_at_once() -> None:
    result = call("run", "--workers", "0", CONTROLLER_RESYNC="soon")
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "--image",
        "--redis-image",
        "CONTROLLER_RESYNC",
        "--workers",
    ]


def test_without_a_way_to_an_api_server_a_run_says_how_to_give_one(tmp_path: Path) -> None:
    result = call("run", "--image", "a", "--redis-image", "b", HOME=str(tmp_path))
    assert result.exit_code == 2
    assert "set KUBECONFIG" in result.stderr


EXAMPLES = sorted(path for path in ROOT.glob("examples/*.yaml") if names.KIND in path.read_text())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.name))
def test_every_example_can_be_seen(example: Path) -> None:
    kinds = [each["kind"] for each in rendered(str(example))]
    assert "StatefulSet" in kinds
    assert "Service" in kinds


def test_a_preview_has_what_is_applied_and_what_is_created_once() -> None:
    found = {(each["kind"], each["metadata"]["name"]) for each in rendered(str(EXAMPLE))}
    assert {("Lease", "aggregator"), ("Secret", "aggregator-redis")} <= found
    assert {("StatefulSet", "aggregator"), ("StatefulSet", "aggregator-redis")} <= found
    assert {each["metadata"]["namespace"] for each in rendered(str(EXAMPLE))} == {"default"}


def test_a_preview_reads_standard_input_and_takes_what_is_known() -> None:
    addresses = ("10.96.0.1", "10.96.0.2", "10.96.0.3")
    arguments = [word for address in addresses for word in ("--redis-address", address)]
    found = rendered(
        "-", "--image", "mine:2", "--namespace", "aligned", *arguments, text=EXAMPLE.read_text()
    )
    assert {each["metadata"]["namespace"] for each in found} == {"aligned"}
    text = yaml.safe_dump_all(found)
    assert "mine:2" in text
    assert all(address in text for address in addresses)


def test_a_preview_is_the_same_each_time() -> None:
    assert rendered(str(EXAMPLE)) == rendered(str(EXAMPLE))


def test_no_password_is_made_up_for_a_preview() -> None:
    [secret] = [each for each in rendered(str(EXAMPLE)) if each["kind"] == "Secret"]
    values = secret.get("stringData") or {
        name: base64.b64decode(value).decode() for name, value in secret["data"].items()
    }
    assert set(values.values()) == {"made-up-once-in-the-cluster"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "this is no YAML"),
        ("kind: Pod", "there is no AlignedAggregator in it"),
        (f"kind: {names.KIND}", "metadata.name: required"),
        (f"kind: {names.KIND}\nmetadata: {{name: a}}\nspec: {{}}", "spec.network"),
    ],
)
def test_what_cannot_be_previewed_is_said(text: str, says: str) -> None:
    result = call("render", "-", text=text)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_preview_wants_all_addresses_or_none() -> None:
    result = call("render", str(EXAMPLE), "--redis-address", "10.0.0.1")
    assert result.exit_code == 2
    assert "give 3" in result.stderr


def test_everything_that_an_api_server_takes_can_be_read() -> None:
    code = """
import json
from controller import __main__ as started
started.controller = lambda **_: json.loads('{"a":' * 9999 + "1" + "}" * 9999)
started.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
