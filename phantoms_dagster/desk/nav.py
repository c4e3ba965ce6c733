"""The pages in the menu, in its order. One that is not built yet is not shown: only routes that exist are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A line of the menu. `icon` is a symbol of `static/icons.svg`. `also`: how addresses of its other pages begin."""

    path: str
    title: str
    icon: str
    also: tuple[str, ...] = ()

    def leads_to(self, page: str) -> bool:
        """Whether the page is that of this entry, or one below it."""
        return page.startswith((self.path, *self.also))


MENU = (
    Entry("/review", "Review", "review", also=("/guest-links",)),
    Entry("/pipeline", "Pipeline", "pipeline", also=("/videos/", "/bulk")),
    Entry("/dead-letters", "Dead letters", "letters"),
    Entry("/calendar", "Calendar", "calendar"),
    Entry("/providers", "Providers", "providers"),
    Entry("/performance", "Performance", "performance"),
    Entry("/add", "Add", "add"),
    Entry("/webhooks", "Webhooks", "send"),
    Entry("/audit", "Audit", "audit"),
)
