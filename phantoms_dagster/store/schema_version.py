"""Checks that the database has the schema version of this code. With another one, video after video would fail, so work stops.

`migrate` upgrades the schema.
"""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from phantoms_dagster.domain.errors import SchemaMismatch

# How long a successful check is cached. A migration in that time is noticed through the statements that it breaks.
CACHE_SECONDS = 30.0
UNPREPARED = "the database has not been prepared: `phantoms init` or `phantoms up` does it"
# https://www.postgresql.org/docs/current/errcodes-appendix.html: no such table, column, schema, function, type.
BROKEN_BY_MIGRATIONS = ("42P01", "42703", "3F000", "42883", "42704")
_VERSION = text("SELECT version_num FROM phantoms.alembic_version")
_REVISION = re.compile(r"^(revision|down_revision)\b[^=]*= *[\"']([^\"']+)[\"']", re.MULTILINE)
_checked_at: dict[str, float] = {}


@functools.cache
def revisions() -> tuple[str, ...]:
    """The schema revisions that this code knows, the oldest first."""
    follows: dict[str, str] = {}
    for path in (Path(__file__).parent / "migrations" / "versions").glob("0*.py"):
        found = dict(_REVISION.findall(path.read_text(encoding="utf-8")))
        follows[found.get("down_revision", "")] = found["revision"]
    chain: list[str] = []
    while (following := follows.get(chain[-1] if chain else "")) is not None:
        chain.append(following)
    return tuple(chain)


def check(connection: Connection) -> None:
    """Raises SchemaMismatch when the tables are older or newer than this code, or not there."""
    try:
        current = connection.execute(_VERSION).scalar()
    except ProgrammingError:
        raise SchemaMismatch(UNPREPARED) from None
    known = revisions()
    if current not in known:
        raise SchemaMismatch(
            f"the database is newer than this code (its schema is {current}, the newest known here {known[-1]}): "
            "start the newer code here; then work resumes by itself"
        )
    if current != known[-1]:
        missing = known[known.index(current) + 1 :]
        raise SchemaMismatch(
            f"the database is older than this code (migrations {', '.join(missing)} are missing): "
            "`phantoms init` or `phantoms up` applies them; then work resumes by itself"
        )


def check_cached(engine: Engine) -> None:
    """`check` for code that runs often: a success is cached for CACHE_SECONDS."""
    name = str(engine.url)
    if time.monotonic() - _checked_at.get(name, -CACHE_SECONDS) < CACHE_SECONDS:
        return
    with engine.connect() as connection:
        check(connection)
    _checked_at[name] = time.monotonic()
