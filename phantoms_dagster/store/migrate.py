"""Runs the migrations, in one process at a time. An advisory lock makes the others wait; they then find the work done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from phantoms_dagster.domain.errors import SchemaMismatch
from phantoms_dagster.store import schema_version
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.schema import SCHEMA

# Alembic is a large import, and most starts have nothing to apply.
if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x7068616E  # "phan"
_PREPARED = text(f"SELECT to_regclass('{SCHEMA}.alembic_version') IS NOT NULL")


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(url: str) -> None:
    """Upgrade the database to the newest schema. `url`: any PostgreSQL URL. Several processes may call it at once."""
    database = engine(url, pool_size=2)
    try:
        with database.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            if _is_newest(connection):
                return
            from alembic import command  # noqa: PLC0415

            command.upgrade(_config(connection), "head")
    finally:
        database.dispose()


def _is_newest(connection: Connection) -> bool:
    if not connection.execute(_PREPARED).scalar_one():
        return False
    try:
        schema_version.check(connection)
    except SchemaMismatch:
        return False
    return True


def pending(url: str) -> list[str]:
    """The revisions that `upgrade` would apply, oldest first; empty when the schema is up to date."""
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    script = ScriptDirectory.from_config(_config())
    database = engine(url, pool_size=2)
    try:
        with database.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
            current = context.get_current_revision()
    finally:
        database.dispose()
    missing = [r.revision for r in script.iterate_revisions("head", current or "base")]
    return list(reversed(missing))
