"""Files a person or the aggregator starts from: deployments, keystore, configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from eth_account import Account

from devnet.network import AGGREGATOR, AGGREGATOR_KEY, OWNER, hexed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from devnet.network import Deployment

SCRYPT_REAL = 262_144
"""What wallets use; opening such a keystore takes 256 MB and a second."""

SCRYPT_CHEAP = 4_096

_PASSWORD = "devnet"  # noqa: S105 - it protects a key that everybody knows


@dataclass(frozen=True, slots=True)
class Files:
    """Where things are."""

    aligned_deployment: Path
    """As Aligned's ``alignedlayer_deployment_output.json``."""
    eigenlayer_deployment: Path
    """As Aligned's ``eigenlayer_deployment_output.json``; nothing needs what it names."""
    keystore: Path
    password: Path
    config: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What differs from one aggregator to the next."""

    endpoints: Sequence[str]
    """HTTP URLs, in order of preference."""
    listen: str = "127.0.0.1:8090"
    telemetry: str = "127.0.0.1:9091"
    scrypt: int = SCRYPT_CHEAP
    """The keystore's n."""
    overrides: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Section -> key -> value, over what the configuration would have."""


def write(folder: Path, deployment: Deployment, options: Options) -> Files:
    """Write the files of one aggregator into ``folder``, which is made; repeats overwrite."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(
        aligned_deployment=folder / "alignedlayer_deployment_output.json",
        eigenlayer_deployment=folder / "eigenlayer_deployment_output.json",
        keystore=folder / "aggregator.ecdsa.json",
        password=folder / "aggregator.password",
        config=folder / "aggregator.yaml",
    )
    _write_json(files.aligned_deployment, aligned_deployment(deployment))
    _write_json(files.eigenlayer_deployment, _eigenlayer_deployment(deployment))
    keystore = Account.encrypt(AGGREGATOR_KEY, _PASSWORD, kdf="scrypt", iterations=options.scrypt)
    _write_json(files.keystore, keystore)
    files.password.write_text(_PASSWORD + "\n")
    for secret in (files.keystore, files.password):
        secret.chmod(0o600)
    files.config.write_text(
        yaml.safe_dump(config(files, deployment, options), sort_keys=False, allow_unicode=True)
    )
    return files


def config(files: Files, deployment: Deployment, options: Options) -> dict[str, Any]:
    """Return the aggregator's configuration as the YAML file has it."""
    sections: dict[str, Any] = {
        "network": {
            "chain_id": deployment.chain_id,
            "contracts": {
                "service_manager": hexed(deployment.service_manager),
                "registry_coordinator": hexed(deployment.registry_coordinator),
                "operator_state_retriever": hexed(deployment.operator_state_retriever),
            },
        },
        "chain": {
            "endpoints": [
                {"name": f"devnet-{index}", "url": url}
                for index, url in enumerate(options.endpoints)
            ],
            "deployment_block": deployment.block,
            "poll_interval": "250ms",
        },
        "signer": {
            "type": "keystore",
            "file": str(files.keystore),
            "password_file": str(files.password),
        },
        "aggregation": {"window": "2s"},
        "submission": {"resubmit_after": "5s"},
        "listen": {"address": options.listen},
        "journal": {"path": str(files.config.with_suffix(".db"))},
        "telemetry": {"address": options.telemetry, "log_format": "text"},
    }
    for section, values in options.overrides.items():
        sections[section] = {**sections.get(section, {}), **values}
    return sections


def aligned_deployment(deployment: Deployment) -> dict[str, Any]:
    """Return what Aligned's deployment script would have written."""
    registry = hexed(deployment.registry_coordinator)
    return {
        "addresses": {
            "alignedLayerServiceManager": hexed(deployment.service_manager),
            "blsApkRegistry": registry,
            "indexRegistry": registry,
            "operatorStateRetriever": hexed(deployment.operator_state_retriever),
            "registryCoordinator": registry,
            "stakeRegistry": registry,
        },
        "chainInfo": {"chainId": deployment.chain_id, "deploymentBlock": deployment.block},
        "permissions": {
            "alignedLayerAggregator": hexed(AGGREGATOR),
            "alignedLayerOwner": hexed(OWNER),
        },
    }


def _eigenlayer_deployment(deployment: Deployment) -> dict[str, Any]:
    registry = hexed(deployment.registry_coordinator)
    names = ("avsDirectory", "delegationManager", "slasher", "strategyManager")
    return {
        "addresses": dict.fromkeys(names, registry),
        "chainInfo": {"chainId": deployment.chain_id, "deploymentBlock": deployment.block},
    }


def _write_json(file: Path, document: object) -> None:
    file.write_text(json.dumps(document, indent=2) + "\n")
