"""The audit log, newest first. A URL can filter it by video or by person."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.store.audit import NEWEST

ROWS = 50


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/audit", include_in_schema=False)(audit)


def audit(visit: CurrentVisit, subject: str = "", who: str = "", before: int = NEWEST) -> Response:
    """Show a page of the log."""
    rows = visit.desk.audit.page(subject=subject.strip(), who=who.strip(), before=before, limit=ROWS + 1)
    older = rows[ROWS - 1].id if len(rows) > ROWS else None
    return page(
        visit, "audit.html", rows=rows[:ROWS], older=older, subject=subject.strip(), who=who.strip(), newest=before >= NEWEST
    )
