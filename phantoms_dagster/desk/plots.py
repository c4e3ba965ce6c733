"""The geometry of plots: positions of bars, lines and labels. `_plots.html` draws them as SVG, so colours follow the theme.

Axis labels are round integers. Each plot has a summary sentence for screen readers; pages add a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A segment of a column, in view box units. `kind` is the suffix of a `bar-` class in `desk.css`; `label` is shown on hover."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str


@dataclass(frozen=True)
class Mark:
    """An axis label."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A plot in a view box of `width` x `height`. `left` is the width of the axis labels; `summary` describes it in words."""

    width: int
    height: int
    left: int
    summary: str
    bars: tuple[Bar, ...]
    levels: tuple[Mark, ...]
    ticks: tuple[Mark, ...]


def scale(most: float) -> tuple[int, int]:
    """Return the top of an axis for values up to `most`, and the step between its labels: round integers, at most four steps."""
    if most <= 1:
        return 1, 1
    raw = most / 4
    power = 10 ** math.floor(math.log10(raw)) if raw >= 1 else 1
    step = next(int(power * n) for n in (1, 2, 5, 10) if power * n >= raw)
    return math.ceil(most / step) * step, step


def short(number: int) -> str:
    """Format a number for an axis label: 9,000, 20k, 1.5M."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= max(size, 10_000):
            return f"{number / size:g}{unit}"
    return f"{number:,}"


def columns(
    values: Sequence[Sequence[tuple[str, float, str]]],
    ticks: Sequence[str],
    summary: str,
    *,
    width: int = 320,
    height: int = 84,
    left: int = 30,
) -> Plot:
    """Return a column plot. Each column is a stack of `(kind, value, label)`, bottom first.

    `ticks` holds one label per column; empty labels are skipped.
    """
    below, above = 16, 6
    top, step = scale(max((sum(v for _, v, _ in column) for column in values), default=0))
    inner, each = height - below - above, (width - left) / max(1, len(values))
    bars: list[Bar] = []
    for number, column in enumerate(values):
        floor = float(height - below)
        for kind, value, label in column:
            if value <= 0:
                continue
            tall = max(1.0, inner * value / top)
            floor -= tall
            bars.append(
                Bar(
                    round(left + number * each + each * 0.12, 1),
                    round(floor, 1),
                    round(each * 0.76, 1),
                    round(tall, 1),
                    kind,
                    label,
                )
            )
    levels = tuple(Mark(left - 5, round(height - below - inner * n / top, 1), short(n)) for n in range(0, top + 1, step))
    marks = tuple(Mark(round(left + (n + 0.5) * each, 1), height - 3, word) for n, word in enumerate(ticks) if word)
    return Plot(width, height, left, summary, tuple(bars), levels, marks)
