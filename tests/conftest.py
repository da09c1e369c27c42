"""Marks tests by their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

_MARKS = {"unit": "unit", "contracts": "contract", "integration": "integration"}
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(_HERE).parts[0]
        if folder in _MARKS:
            item.add_marker(_MARKS[folder])
