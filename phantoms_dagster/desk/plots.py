"""Plots as SVG: where bars, lines and labels stand. Templates draw them (`_plots.html`), so colours follow the page.

Numbers on axes are whole and round. Each plot has a sentence for people who cannot see it, and a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A piece of a column, in the units of the plot's view box. `kind` is a class of `desk.css`; `label` is shown on hover."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str


@dataclass(frozen=True)
class Mark:
    """A number or a word at an axis."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A plot in a view box of `width` x `height`. `summary` says in words what it shows."""

    width: int
    height: int
    left: int
    summary: str
    bars: tuple[Bar, ...]
    levels: tuple[Mark, ...]
    ticks: tuple[Mark, ...]


def scale(most: float) -> tuple[int, int]:
    """The top of an axis for values up to `most`, and the step between its numbers: whole, round, two to four steps."""
    if most <= 1:
        return 1, 1
    raw = most / 4
    power = 10 ** math.floor(math.log10(raw)) if raw >= 1 else 1
    step = next(int(power * n) for n in (1, 2, 5, 10) if power * n >= raw)
    return math.ceil(most / step) * step, step


def short(number: int) -> str:
    """A round number that fits beside an axis: 9,000, 20k, 1.5M."""
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
    """Columns, each a stack of `(kind, value, label)` from below. `ticks`: a word below each column; an empty one is left out."""
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
