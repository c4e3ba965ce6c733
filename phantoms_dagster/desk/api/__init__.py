"""The JSON API at /api/v1. It does what the pages do. Each module adds routes; `desk/access.py` sets their roles.

Like the pages it holds no business logic: a page and its API route call the same reads and use cases.
"""

from __future__ import annotations

from types import ModuleType

from phantoms_dagster.desk.api import (
    audit,
    briefs,
    bulk,
    calendar,
    dead_letters,
    decisions,
    document,
    guests,
    issues,
    performance,
    posts,
    providers,
    texts,
    videos,
    webhooks,
)

MODULES: tuple[ModuleType, ...] = (
    briefs,
    videos,
    decisions,
    posts,
    guests,
    texts,
    dead_letters,
    issues,
    bulk,
    providers,
    calendar,
    performance,
    webhooks,
    audit,
    document,
)
