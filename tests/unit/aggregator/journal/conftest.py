from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.journal.journal import Journal
from aligned.model import Address, BlockHash, Identity


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(
        chain_id=1,
        genesis_hash=BlockHash(b"g" * 32),
        service_manager=Address(b"s" * 20),
        deployment_hash=BlockHash(b"d" * 32),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def start(path: Path, identity: Identity) -> Iterator[Callable[..., Journal]]:
    """Opens journals, by default the one at ``path``, and closes them after the test."""
    opened = []

    def open_one(at: Path = path, of: Identity = identity, **options: Any) -> Journal:
        journal = Journal.open(at, of, **options)
        opened.append(journal)
        return journal

    yield open_one
    for journal in opened:
        journal.close()
