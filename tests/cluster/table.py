"""What clients noticed, story by story, as a table for people: gaps are recorded, not asserted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.traffic import Gaps

_HEAD = (
    "what happened",
    "batches",
    "longest without an acknowledgement",
    "longest wait of a signature",
    "longest wait of a batch",
    "change of leader, as recorded",
)


@dataclass(frozen=True, slots=True)
class Row:
    story: str
    gaps: Gaps
    failovers: Sequence[Mapping[str, Any]]

    def cells(self) -> tuple[str, ...]:
        gaps = self.gaps
        times = (gaps.acknowledgement, gaps.signature, gaps.batch)
        return (
            self.story,
            str(gaps.batches),
            *(f"{seconds:.1f} s" for seconds in times),
            "; ".join(_told(each) for each in reversed(self.failovers)) or "none",
        )


class Table:
    """All rows of a run; written anew with each of them."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if self._file is not None:
            self._file.write_text(self.text())

    def text(self) -> str:
        """As Markdown."""
        lines = [_HEAD, ("---",) * len(_HEAD), *(row.cells() for row in self._rows)]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _told(failover: Mapping[str, Any]) -> str:
    if failover["planned"]:
        return f"planned, {failover['electMs'] + failover['resumeMs']} ms"
    parts = (failover["detectMs"], failover["electMs"], failover["resumeMs"])
    return f"detect {parts[0]} + elect {parts[1]} + resume {parts[2]} ms"
