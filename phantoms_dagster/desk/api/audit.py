"""Who did what, and who asks."""

from __future__ import annotations

from datetime import datetime

from fastapi import FastAPI

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import MOST_NUMBER, ApiModel, Cursor, Limit, MaskedRow, TextInQuery
from phantoms_dagster.desk.visits import Seen

TAG = "audit"


class AuditEntryResource(ApiModel):
    """An action. `via`: cli, desk, guest, api, dagster or demo."""

    id: int
    at: datetime
    who: str
    via: str
    address: str
    action: str
    subject: str
    before: MaskedRow | None
    after: MaskedRow | None


class Deeds(ApiModel):
    """A page of the log, the newest first."""

    deeds: list[AuditEntryResource]
    next_cursor: int | None


class Me(ApiModel):
    """The person or program that a token or a session names."""

    name: str
    role: str


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/audit", list_audit, tag=TAG)
    add(app, "GET", "/me", show_me, tag=TAG)


def list_audit(visit: Seen, subject: TextInQuery = "", who: TextInQuery = "", cursor: Cursor = None, limit: Limit = 50) -> Deeds:
    """Who did what, the newest first; of one subject or one person, or of all."""
    rows = visit.desk.audit.page(subject=subject, who=who, before=cursor or MOST_NUMBER, limit=limit + 1)
    return Deeds(
        deeds=[AuditEntryResource.model_validate(row) for row in rows[:limit]],
        next_cursor=rows[limit - 1].id if len(rows) > limit else None,
    )


def show_me(visit: Seen) -> Me:
    """The name and the role that the request was made with."""
    return Me(name=visit.name, role=visit.role.name.lower())
