"""A checkout of aligned_layer, as far as its aggregator's configuration goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.fakes.configuration import KEYSTORE

if TYPE_CHECKING:
    from pathlib import Path

V10 = """\
# Common variables for all the services
# 'production' only prints info and above. 'development' also prints debug
environment: "production"
aligned_layer_deployment_config_file_path: "./contracts/script/output/devnet/alignedlayer_deployment_output.json"
eigen_layer_deployment_config_file_path: "./contracts/script/output/devnet/eigenlayer_deployment_output.json"
eth_rpc_url: "http://localhost:8545"
eth_rpc_url_fallback: "http://localhost:8545"
eth_ws_url: "ws://localhost:8545"
eth_ws_url_fallback: "ws://localhost:8545"
eigen_metrics_ip_port_address: "localhost:9090"

## ECDSA Configurations
ecdsa:
  private_key_store_path: "config-files/anvil.aggregator.ecdsa.key.json"
  private_key_store_password: ""

## BLS Configurations
bls:
  private_key_store_path: "config-files/anvil.aggregator.bls.key.json"
  private_key_store_password: ""

## Aggregator Configurations
aggregator:
  server_ip_port_address: localhost:8090
  bls_public_key_compendium_address: 0x322813Fd9A801c5507c9de605d63CEA4f2CE6c44
  avs_service_manager_address: 0xc3e53F4d16Ae77Db1c982e75a937B9f60FE63690
  enable_metrics: true
  metrics_ip_port_address: localhost:9091
  telemetry_ip_port_address: localhost:4001
  garbage_collector_period: 2m
  garbage_collector_tasks_age: 20
  garbage_collector_tasks_interval: 10
"""  # noqa: E501 - lines as upstream has them
"""The devnet file of v0.10.1: keys and values as upstream has them."""

LATE = (
    V10.replace('eth_rpc_url: "http://localhost:8545"', 'eth_rpc_url: "https://one.example/v2/K1"')
    .replace('_fallback: "http://localhost:8545"', '_fallback: "https://two.example/K2"')
    .replace('password: ""', 'password: "0123"', 1)
    .replace("localhost:8090", '"0.0.0.0:8090"')
    + """\
  bls_service_task_timeout: 168h
  gas_base_bump_percentage: 25
  gas_bump_incremental_percentage: 20
  gas_bump_percentage_limit: 150
  time_to_wait_before_bump: 72s
  poll_latest_batch_interval: 20s
"""
)
"""A production file of a later release."""

DEVNET = {
    "addresses": {
        "alignedLayerServiceManager": "0x1613beB3B2C4f22Ee086B2b38C1476A3cE7f78E8",
        "registryCoordinator": "0x851356ae760d987E095750cCeb3bC6014560891C",
        "operatorStateRetriever": "0xb7278A61aa25c888815aFC32Ad3cC52fF24fE575",
        "stakeRegistry": "0xc3e53F4d16Ae77Db1c982e75a937B9f60FE63690",
    },
    "chainInfo": {"chainId": 31337, "deploymentBlock": 3},
    "permissions": {"alignedLayerAggregator": "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"},
}

DEPLOYMENT = "contracts/script/output/devnet/alignedlayer_deployment_output.json"


def checkout(folder: Path, config: str = V10, deployment: object = DEVNET) -> Path:
    """Write the files into ``folder`` and return the path of the YAML file."""
    keystore = folder / "config-files/anvil.aggregator.ecdsa.key.json"
    keystore.parent.mkdir(parents=True)
    keystore.write_text(json.dumps(KEYSTORE))
    (folder / DEPLOYMENT).parent.mkdir(parents=True)
    (folder / DEPLOYMENT).write_text(json.dumps(deployment))
    path = folder / "config-files/config-aggregator.yaml"
    path.write_text(config)
    return path
