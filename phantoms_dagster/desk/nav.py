"""The pages in the menu, in its order. One that is not built yet is not shown: only routes that exist are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A line of the menu. `icon` is a symbol of `templates/icons.svg`."""

    path: str
    title: str
    icon: str


MENU = (
    Entry("/review", "Review", "review"),
    Entry("/pipeline", "Pipeline", "pipeline"),
    Entry("/dead-letters", "Dead letters", "letters"),
    Entry("/calendar", "Calendar", "calendar"),
    Entry("/providers", "Providers", "providers"),
    Entry("/performance", "Performance", "performance"),
    Entry("/add", "Add", "add"),
    Entry("/audit", "Audit", "audit"),
)
