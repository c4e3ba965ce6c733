"""The menu, in order. An entry is shown only when its route exists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MenuEntry:
    """A menu entry. `icon` is a symbol in `static/icons.svg`. `also` lists the path prefixes of the entry's other pages."""

    path: str
    title: str
    icon: str
    also: tuple[str, ...] = ()

    def leads_to(self, page: str) -> bool:
        """Whether the page at this path is the entry's own page or one below it."""
        return page.startswith((self.path, *self.also))


MENU = (
    MenuEntry("/review", "Review", "review", also=("/guest-links",)),
    MenuEntry("/pipeline", "Pipeline", "pipeline", also=("/videos/", "/bulk")),
    MenuEntry("/dead-letters", "Dead letters", "letters"),
    MenuEntry("/calendar", "Calendar", "calendar"),
    MenuEntry("/accounts", "Accounts", "person"),
    MenuEntry("/providers", "Providers", "providers"),
    MenuEntry("/performance", "Performance", "performance"),
    MenuEntry("/add", "Add", "add"),
    MenuEntry("/webhooks", "Webhooks", "send"),
    MenuEntry("/audit", "Audit", "audit"),
)
