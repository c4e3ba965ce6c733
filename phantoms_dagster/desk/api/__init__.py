"""The API below /api/v1: what the pages do, as JSON. Each module adds routes; `desk/access.py` says who may use them.

It decides nothing by itself either: the same reads and the same use cases stand behind a page and its route here.
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
    providers,
    texts,
    videos,
    webhooks,
)

MODULES: tuple[ModuleType, ...] = (
    briefs,
    videos,
    decisions,
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
