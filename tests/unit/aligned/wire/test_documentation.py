from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "protocol.md"
CAPTURES = dict(re.findall(r"```gob (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.mark.parametrize("name", ["first_request", "first_reply", "error_reply_seq_2_boom"])
def test_the_annotated_captures_are_the_captured_bytes(
    vectors: dict[str, bytes], name: str
) -> None:
    columns = [line.split(maxsplit=1)[0] for line in CAPTURES[name].splitlines()]
    assert bytes.fromhex("".join(columns)) == vectors[name]
