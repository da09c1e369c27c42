"""The compiled contracts: what a deployment sends, and calls by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.abi import collapse_if_tuple

FILE = Path(__file__).with_name("artifacts.json")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract."""

    abi: list[dict[str, Any]]
    selectors: dict[str, bytes]
    """Canonical signature -> 4 bytes."""
    bytecode: bytes
    """What a deployment sends, before the constructor's arguments."""

    def call(self, name: str, *arguments: object) -> bytes:
        """Return the call data of function ``name`` with ``arguments``."""
        function = self._function(name)
        types = [collapse_if_tuple(parameter) for parameter in function["inputs"]]
        selector = self.selectors[f"{name}({','.join(types)})"]
        return selector + encode(types, arguments)

    def result(self, name: str, answer: bytes) -> tuple[Any, ...]:
        """Return what function ``name`` answered, decoded."""
        types = [collapse_if_tuple(parameter) for parameter in self._function(name)["outputs"]]
        return decode(types, answer)

    def deployment(self, *arguments: object) -> bytes:
        """Return the data of a transaction that deploys the contract."""
        types = [
            collapse_if_tuple(parameter)
            for item in self.abi
            if item["type"] == "constructor"
            for parameter in item["inputs"]
        ]
        return self.bytecode + encode(types, arguments)

    def _function(self, name: str) -> dict[str, Any]:
        (function,) = (
            item for item in self.abi if item["type"] == "function" and item["name"] == name
        )
        return function


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The three contracts and the compiler they came from."""

    solc: str
    registry: Artifact
    retriever: Artifact
    service_manager: Artifact


@lru_cache(maxsize=1)
def load() -> Artifacts:
    """Read the compiled contracts."""
    document = json.loads(FILE.read_text())
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
