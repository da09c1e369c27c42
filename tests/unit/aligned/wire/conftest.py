from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vectors() -> dict[str, bytes]:
    raw = json.loads(Path(__file__).with_name("vectors.json").read_text())
    return {name: bytes.fromhex(text) for name, text in raw.items() if name != "provenance"}
