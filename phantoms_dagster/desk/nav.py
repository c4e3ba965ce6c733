"""The pages in the menu, in its order. One that is not built yet is not shown: only routes that exist are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MenuEntry:
    """A line of the menu. `icon` is a symbol of `static/icons.svg`. `also`: how addresses of its other pages begin."""

    path: str
    title: str
    icon: str
    also: tuple[str, ...] = ()

    def leads_to(self, page: str) -> bool:
        """Whether the page is that of this entry, or one below it."""
        return page.startswith((self.path, *self.also))


MENU = (
    MenuEntry("/review", "Review", "review", also=("/guest-links",)),
    MenuEntry("/pipeline", "Pipeline", "pipeline", also=("/videos/", "/bulk")),
    MenuEntry("/dead-letters", "Dead letters", "letters"),
    MenuEntry("/calendar", "Calendar", "calendar"),
    MenuEntry("/providers", "Providers", "providers"),
    MenuEntry("/performance", "Performance", "performance"),
    MenuEntry("/add", "Add", "add"),
    MenuEntry("/webhooks", "Webhooks", "send"),
    MenuEntry("/audit", "Audit", "audit"),
)
