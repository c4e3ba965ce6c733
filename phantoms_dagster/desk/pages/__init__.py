"""The pages, one module each. A module's `register` adds its routes; `desk/access.py` sets their roles."""

from __future__ import annotations

from types import ModuleType

from phantoms_dagster.desk.pages import (
    accounts,
    add,
    audit,
    bulk,
    calendar,
    calendar_feeds,
    calendar_moves,
    editing,
    front,
    guest,
    guest_links,
    letters,
    live,
    login,
    media,
    oidc,
    performance,
    pipeline,
    providers,
    review,
    videos,
    webhooks,
)

PAGES: tuple[ModuleType, ...] = (
    front,
    login,
    oidc,
    media,
    live,
    review,
    editing,
    guest,
    guest_links,
    pipeline,
    videos,
    bulk,
    letters,
    calendar,
    calendar_feeds,  # before `calendar_moves`, whose addresses include its own
    calendar_moves,
    accounts,
    providers,
    performance,
    add,
    webhooks,
    audit,
)
