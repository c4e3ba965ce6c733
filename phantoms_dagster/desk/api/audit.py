"""The audit log, and the identity of the caller."""

from __future__ import annotations

from datetime import datetime

from fastapi import FastAPI

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import MOST_NUMBER, ApiModel, Cursor, Limit, MaskedRow, TextInQuery
from phantoms_dagster.desk.visits import CurrentVisit

TAG = "audit"


class AuditEntryResource(ApiModel):
    """A logged action. `via` is cli, desk, guest, api, dagster or demo."""

    id: int
    at: datetime
    who: str
    via: str
    address: str
    action: str
    subject: str
    before: MaskedRow | None
    after: MaskedRow | None


class AuditLogPage(ApiModel):
    """A page of the audit log, newest first."""

    deeds: list[AuditEntryResource]
    next_cursor: int | None


class Me(ApiModel):
    """The user or program behind a session or token."""

    name: str
    role: str


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/audit", list_audit, tag=TAG)
    add(app, "GET", "/me", show_me, tag=TAG)


def list_audit(
    visit: CurrentVisit, subject: TextInQuery = "", who: TextInQuery = "", cursor: Cursor = None, limit: Limit = 50
) -> AuditLogPage:
    """List the audit log, newest first; optionally of one subject or one person."""
    rows = visit.desk.audit.page(subject=subject, who=who, before=cursor or MOST_NUMBER, limit=limit + 1)
    return AuditLogPage(
        deeds=[AuditEntryResource.model_validate(row) for row in rows[:limit]],
        next_cursor=rows[limit - 1].id if len(rows) > limit else None,
    )


def show_me(visit: CurrentVisit) -> Me:
    """Return the name and role of the caller."""
    return Me(name=visit.name, role=visit.role.name.lower())
