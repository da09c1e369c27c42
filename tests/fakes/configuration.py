"""A configuration file that is right, and ways to make it wrong."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

KEYSTORE = {
    "address": "15d34aaf54267db7d7c367839aaf71a00a2c6a65",
    "crypto": {
        "cipher": "aes-128-ctr",
        "ciphertext": "00" * 32,
        "cipherparams": {"iv": "00" * 16},
        "kdf": "scrypt",
        "kdfparams": {"dklen": 32, "n": 262144, "p": 1, "r": 8, "salt": "00" * 32},
        "mac": "00" * 32,
    },
    "id": "5d3e4f1e-0000-4000-8000-000000000000",
    "version": 3,
}
"""Of the right shape; opens with no password."""

RIGHT: dict[str, Any] = {
    "network": {
        "chain_id": 31337,
        "contracts": {
            "service_manager": "0x1613beB3B2C4f22Ee086B2b38C1476A3cE7f78E8",
            "registry_coordinator": "0x851356ae760d987E095750cCeb3bC6014560891C",
            "operator_state_retriever": "0xb7278A61aa25c888815aFC32Ad3cC52fF24fE575",
        },
    },
    "chain": {"endpoints": [{"name": "local", "url": "http://localhost:8545"}]},
    "signer": {"type": "keystore", "file": "key.json"},
}


def right(**changes: object) -> dict[str, Any]:
    """Return the settings with changes by path: ``chain__poll_interval="1s"``; None deletes."""
    settings = copy.deepcopy(RIGHT)
    for name, value in changes.items():
        *sections, key = name.split("__")
        target = settings
        for section in sections:
            target = target.setdefault(section, {})
        if value is None:
            del target[key]
        else:
            target[key] = value
    return settings


def write(folder: Path, settings: object) -> Path:
    """Write ``settings`` (text or values) and a keystore beside it; return the file's path."""
    (folder / "key.json").write_text(json.dumps(KEYSTORE))
    path = folder / "aggregator.yaml"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return path
