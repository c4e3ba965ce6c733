"""The audit log: one row for each decision and each operator's action, written in the transaction of the change itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.store.engine import reading

_NOTE = text(
    """
    INSERT INTO phantoms.audit_log (who, via, address, action, subject, before, after)
    SELECT g.who, g.via, g.address, g.action, g.subject, g.before, g.after
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS g(n int, who text, via text, address text, action text, subject text, before jsonb, after jsonb)
    ORDER BY g.n
    """
)

# One statement for each filter, so that each reads its own index backwards.
_SHOWN = "SELECT id, at, who, via, address, action, subject, before, after FROM phantoms.audit_log"
_PAGES = {
    "": text(f"{_SHOWN} WHERE id < :before ORDER BY id DESC LIMIT :limit"),
    "subject": text(f"{_SHOWN} WHERE subject = :value AND id < :before ORDER BY id DESC LIMIT :limit"),
    "who": text(f"{_SHOWN} WHERE who = :value AND id < :before ORDER BY id DESC LIMIT :limit"),
}
NEWEST = 2**62


@dataclass(frozen=True)
class Actor:
    """Who acts, through what (cli, desk, guest, api, dagster, demo), and from which address (empty on this machine).

    `counts_as`: the responsible person when `name` is not theirs: the user who invited a guest, or the system user behind a given
    name.
    """

    name: str
    via: str
    address: str = ""
    counts_as: str | None = None

    @property
    def person(self) -> str | None:
        """The person who counts when two different people must approve; None when unknown, as in a run of Dagster."""
        return None if self.via == "dagster" else self.counts_as or self.name


@dataclass(frozen=True)
class AuditEntry:
    """One action. `subject`: its object, such as a video's key. `before` and `after`: what it changed, without secrets."""

    actor: Actor
    action: str
    subject: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True)
class AuditRow:
    """A row of the audit log."""

    id: int
    at: datetime
    who: str
    via: str
    address: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def note(connection: Connection, deeds: Sequence[AuditEntry]) -> None:
    """Write entries to the audit log, in the transaction of `connection`."""
    if not deeds:
        return
    rows = [
        {
            "n": number,
            "who": deed.actor.name,
            "via": deed.actor.via,
            "address": deed.actor.address,
            "action": deed.action,
            "subject": deed.subject,
            "before": deed.before,
            "after": deed.after,
        }
        for number, deed in enumerate(deeds)
    ]
    connection.execute(_NOTE, {"rows": json.dumps(rows, default=str)})


class AuditLog:
    """Reads the audit log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, *, subject: str = "", who: str = "", before: int = NEWEST, limit: int = 50) -> list[AuditRow]:
        """The newest rows with an id below `before`: of one subject, or of one person, or all. `subject` takes precedence."""
        kind = "subject" if subject else "who" if who else ""
        values = {"value": subject or who, "before": before, "limit": limit}
        with reading(self._engine).connect() as connection:
            return [AuditRow(**row) for row in connection.execute(_PAGES[kind], values).mappings()]

    def write(self, deed: AuditEntry) -> None:
        """Record an action that changes no table, such as tripping a breaker."""
        with self._engine.begin() as connection:
            note(connection, [deed])
