from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml
from eth_account import Account

from aggregator.settings import Settings
from aligned.model import Address
from devnet.files import Files, Options, write
from devnet.network import AGGREGATOR, Deployment

if TYPE_CHECKING:
    from pathlib import Path

_DEPLOYMENT = Deployment(
    chain_id=31337,
    block=7,
    service_manager=Address(b"\x01" * 20),
    registry_coordinator=Address(b"\x02" * 20),
    operator_state_retriever=Address(b"\x03" * 20),
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    options = Options(
        endpoints=("http://localhost:1", "http://localhost:2"),
        overrides={"aggregation": {"window": "1s"}, "submission": {"max_in_flight": 1}},
    )
    return write(tmp_path / "devnet", _DEPLOYMENT, options)


def test_the_configuration_is_one_the_aggregator_takes(files: Files) -> None:
    settings = Settings.model_validate(yaml.safe_load(files.config.read_text()))
    assert settings.network.contracts.service_manager == _DEPLOYMENT.service_manager
    assert [endpoint.url for endpoint in settings.chain.endpoints] == [
        "http://localhost:1",
        "http://localhost:2",
    ]
    assert settings.chain.deployment_block == 7


def test_overrides_win_and_leave_the_rest_of_their_section(files: Files) -> None:
    settings = Settings.model_validate(yaml.safe_load(files.config.read_text()))
    assert settings.aggregation.window == 1.0
    assert (settings.submission.max_in_flight, settings.submission.resubmit_after) == (1, 5.0)


def test_the_keystore_opens_with_its_password(files: Files) -> None:
    keystore = json.loads(files.keystore.read_text())
    key = Account.decrypt(keystore, files.password.read_text().strip())
    assert bytes.fromhex(Account.from_key(key).address[2:]) == AGGREGATOR
    assert files.keystore.stat().st_mode & 0o077 == 0


def test_the_deployment_reads_like_aligneds_own(files: Files) -> None:
    document = json.loads(files.aligned_deployment.read_text())
    assert document["addresses"]["alignedLayerServiceManager"] == "0x" + "01" * 20
    assert document["addresses"]["registryCoordinator"] == "0x" + "02" * 20
    assert document["addresses"]["operatorStateRetriever"] == "0x" + "03" * 20
    assert document["chainInfo"]["deploymentBlock"] == 7
    assert document["permissions"]["alignedLayerAggregator"] == "0x" + AGGREGATOR.hex()
