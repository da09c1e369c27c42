"""What was measured, as tables and pictures. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Figures = dict[str, float]
"""Name with unit -> value: what one run measured."""

MANY = 20
"""Runs from which on a 95th percentile says something."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of ``values`` that ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(title: str, runs: Sequence[Figures], failures: int = 0) -> str:
    """Return one line for each figure: median, lowest and highest, p95 of many runs."""
    failed = f", {failures} failed" if failures else ""
    lines = [f"\n**{title}** ({len(runs)} runs{failed})\n"]
    if not runs:
        return lines[0]
    many = len(runs) >= MANY
    lines.append("| figure | median | lowest | highest |" + (" p95 |" if many else ""))
    lines.append("|---|---:|---:|---:|" + ("---:|" if many else ""))
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        shown = [statistics.median(values), min(values), max(values)]
        if many:
            shown.append(percentile(values, 95))
        lines.append(f"| {name} | " + " | ".join(_number(value) for value in shown) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"  # noqa: PLR2004  # digits


# ---- histograms


@dataclass(frozen=True, slots=True)
class Series:
    """What a histogram shows."""

    title: str
    unit: str
    values: Sequence[float]
    reach: float | None = None
    """The promise, in the same unit."""


WIDTH, LEFT, RIGHT = 900, 60, 30
_HEIGHT, _PLOT, _TOP = 190, 100, 50
_BINS = 45
_STEPS = (1, 2, 2.5, 5, 10)
_FONT = 'font-family="Helvetica, Arial, sans-serif" font-size="12"'
_STYLE = """  <style>
    .bar{fill:#1d4ed8}.axis{stroke:#334155;stroke-width:1}
    .reach{stroke:#b91c1c;stroke-width:1.4;stroke-dasharray:5 4}
    .title{font-weight:bold;font-size:14px;fill:#0f172a}.note{fill:#475569}.late{fill:#b91c1c}
  </style>"""


def histograms(series: Sequence[Series]) -> str:
    """Return an SVG with a histogram for each of ``series``, one below the other."""
    height = _HEIGHT * len(series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {_FONT}>',
        _STYLE,
        f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, one in enumerate(series):
        parts += _histogram(one, _HEIGHT * place)
    return "\n".join([*parts, "</svg>", ""])


def _histogram(series: Series, top: int) -> list[str]:
    floor = top + _TOP + _PLOT
    longest = max([*series.values, series.reach or 0.0]) * 1.02
    step = tick(longest)
    end = step * math.ceil(longest / step)

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / end

    lines = [
        _text(LEFT, top + 22, series.title, "title", "start"),
        _text(WIDTH - RIGHT, top + 40, _summary(series), "note", "end"),
    ]
    counts = bins(series.values, end)
    wide = (WIDTH - LEFT - RIGHT) / _BINS - 1
    for place, count in enumerate(counts):
        x, tall = across(end * place / _BINS), _PLOT * count / max(counts)
        place_and_size = (
            f'x="{x:.1f}" y="{floor - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
        )
        lines += [f'  <rect {place_and_size} class="bar"/>'] if count else []
    lines.append(_line(LEFT, floor, WIDTH - RIGHT, floor, "axis"))
    for number in range(round(end / step) + 1):
        lines.append(
            _text(across(step * number), floor + 16, f"{step * number:g}", "note", "middle")
        )
    lines.append(_text(LEFT - 8, top + _TOP + 10, f"{max(counts)}", "note", "end"))
    if series.reach is not None:
        x = across(series.reach)
        lines.append(_line(x, top + _TOP, x, floor, "reach"))
        beside = (x + 6, "start") if x < 0.8 * WIDTH else (x - 6, "end")
        lines.append(_text(beside[0], top + _TOP + 14, "p95 to reach", "note late", beside[1]))
    return lines


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'  <text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'  <line {ends} class="{kind}"/>'


def _summary(series: Series) -> str:
    values = series.values
    return (
        f"{len(values)} runs: median {statistics.median(values):,.0f}, "
        f"p95 {percentile(values, 95):,.0f}, highest {max(values):,.0f} {series.unit}"
    )


def bins(values: Sequence[float], end: float) -> list[int]:
    """Count ``values`` in equal steps from 0 to ``end``."""
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(value / end * _BINS))] += 1
    return counts


def tick(longest: float) -> float:
    """Return a round distance between the marks of an axis that shows up to ``longest``."""
    rough = longest / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * step for step in _STEPS if power * step >= rough)
