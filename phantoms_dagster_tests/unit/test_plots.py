"""What the plots in the metadata of the performance tables say."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from phantoms_dagster.defs.plots import bar_figure, bars, line_figure, lines


def ticks(figure: Figure, which: str) -> list[str]:
    """The labels along an axis."""
    figure.canvas.draw()
    [axes] = figure.axes
    return [label.get_text() for label in (axes.get_xticklabels() if which == "x" else axes.get_yticklabels())]


def whole_numbers(labels: list[str]) -> bool:
    """Whether all are whole numbers, each there once: a quarter that is rounded repeats its neighbour."""
    return all(label.isdigit() for label in labels) and len(set(labels)) == len(labels)


def test_views_over_days_have_a_line_for_each_platform_and_days_and_whole_numbers_on_the_axes() -> None:
    """The plot was titled "by platform and day", showed no days, and quarters of a view."""
    frame = pd.DataFrame(
        [(date(2026, 11, 28), "youtube", 1), (date(2026, 12, 1), "youtube", 2), (date(2026, 11, 30), "tiktok", 1)],
        columns=["day", "platform", "views"],
    )
    figure = line_figure(frame, "New views")
    assert figure is not None
    assert ticks(figure, "x") == ["Nov 28", "Nov 29", "Nov 30", "Dec 1"]
    assert whole_numbers(ticks(figure, "y"))
    [axes] = figure.axes
    assert {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()} == {
        "Tiktok": [0, 0, 1, 0],
        "Youtube": [1, 0, 0, 2],
    }


def test_the_best_hooks_are_on_top_and_counted_in_whole_views() -> None:
    frame = pd.DataFrame({"hook": ["Did you know?", "Wait for it", "x" * 90], "views": [1, 3, 2]})
    figure = bar_figure(frame, "hook", "Best hooks")
    assert figure is not None
    names = ticks(figure, "y")
    assert (names[0], names[-1]) == ("Did you know?", "Wait for it")
    assert names[1].endswith("\u2026")
    assert whole_numbers(ticks(figure, "x"))


def test_a_long_hook_is_named_by_a_whole_phrase() -> None:
    frame = pd.DataFrame({"hook": ["Why octopuses have three hearts. They come at a price.", "word " * 20], "views": [3, 2]})
    figure = bar_figure(frame, "hook", "Best hooks")
    assert figure is not None
    assert ticks(figure, "y") == ["word " * 7 + "word\u2026", "Why octopuses have three hearts."]


def test_nothing_is_drawn_of_nothing() -> None:
    nothing = pd.DataFrame({"hook": ["a"], "views": [0]})
    assert bars(nothing, "hook", "Best hooks") == {}
    assert lines(pd.DataFrame(columns=["day", "platform", "views"]), "New views") == {}
