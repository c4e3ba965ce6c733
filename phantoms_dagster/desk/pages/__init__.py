"""The pages, one module and one template each. A module's `register` adds its routes; `desk/access.py` says who may use them."""

from __future__ import annotations

from types import ModuleType

from phantoms_dagster.desk.pages import audit, calendar, front, live, login, media, providers, review

PAGES: tuple[ModuleType, ...] = (front, login, media, live, review, calendar, providers, audit)
