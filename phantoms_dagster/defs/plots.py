"""The plots in the metadata of the performance tables. `store.performance.tables` reads the data."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from phantoms_dagster.defs.metadata import image
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.phrases import shortened

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 12
CHARACTERS = 44
# The platforms' own colours, where they are distinguishable on white.
_COLOURS = {str(platform): platform.spec.look.chart for platform in Platform}


def bars(frame: pd.DataFrame, label: str, title: str) -> dict[str, Any]:
    """Plot the rows with the most views as bars, best on top. Returns no entry when there are no views."""
    return _shown(bar_figure(frame, label, title), title)


def lines(frame: pd.DataFrame, title: str) -> dict[str, Any]:
    """Plot views by day, one line per platform. `frame` has the columns day, platform and views.

    Returns no entry when there are no views.
    """
    return _shown(line_figure(frame, title), title)


def bar_figure(frame: pd.DataFrame, label: str, title: str) -> Figure | None:
    """See `bars`."""
    top = frame.sort_values("views").tail(BARS)
    if top.empty or not top["views"].max():
        return None
    figure, axes = _figure(0.45 * len(top) + 1.2, title)
    names = [shortened(name, CHARACTERS, "") for name in top[label].astype(str)]
    drawn = axes.barh(range(len(top)), top["views"], color="#4f46e5")
    axes.set_yticks(range(len(top)), names)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.set_xlabel("views")
    axes.margins(x=0.12)
    _whole_numbers(axes, "x")
    return figure


def line_figure(frame: pd.DataFrame, title: str) -> Figure | None:
    """See `lines`."""
    if frame.empty or not frame["views"].max():
        return None
    import pandas as pd  # noqa: PLC0415  slow to import, and only these assets draw

    table = frame.pivot_table(index="day", columns="platform", values="views", aggfunc="sum")
    days = pd.date_range(min(table.index), max(table.index), freq="D").date
    table = table.reindex(days).fillna(0)
    figure, axes = _figure(3.6, title)
    names = [f"{day:%b} {day.day}" for day in days]
    for platform in table.columns:
        axes.plot(range(len(days)), table[platform], marker="o", label=str(platform).title(), color=_COLOURS.get(str(platform)))
    every = max(1, len(days) // 10)
    axes.set_xticks(range(0, len(days), every), names[::every])
    axes.set_ylabel("new views")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _whole_numbers(axes, "y")
    return figure


def _figure(height: float, title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import, and only these assets draw

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _whole_numbers(axes: Axes, which: str) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter  # noqa: PLC0415  as above

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _shown(figure: Figure | None, title: str) -> dict[str, Any]:
    if figure is None:
        return {}
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return {"plot": image(out.getvalue(), "png", title)}
