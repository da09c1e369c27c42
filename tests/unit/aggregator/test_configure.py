from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from aggregator import configure
from aligned.errors import BadConfiguration
from tests.fakes.configuration import right, write

if TYPE_CHECKING:
    from pathlib import Path


def problems(path: Path, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(BadConfiguration) as caught:
        configure.load(path, environment or {})
    return caught.value.problems


def test_relative_paths_count_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    write(folder, right(journal={"path": "../state/a.db"}))
    monkeypatch.chdir(tmp_path)
    settings = configure.load(folder.relative_to(tmp_path) / "aggregator.yaml", {})
    assert settings.journal.path == folder / "../state/a.db"
    assert settings.signer is not None
    assert settings.signer.type == "keystore"
    assert settings.signer.file == folder / "key.json"


def test_a_default_path_counts_from_there_too(tmp_path: Path) -> None:
    settings = configure.load(write(tmp_path, right()), {})
    assert settings.journal.path == tmp_path / "aggregator.db"


def test_all_problems_are_told_at_once_by_their_keys(tmp_path: Path) -> None:
    text = """
network: {chain_id: mainnet}
chain:
  endpoints:
    - {name: a, url: "ftp://x"}
    - {nmae: b, url: "http://y"}
  poll_intervall: 1s
signer: {type: keystore}
submission: {mode: activ}
"""
    assert problems(write(tmp_path, text)) == (
        "network.chain_id: must be a whole number (line 2)",
        "network.contracts: required (line 2)",
        "chain.endpoints[0].url: must be a URL that begins with http:// or https:// (line 5)",
        "chain.endpoints[1].name: required (line 6)",
        "chain.endpoints[1].nmae: unknown key (line 6); did you mean chain.endpoints[1].name?",
        "chain.poll_intervall: unknown key (line 7); did you mean chain.poll_interval?",
        "signer.file: required (line 8)",
        "submission.mode: must be 'active' or 'observe' (line 9)",
    )


def test_a_missing_signer_is_told_beside_other_problems(tmp_path: Path) -> None:
    found = problems(write(tmp_path, right(signer=None, chain__poll_interval="often")))
    assert [problem.partition(":")[0] for problem in found] == ["chain.poll_interval", "signer"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"chain": 5}, "chain: must be a mapping of keys to values", id="no section"),
        pytest.param({"chain__endpoints": "a"}, "chain.endpoints: must be a list", id="no list"),
        pytest.param({"signer": 1}, "signer: must be a mapping", id="no signer"),
        pytest.param({"signer__type": "hsm"}, "signer.type: must be 'keystore', '", id="no type"),
        pytest.param({"signer": {"file": "a"}}, "signer.type: required", id="type missing"),
        pytest.param({"journal__path": 5}, "journal.path: must be a path; put it", id="number"),
        pytest.param({"listen__address": 8090}, "listen.address: must be text; put", id="port"),
        pytest.param({"network__chain_id": 1.5}, "network.chain_id: must be a whole", id="part"),
        pytest.param(
            {"chain__endpoints": [{"name": "a", "url": "http://a"}] * 2},
            "chain.endpoints[1].name: 'a' is taken by endpoints[0]",
            id="a rule of a section",
        ),
        pytest.param(
            {"telemetry__address": "a:1", "listen__address": "a:1"},
            "telemetry.address: must differ from listen.address",
            id="a rule between sections",
        ),
        pytest.param({"signer": None}, "signer: required unless", id="signer missing"),
    ],
)
def test_one_problem_is_one_line_that_begins_with_its_key(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    (found,) = problems(write(tmp_path, right(**changes)))
    assert found.startswith(problem)


def test_a_signer_that_is_null_is_told_once(tmp_path: Path) -> None:
    text = json.dumps(right(signer=None))[:-1] + ', "signer": null}'
    (found,) = problems(write(tmp_path, text))
    assert found == "signer: required unless submission.mode is 'observe' (line 1)"


def test_keys_that_are_no_text_are_told(tmp_path: Path) -> None:
    text = json.dumps(right())[:-1] + ", 5: 6}"
    (found,) = problems(write(tmp_path, text))
    assert found.startswith("[5]: keys must be text")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("a: 1\nb: [", "line 2", id="not YAML"),
        pytest.param("just text", "must be a mapping", id="no mapping"),
        pytest.param("", "must be a mapping", id="empty"),
        pytest.param("a: !!python/name:os.system x", "line 1", id="code"),
        pytest.param("[" * 5000, "not YAML", id="endless nesting"),
    ],
)
def test_what_is_no_configuration_is_told_with_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = write(tmp_path, text)
    (found,) = problems(path)
    assert found.startswith(f"{path}: ")
    assert problem in found


def test_a_missing_file_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    (found,) = problems(tmp_path / "none.yaml")
    assert "none.yaml: cannot be read: No such file" in found


def test_a_file_that_is_not_text_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in problems(path)[0]


def test_repeated_keys_are_refused_with_both_lines(tmp_path: Path) -> None:
    text = json.dumps(right()) + "\n"
    text = text.replace('"chain_id": 31337', '"chain_id": 1,\n "chain_id": 31337')
    found = problems(write(tmp_path, text))
    assert found == ("network.chain_id: repeated on line 2, first on line 1",)


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = """
network:
  chain_id: 0x7a69
  contracts:
    service_manager: 0x1613beB3B2C4f22Ee086B2b38C1476A3cE7f78E8
    registry_coordinator: 0x851356ae760d987e095750cceb3bc6014560891c
    operator_state_retriever: 0x1234567890123456789012345678901234567890
chain: {endpoints: [{name: no, url: http://localhost}], poll_interval: 2}
listen: {proxy_protocol: off}
signer: {type: keystore, file: key.json}
telemetry: {address: ~}
"""
    settings = configure.load(write(tmp_path, text), {})
    assert settings.network.chain_id == 31337
    assert settings.network.contracts.service_manager.hex().startswith("1613beb3")
    assert settings.chain.endpoints[0].name == "no"
    assert settings.listen.proxy_protocol == "off"
    assert settings.telemetry.address is None


# The environment.


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        pytest.param("CHAIN__POLL_INTERVAL", "1s", "chain.poll_interval", 1.0, id="duration"),
        pytest.param("NETWORK__CHAIN_ID", "5", "network.chain_id", 5, id="number"),
        pytest.param("LISTEN__ADDRESS", "[::]:1", "listen.address", "[::]:1", id="not YAML"),
        pytest.param("TELEMETRY__ADDRESS", "null", "telemetry.address", None, id="null"),
        pytest.param(
            "LISTEN__TRUSTED_CIDRS", '["10.0.0.0/8"]', "listen.trusted_cidrs", ("10.0.0.0/8",),
            id="list",
        ),
    ],
)  # fmt: skip
def test_a_variable_overrides_the_file(
    tmp_path: Path, name: str, text: str, path: str, value: object
) -> None:
    file = write(tmp_path, right(chain__poll_interval="9s"))
    found: Any = configure.load(file, {f"ALIGNED_{name}": text, "PATH": "/bin"})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_section_may_be_given_whole_and_then_by_key(tmp_path: Path) -> None:
    environment = {
        "ALIGNED_SIGNER__FILE": "key.json",
        "ALIGNED_SIGNER": "{type: keystore, file: other.json}",
    }
    settings = configure.load(write(tmp_path, right(signer=None)), environment)
    assert settings.signer is not None
    assert settings.signer.type == "keystore"
    assert settings.signer.file == tmp_path / "key.json"


def test_an_unknown_variable_names_the_nearest_one(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, right()), {"ALIGNED_BLS__BACKENT": "auto"})
    assert found == "ALIGNED_BLS__BACKENT: no such setting; did you mean ALIGNED_BLS__BACKEND?"


def test_a_problem_in_a_variable_names_it_and_not_its_value(tmp_path: Path) -> None:
    environment = {"ALIGNED_CHAIN__ENDPOINTS": "[{name: a, url: hunter2}]"}
    (found,) = problems(write(tmp_path, right()), environment)
    assert found.startswith("chain.endpoints[0].url: ")
    assert found.endswith("(from ALIGNED_CHAIN__ENDPOINTS)")
    assert "hunter2" not in found


@pytest.mark.parametrize(
    "name",
    [
        "ALIGNED_SERVICE_HOST",
        "ALIGNED_PORT",
        "ALIGNED_AGGREGATOR_SERVICE_PORT_TCP_RPC",
        "ALIGNED_AGGREGATOR_PORT",
        "ALIGNED_AGGREGATOR_PORT_8090_TCP",
        "ALIGNED_AGGREGATOR_PORT_8090_TCP_ADDR",
    ],
)
def test_variables_that_kubernetes_makes_of_a_service_are_not_ours(
    tmp_path: Path, name: str
) -> None:
    configure.load(write(tmp_path, right()), {name: "tcp://10.0.0.1:8090"})


# Files rendered by the controller.


def test_a_rendered_file_may_have_keys_of_another_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = right(
        rendered_by="controller", chain__novelty=1, signer__novelty=2, novelty={"deep": True}
    )
    with caplog.at_level(logging.WARNING):
        configure.load(write(tmp_path, settings), {"ALIGNED_LISTEN__NOVELTY": "1"})
    told = {record.__dict__["setting"] for record in caplog.records}
    assert told == {"chain.novelty", "signer.novelty", "novelty", "ALIGNED_LISTEN__NOVELTY"}


def test_a_rendered_file_is_still_checked(tmp_path: Path) -> None:
    settings = right(rendered_by="controller", chain__novelty=1, chain__poll_interval="often")
    (found,) = problems(write(tmp_path, settings))
    assert found.startswith("chain.poll_interval: ")


def test_nobody_else_may_render(tmp_path: Path) -> None:
    found = problems(write(tmp_path, right(rendered_by="me", novelty=1)))
    assert [problem.partition(":")[0] for problem in found] == ["rendered_by", "novelty"]


# Files that are named.


def test_named_files_that_are_missing_are_told_together(tmp_path: Path) -> None:
    settings = right(
        signer__file="none.json",
        signer__password_file="none.txt",
        chain__endpoints=[{"name": "a", "url_file": "none.url"}],
    )
    found = problems(write(tmp_path, settings))
    assert [problem.partition(":")[0] for problem in found] == [
        "chain.endpoints[0].url_file", "signer.file", "signer.password_file",
    ]  # fmt: skip
    assert all("does not exist" in problem for problem in found)


@pytest.mark.parametrize(
    ("key", "content", "problem"),
    [
        pytest.param("signer__file", "{", "not JSON", id="broken keystore"),
        pytest.param("signer__file", "[]", "not a JSON object", id="a list for a keystore"),
        pytest.param("signer__file", '{"pubKey": "E([1,2])", "crypto": {}}', "BLS", id="BLS key"),
        pytest.param("signer__file", '{"version": 1}', "version 3", id="old keystore"),
        pytest.param("signer__file", "", "empty", id="empty keystore"),
        pytest.param("signer__password_file", "\n", "leave the key out", id="empty password"),
    ],
)
def test_a_file_that_is_not_what_it_must_be_is_told(
    tmp_path: Path, key: str, content: str, problem: str
) -> None:
    (tmp_path / "file").write_text(content)
    (found,) = problems(write(tmp_path, right(**{key: "file"})))
    assert found.startswith(key.replace("__", ".") + ": ")
    assert problem in found


@pytest.mark.parametrize("content", ["wss://hunter2", "http://a http://hunter2"])
def test_a_file_with_a_bad_url_is_told_without_the_url(tmp_path: Path, content: str) -> None:
    (tmp_path / "url").write_text(content)
    settings = right(chain__endpoints=[{"name": "a", "url_file": "url"}])
    (found,) = problems(write(tmp_path, settings))
    assert found.startswith("chain.endpoints[0].url_file: the file must hold")
    assert "hunter2" not in found


def test_a_folder_is_no_keystore(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, right(signer__file=".")))
    assert "cannot be read" in found


def test_an_undefined_alias_is_told_without_its_name(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, "password: *hunter2"))
    assert "line 1" in found
    assert "hunter2" not in found
