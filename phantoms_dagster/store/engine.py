"""Engines: how a process talks to PostgreSQL. What it says belongs in the other files of this room."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phantoms_dagster.domain.errors import InvalidInput

_OPTIONS: dict[str, Any] = {
    "pool_pre_ping": True,  # a restarted server costs one extra round trip, not a failed stage
    "connect_args": {"connect_timeout": 10, "application_name": "phantoms"},
    "json_serializer": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
}


def _url(url: str) -> str:
    try:
        parsed = make_url(url)
    except Exception as error:  # SQLAlchemy raises its own ArgumentError and plain ValueErrors for a bad port
        raise InvalidInput(
            "the database URL cannot be read; it should look like postgresql://user:password@host:5432/name"
        ) from error
    if not parsed.drivername.startswith(("postgresql", "postgres")):
        raise InvalidInput(f"the database must be PostgreSQL, not {parsed.drivername}")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def engine(url: str, *, pool_size: int = 2) -> Engine:
    """A pooled engine for commands, sensors and migrations. Raises InvalidInput for a URL that is not PostgreSQL's."""
    return create_engine(_url(url), pool_size=pool_size, max_overflow=pool_size, **_OPTIONS)


def async_engine(url: str, *, pool_size: int = 4) -> AsyncEngine:
    """A pooled engine for a runner's event loop. It belongs to the loop it is first used on."""
    return create_async_engine(_url(url), pool_size=pool_size, max_overflow=pool_size, **_OPTIONS)
