"""Writes what is rendered now as what shall be."""

from __future__ import annotations

from tests.unit.controller.golden.cases import CASES

for case in CASES:
    case.path.parent.mkdir(exist_ok=True)
    case.path.write_text(case.text())
