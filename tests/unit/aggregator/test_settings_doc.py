from __future__ import annotations

from pathlib import Path

import pytest

from aggregator import configure, settings_doc
from aggregator.settings import Settings

ROOT = Path(__file__).parents[3]


def test_the_page_says_what_the_settings_are() -> None:
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == settings_doc.page(), (
        "run: python -m aggregator.settings_doc > docs/configuration.md"
    )


def test_every_key_is_on_the_page_with_its_variable() -> None:
    page = settings_doc.page()
    sections = set(Settings.model_fields) - {"rendered_by", "signer"}
    for name, path in configure.environment_names().items():
        if len(path) > 1 and path != ("network", "contracts"):
            assert f"`{name}`" in page
        elif path[0] in sections:
            assert f"## `{'.'.join(map(str, path))}`" in page


def test_no_key_is_without_a_meaning() -> None:
    rows = [line for line in settings_doc.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_example_is_right(tmp_path: Path) -> None:
    text = (ROOT / "examples/aggregator-config.yaml").read_text()
    environment = {"ALIGNED_SUBMISSION__MODE": "observe", "ALIGNED_SIGNER": "null"}
    settings = configure.read(text, environment, folder=tmp_path, name="example")
    assert settings.network.chain_id == 31337


@pytest.mark.parametrize("text", ["`bump_percent`", "whole number, 13 to 100", "`13`"])
def test_a_row_has_the_default_and_the_bounds(text: str) -> None:
    (row,) = [line for line in settings_doc.page().splitlines() if "| `bump_percent`" in line]
    assert text in row
