from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given, strategies as st

from aggregator import configure
from aggregator.goconfig import probe
from aggregator.goconfig.convert import Request, Shared, convert
from aggregator.goconfig.gofile import go_duration
from aligned.errors import BadConfiguration
from tests.fakes.goaggregator import DEPLOYMENT, DEVNET, LATE, V10, checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.goconfig.convert import Imported
    from aggregator.settings import Settings


def nobody(_: Sequence[str]) -> int | None:
    return None


class Import:
    """Converts a checkout and reads the result as ``aggregator run`` would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.imported: Imported

    def __call__(
        self,
        config: str = V10,
        deployment: object = DEVNET,
        *,
        ask: Callable[[Sequence[str]], int | None] = nobody,
        chain_id: int | None = None,
        elsewhere: Path | None = None,
        shared: Shared | None = None,
    ) -> Settings:
        checkout(self.folder, config, deployment)
        request = Request(
            config=self.folder / "config-files/config-aggregator.yaml",
            deployment=elsewhere,
            chain_id=chain_id,
            folder=self.folder,
            current=self.folder,
            password_file="aggregator.password",
            shared=shared,
        )
        self.imported = convert(request, ask)
        if self.imported.password:
            (self.folder / "aggregator.password").write_text(self.imported.password)
        return configure.read(self.imported.text, {}, folder=self.folder, name="imported")

    def problems(self, *arguments: Any, **options: Any) -> tuple[str, ...]:
        with pytest.raises(BadConfiguration) as caught:
            self(*arguments, **options)
        return caught.value.problems

    @property
    def notes(self) -> str:
        return "\n".join(self.imported.notes)


@pytest.fixture
def run(tmp_path: Path) -> Import:
    return Import(tmp_path)


def changed(*path: str, to: object) -> dict[str, Any]:
    deployment: dict[str, Any] = copy.deepcopy(DEVNET)
    target = deployment
    for part in path[:-1]:
        target = target[part]
    if to is None:
        del target[path[-1]]
    else:
        target[path[-1]] = to
    return deployment


def test_the_devnet_file_of_v0_10_1_runs_as_it_is(run: Import, tmp_path: Path) -> None:
    settings = run(V10)
    contracts = settings.network.contracts
    assert settings.network.chain_id == 31337
    assert contracts.service_manager.hex() == "1613beb3b2c4f22ee086b2b38c1476a3ce7f78e8"
    assert contracts.registry_coordinator.hex() == "851356ae760d987e095750cceb3bc6014560891c"
    assert contracts.operator_state_retriever.hex() == "b7278a61aa25c888815afc32ad3cc52ff24fe575"
    assert settings.chain.deployment_block == 3
    assert [each.url for each in settings.chain.endpoints] == ["http://localhost:8545"]
    assert settings.signer is not None
    assert settings.signer.type == "keystore"
    assert settings.signer.file == tmp_path / "config-files/anvil.aggregator.ecdsa.key.json"
    assert settings.signer.password_file is None
    assert run.imported.password == ""
    assert settings.aggregation.expiry == 168 * 3600
    assert settings.listen.address == "localhost:8090"
    assert settings.journal.path == tmp_path / "aggregator.db"
    assert settings.telemetry.address == "localhost:9091"
    assert settings.telemetry.upstream_url == "http://localhost:4001"
    assert (settings.telemetry.log_format, settings.telemetry.log_level) == ("json", "info")


def test_a_later_file_brings_its_timing_and_its_password(run: Import, tmp_path: Path) -> None:
    settings = run(LATE)
    assert [(each.name, each.url) for each in settings.chain.endpoints] == [
        ("main", "https://one.example/v2/K1"),
        ("fallback", "https://two.example/K2"),
    ]
    assert settings.aggregation.expiry == 168 * 3600
    assert settings.submission.bump_percent == 20
    assert settings.submission.resubmit_after == 72
    assert settings.signer is not None
    assert settings.signer.type == "keystore"
    assert settings.signer.password_file == tmp_path / "aggregator.password"
    assert run.imported.password == "0123"
    assert "0123" not in run.imported.text + run.notes


def test_every_value_says_where_it_came_from(run: Import) -> None:
    run(LATE)
    for line in (
        'url: "https://one.example/v2/K1"  # eth_rpc_url',
        'address: "0.0.0.0:8090"  # aggregator.server_ip_port_address',
        "resubmit_after: 1m12s  # aggregator.time_to_wait_before_bump",
        "expiry: 168h  # aggregator.bls_service_task_timeout",
    ):
        assert line in run.imported.text


def test_what_is_not_needed_or_not_known_is_told(run: Import) -> None:
    run(V10 + "  novelty: 1\noperator:\n  address: x\n")
    assert "not needed (blocks are polled over HTTP): eth_ws_url, eth_ws_url_fallback" in run.notes
    assert "ignored, not known: aggregator.novelty, operator.address" in run.notes
    assert "eth_rpc_url_fallback is the same endpoint" in run.notes


# The chain.


def test_the_endpoint_is_asked_for_the_chain(run: Import) -> None:
    asked: list[Sequence[str]] = []

    def ask(urls: Sequence[str]) -> int:
        asked.append(urls)
        return 31337

    settings = run(LATE, ask=ask)
    assert settings.network.chain_id == 31337
    assert asked == [["https://one.example/v2/K1", "https://two.example/K2"]]
    assert "chain_id: 31337  # asked from the endpoint" in run.imported.text


def test_a_known_deployment_needs_no_answer(run: Import) -> None:
    deployment = changed("chainInfo", to=None)
    deployment["addresses"]["alignedLayerServiceManager"] = (
        "0xeF2A435e5EE44B2041100EF8cbC8ae035166606c"
    )
    settings = run(V10, deployment)
    assert settings.network.chain_id == 1
    assert settings.chain.deployment_block == 21289146
    assert "chain id 1 is from: known: mainnet" in run.notes


def test_a_chain_that_nobody_names_must_be_passed(run: Import) -> None:
    deployment = changed("chainInfo", to=None)
    deployment["addresses"]["alignedLayerServiceManager"] = "0x" + "12" * 20
    (problem,) = run.problems(V10, deployment)
    assert problem.startswith("eth_rpc_url: ")
    assert "--chain-id NUMBER" in problem


def test_a_chain_that_is_passed_asks_nobody(run: Import) -> None:
    def ask(_: Sequence[str]) -> int:
        raise AssertionError

    deployment = changed("chainInfo", to=None)
    deployment["addresses"]["alignedLayerServiceManager"] = "0x" + "12" * 20
    settings = run(V10, deployment, ask=ask, chain_id=7)
    assert settings.network.chain_id == 7
    assert settings.chain.deployment_block == 0
    assert "scans begin at block 0" in run.notes


def test_an_endpoint_of_another_chain_is_a_problem(run: Import) -> None:
    (problem,) = run.problems(V10, ask=lambda _: 1)
    assert problem.startswith(
        "eth_rpc_url: the endpoint serves chain 1, the deployment is on 31337"
    )


# Values that change.


@pytest.mark.parametrize(
    ("percent", "becomes", "why"),
    [
        pytest.param(2, 13, "2 became 13: nodes refuse", id="too little"),
        pytest.param(13, 13, None, id="least"),
        pytest.param(100, 100, None, id="most"),
        pytest.param(150, 100, "150 became 100", id="too much"),
    ],
)
def test_a_bump_that_does_not_fit_is_changed_and_told(
    run: Import, percent: int, becomes: int, why: str | None
) -> None:
    key = "gas_bump_incremental_percentage"
    settings = run(LATE.replace(f"{key}: 20", f"{key}: {percent}"))
    assert settings.submission.bump_percent == becomes
    assert (key in run.notes) == (why is not None)
    assert why is None or why in run.notes


def test_an_expiry_below_the_window_is_changed_and_told(run: Import) -> None:
    settings = run(LATE.replace("timeout: 168h", "timeout: 5s"))
    assert settings.aggregation.expiry == 168 * 3600
    assert "bls_service_task_timeout: 5s is below the window" in run.notes


def test_an_address_without_host_means_everywhere_as_in_go(run: Import) -> None:
    settings = run(V10.replace("localhost:8090", '":8090"'))
    assert settings.listen.address == "0.0.0.0:8090"


def test_metrics_that_were_off_stay_off_and_it_is_told(run: Import) -> None:
    settings = run(V10.replace("enable_metrics: true", "enable_metrics: false"))
    assert settings.telemetry.address is None
    assert "metrics were off" in run.notes


def test_development_logs_for_people(run: Import) -> None:
    settings = run(V10.replace('"production"', '"development"'))
    assert (settings.telemetry.log_format, settings.telemetry.log_level) == ("text", "debug")


@pytest.mark.parametrize(
    ("password", "read"),
    [
        pytest.param("123456", "123456", id="digits"),
        pytest.param("0x1f", "0x1f", id="hexadecimal"),
        pytest.param("true", "true", id="truth"),
        pytest.param("'a: \"b\" # c'", 'a: "b" # c', id="YAML's own signs"),
        pytest.param("~", "", id="null"),
        pytest.param("pässword", "pässword", id="beyond ASCII"),
    ],
)
def test_a_password_is_the_text_that_go_reads(run: Import, password: str, read: str) -> None:
    run(V10.replace('password: ""', f"password: {password}", 1))
    assert run.imported.password == read


# What cannot be imported.


def test_all_problems_are_told_by_the_keys_of_the_go_file(run: Import) -> None:
    config = (
        LATE.replace("https://one.example/v2/K1", "wss://one.example/v2/hunter2")
        .replace("private_key_store_path:", "private_key_store_pth:", 1)
        .replace("timeout: 168h", "timeout: 168")
        .replace("incremental_percentage: 20", "incremental_percentage: some")
        .replace("server_ip_port_address:", "server:")
    )
    found = run.problems(config)
    assert [problem.partition(":")[0] for problem in found] == [
        "eth_rpc_url",
        "ecdsa.private_key_store_path",
        "aggregator.bls_service_task_timeout",
        "aggregator.gas_bump_incremental_percentage",
        "aggregator.server_ip_port_address",
    ]
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("deployment", "problem"),
    [
        pytest.param([], "no addresses", id="not a deployment"),
        pytest.param(
            changed("addresses", "registryCoordinator", to=None),
            "addresses.registryCoordinator",
            id="address missing",
        ),
        pytest.param(
            changed(
                "addresses",
                "registryCoordinator",
                to="0x851356aE760d987E095750cCeb3bC6014560891C",
            ),
            "checksum",
            id="checksum wrong",
        ),
    ],
)
def test_a_deployment_that_is_none_is_a_problem(
    run: Import, deployment: object, problem: str
) -> None:
    (found,) = run.problems(V10, deployment)
    assert found.startswith("aligned_layer_deployment_config_file_path: ")
    assert problem in found


def test_another_deployment_may_be_passed(run: Import, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps(changed("chainInfo", "chainId", to=5)))
    settings = run(V10, [], elsewhere=Path("other.json"))
    assert settings.network.chain_id == 5


def test_a_file_without_a_deployment_says_what_to_pass(run: Import) -> None:
    (problem,) = run.problems(V10.replace("aligned_layer_deployment_config_file_path", "x", 1))
    assert "--aligned-deployment FILE" in problem


def test_a_missing_deployment_file_is_told_with_its_path(run: Import) -> None:
    (problem,) = run.problems(V10.replace("output.json", "outputs.json", 1))
    assert "No such file" in problem
    assert Path(DEPLOYMENT).parent.name in problem


def test_a_missing_keystore_is_told(run: Import) -> None:
    (problem,) = run.problems(V10.replace("anvil.aggregator.ecdsa", "nobody.ecdsa", 1))
    assert problem.startswith("signer.file: ")
    assert "does not exist" in problem


def test_a_result_that_would_not_run_is_not_given(run: Import) -> None:
    (problem,) = run.problems(V10.replace("localhost:8090", "localhost"))
    assert problem.startswith("listen.address: ")


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_what_is_no_yaml_mapping_is_told(run: Import, text: str) -> None:
    (problem,) = run.problems(text)
    assert "config-aggregator.yaml: " in problem


# Go's durations.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("168h", 604800, id="hours"),
        pytest.param("1h15m30.918s", 4530.918, id="sum"),
        pytest.param("2m0s", 120, id="as Go prints it"),
        pytest.param("1.5h", 5400, id="fraction"),
        pytest.param(".5s", 0.5, id="bare fraction"),
        pytest.param("500us", 0.0005, id="microseconds"),
        pytest.param("0", 0, id="zero needs no unit"),
    ],
)
def test_go_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert go_duration(text) == pytest.approx(seconds)


@given(st.text(alphabet="0123456789.hmsn ", max_size=6))
def test_what_go_would_not_read_is_refused(text: str) -> None:
    if text == "0" or (text.endswith(("s", "m", "h")) and " " not in text):
        return
    with pytest.raises(ValueError, match="duration of Go"):
        go_duration(text)


# Asking.


async def serve(handler: Callable[[web.Request], Any]) -> tuple[web.AppRunner, str]:
    application = web.Application()
    application.add_routes([web.post("/", handler)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}/"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"error": {"code": -32601}}', '{"result": 5}', '{"result": "many"}'],
)
async def test_an_endpoint_that_talks_nonsense_gives_way_to_the_next(text: str) -> None:
    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text=text)

    async def answer(request: web.Request) -> web.Response:
        call = await request.json()
        assert call["method"] == "eth_chainId"
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": "0x7a69"})

    bad, bad_url = await serve(nonsense)
    good, good_url = await serve(answer)
    try:
        assert await probe.chain_id([bad_url, good_url]) == 31337
        assert await probe.chain_id([bad_url]) is None
    finally:
        await bad.cleanup()
        await good.cleanup()


async def test_an_answer_in_pieces_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def padded(_: web.Request) -> web.Response:
        return web.Response(text=" " * 600_000 + '{"result": "0x7a69"}')

    runner, url = await serve(padded)
    try:
        assert await probe.chain_id([url]) is None  # longer than is read
        monkeypatch.setattr(probe, "_MAX_REPLY", 1 << 20)
        assert await probe.chain_id([url]) == 31337
    finally:
        await runner.cleanup()


async def test_nobody_at_home_is_no_answer() -> None:
    async def never(_: web.Request) -> web.Response:
        raise AssertionError

    runner, url = await serve(never)
    await runner.cleanup()
    assert await probe.chain_id([url]) is None


async def test_an_endpoint_that_hangs_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DEADLINE", 0.05)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    runner, url = await serve(hang)
    try:
        assert await probe.chain_id([url]) is None
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "shared",
    [
        pytest.param(Shared(sentinels=("a:1", "b:2"), master_name="aligned"), id="Sentinels"),
        pytest.param(Shared(url="redis://a:6379/3"), id="one address"),
    ],
)
def test_several_replicas_share_a_redis(shared: Shared, tmp_path: Path) -> None:
    redis = Import(tmp_path)(chain_id=31337, shared=shared).redis
    assert redis is not None
    assert (redis.sentinels, redis.master_name, redis.url) == (
        shared.sentinels,
        shared.master_name,
        shared.url,
    )


def test_half_of_a_redis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"redis\.master_name: required with sentinels"):
        Import(tmp_path)(chain_id=31337, shared=Shared(sentinels=("a:1",)))
