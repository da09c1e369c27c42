"""The compiled contracts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("artifacts.json")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract."""

    abi: list[dict[str, Any]]
    selectors: dict[str, bytes]
    """Canonical signature -> 4 bytes."""
    bytecode: bytes
    """What a deployment sends, before the constructor's arguments."""

    def call(self, signature: str, arguments: bytes = b"") -> bytes:
        """Return call data of the function with this canonical ``signature``.

        Args:
            signature: As in the ABI, e.g. ``setStake(address,uint96)``.
            arguments: ABI-encoded.
        """
        return self.selectors[signature] + arguments


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The three contracts and the compiler they came from."""

    solc: str
    registry: Artifact
    retriever: Artifact
    service_manager: Artifact


def load(file: Path = FILE) -> Artifacts:
    """Read the compiled contracts."""
    document = json.loads(file.read_text())
    contracts = {
        name: Artifact(
            abi=contract["abi"],
            selectors={
                signature: bytes.fromhex(selector)
                for signature, selector in contract["selectors"].items()
            },
            bytecode=bytes.fromhex(contract["bytecode"].removeprefix("0x")),
        )
        for name, contract in document["contracts"].items()
    }
    return Artifacts(
        solc=document["solc"],
        registry=contracts["DevRegistry"],
        retriever=contracts["DevOperatorStateRetriever"],
        service_manager=contracts["DevServiceManager"],
    )
