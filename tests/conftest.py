"""Marks tests by their folder; fixtures for several of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

_MARKS = {
    "unit": "unit",
    "contracts": "contract",
    "integration": "integration",
    "nemesis": "integration",
    "cluster": "cluster",
}
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(_HERE).parts[0]
        if folder in _MARKS:
            item.add_marker(_MARKS[folder])


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command line under test set up for its process: handlers and levels."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in tuple(root.manager.loggerDict)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in tuple(root.manager.loggerDict):
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    logging.captureWarnings(capture=False)


@pytest.fixture
def patient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shared store take its time: for tests of what it says, not of how soon."""
    for name, longer in (
        ("connection.CONNECT_SECONDS", 30.0),
        ("connection.HANDSHAKE_SECONDS", 30.0),
        ("primary.HANDSHAKE_SECONDS", 30.0),
        ("primary.CALL_SECONDS", 30.0),
        ("calls.WAIT_MILLISECONDS", 20_000),
        ("discovery.ASK_SECONDS", 30.0),
    ):
        monkeypatch.setattr(f"aggregator.store.{name}", longer)
