"""Whoever reads a reason in the status finds it in the page about it, and no other one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from controller.conditions import PARKED
from controller.rollout import BROKEN_SECONDS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "kubernetes.md"
POSITIONS = {"Verdict": 1, "Note": 0}
"""Where a reason stands among the arguments."""


def said() -> Iterator[str]:
    """Reasons that the controller's code says."""
    for file in sorted((ROOT / "controller").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            position = POSITIONS.get(node.func.id)
            if position is not None and position < len(node.args):
                yield from literals(node.args[position])
    yield from BROKEN_SECONDS
    yield from (reason.title().replace("_", "") for reason in PARKED)


def literals(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def documented() -> Iterator[str]:
    """Reasons in the first column of tables that have one."""
    for line in PAGE.read_text().splitlines():
        first = line.removeprefix("|").partition("|")[0]
        yield from re.findall(r"`([A-Z][A-Za-z]+)`", first) if line.count("|") == 5 else ()


def test_every_reason_has_its_line() -> None:
    assert set(said()) - set(documented()) == set()


def test_every_line_is_of_a_reason_that_is_said() -> None:
    assert set(documented()) - set(said()) == set()
    assert len(list(documented())) == len(set(documented()))
