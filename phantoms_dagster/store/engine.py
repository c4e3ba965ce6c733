"""Engines: how a process connects to PostgreSQL. The statements are in the other modules of this package."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.answer_limits import limit_answer_time
from phantoms_dagster.store.late_returns import close_late_returns
from phantoms_dagster.store.pinging import ping_when_in_doubt
from phantoms_dagster.store.rows import json_text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

# A machine that loses power closes no connection. The server would wait two hours for the rest of its transaction and keep rows
# locked that another machine must take over. A runner's transactions last milliseconds; this time is a run worker's lease.
# Retirement deletes files and partitions inside a transaction, so commands may be silent for longer.
RUNNER_SILENT_SECONDS = 30.0
COMMAND_SILENT_SECONDS = 600.0
# A struggling server takes longer to accept a connection than to run a statement. But a page that waits shows nothing at all.
IMPATIENT_CONNECT_SECONDS = 3
# The other direction: notice a dead server within a minute, instead of after the kernel's two hours.
_LOST_SERVER = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}


def _place(url: str) -> URL:
    try:
        parsed = make_url(url)
    except Exception as error:  # SQLAlchemy raises its own ArgumentError and plain ValueErrors for a bad port
        raise InvalidInput(
            "the database URL cannot be read; it should look like postgresql://user:password@host:5432/name"
        ) from error
    if not parsed.drivername.startswith(("postgresql", "postgres")):
        raise InvalidInput(f"the database must be PostgreSQL, not {parsed.drivername}")
    return parsed.set(drivername="postgresql+psycopg")


# Statements look up a few rows by key, in tables that fit in memory. Full scans to avoid disk seeks, JIT compilation and parallel
# workers cost more than they save.
_PLANNING = {"random_page_cost": "1.1", "jit": "off", "max_parallel_workers_per_gather": "0"}
# A runner repeats the same few statements, whose plans do not depend on the values. So each connection plans them once.
_PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan"}


def _options(
    place: URL,
    pool_size: int,
    silent_seconds: float,
    parameters: Mapping[str, str] = MappingProxyType({}),
    *,
    overflow: int = 0,
    connect_seconds: int = 10,
) -> dict[str, Any]:
    """The options of an engine. Options in the URL override ours."""
    given = place.query.get("options", "")
    ours = {"idle_in_transaction_session_timeout": f"{silent_seconds * 1000:.0f}", **_PLANNING, **parameters}
    options = " ".join([*(f"-c {name}={value}" for name, value in ours.items()), *([given] if isinstance(given, str) else given)])
    lost_server = {name: value for name, value in _LOST_SERVER.items() if name not in place.query}
    return {
        "hide_parameters": True,  # parameters contain upload URLs and answers, and errors end up in dead letters and logs
        "pool_size": pool_size,
        "max_overflow": overflow,  # without overflow, opened connections are kept: opening one costs as much as twenty statements
        "pool_use_lifo": True,  # a recently used connection has its statements and tables cached
        "pool_pre_ping": True,  # after a server restart, one extra round trip instead of a failed command
        "connect_args": {
            "connect_timeout": connect_seconds,
            "application_name": "phantoms",
            "options": options.strip(),
            **lost_server,
        },
        "use_native_hstore": False,  # otherwise each new engine queries for a type that we do not use
        "json_serializer": json_text,
    }


def engine(url: str, *, pool_size: int = 4, overflow: int = 0, max_wait: float | None = None) -> Engine:
    """A pooled engine for commands, sensors and migrations. Raises InvalidInput when the URL is not a PostgreSQL URL.

    `overflow`: how many extra connections may be open while all of the pool's are in use. `max_wait`: how many seconds PostgreSQL
    may take for an answer, for callers that cannot wait until it is back (None: no limit).
    """
    place = _place(url)
    if max_wait is None:
        return _ours(create_engine(place, **_options(place, pool_size, COMMAND_SILENT_SECONDS, overflow=overflow)))
    options = _options(place, pool_size, COMMAND_SILENT_SECONDS, overflow=overflow, connect_seconds=IMPATIENT_CONNECT_SECONDS)
    options["pool_pre_ping"] = False
    return ping_when_in_doubt(limit_answer_time(_ours(create_engine(place, pool_timeout=max_wait, **options)), max_wait))


def reading(database: Engine) -> Engine:
    """The same connections for reads: each statement is one round trip, without a transaction around it."""
    return database.execution_options(isolation_level="AUTOCOMMIT")


def async_engine(url: str, *, pool_size: int = 8) -> AsyncEngine:
    """A pooled engine for a runner's event loop. It belongs to the loop on which it is first used."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - commands do not need it, and it imports the ORM

    place = _place(url)
    options = _options(place, pool_size, RUNNER_SILENT_SECONDS, _PLANNED_ONCE)
    options["pool_pre_ping"] = False  # `transactions` retries anyway, and a ping before each would be one round trip in three
    options["connect_args"]["prepare_threshold"] = 0
    database = create_async_engine(place, **options)
    _ours(database.sync_engine)
    return database


def _ours(database: Engine) -> Engine:
    return without_values(close_late_returns(database))


def without_values(database: Engine) -> Engine:
    """Make the engine's errors contain no values, because values include upload URLs and providers' answers.

    `hide_parameters` does that for SQLAlchemy's part of a message; PostgreSQL quotes values in its details.
    """
    event.listen(database, "handle_error", _leave_out_details)
    return database


def _leave_out_details(context: ExceptionContext) -> None:
    original = context.original_exception
    said = getattr(getattr(original, "diag", None), "message_primary", None)
    if not said:
        return
    original.args = (said,)
    if context.sqlalchemy_exception is not None:
        kind = type(original)
        context.sqlalchemy_exception.args = (f"({kind.__module__}.{kind.__name__}) {said}",)
