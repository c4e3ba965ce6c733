"""Engines: how a process talks to PostgreSQL. What it says belongs in the other files of this room."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.answer_limits import give_up_after
from phantoms_dagster.store.pinging import ask_when_in_doubt
from phantoms_dagster.store.rows import json_text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

# A machine that loses its power says goodbye to nobody: the server would wait two hours for the rest of its transaction, and keep
# the rows locked that another machine is to take over. A runner's transactions last milliseconds; the time is that of a run
# worker's lease. Retirement deletes files and partitions inside a transaction, so a command may be silent for longer.
RUNNER_SILENT_SECONDS = 30.0
COMMAND_SILENT_SECONDS = 600.0
# To be let in takes a server in trouble longer than a statement; but a page that waits for it shows nothing at all.
IMPATIENT_CONNECT_SECONDS = 3
# The other way round: a server that is gone is noticed within a minute, and not after the kernel's own two hours.
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


# Rows are looked up by key, a few at a time, in tables that are in memory: reading a whole table because a disk would have to
# turn, or compiling a query, costs more than it ever saves.
# So does starting other processes to help.
_PLANNING = {"random_page_cost": "1.1", "jit": "off", "max_parallel_workers_per_gather": "0"}
# A runner says the same few statements again and again, and their plans do not depend on the values: planned once a connection.
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
    """What the URL itself says goes before ours."""
    given = place.query.get("options", "")
    ours = {"idle_in_transaction_session_timeout": f"{silent_seconds * 1000:.0f}", **_PLANNING, **parameters}
    options = " ".join([*(f"-c {name}={value}" for name, value in ours.items()), *([given] if isinstance(given, str) else given)])
    lost_server = {name: value for name, value in _LOST_SERVER.items() if name not in place.query}
    return {
        "hide_parameters": True,  # they hold upload addresses and answers, and errors end up in letters and logs
        "pool_size": pool_size,
        "max_overflow": overflow,  # else a connection that was opened is kept: to open one costs as much as twenty statements
        "pool_use_lifo": True,  # a connection that was used before knows the statements and the tables
        "pool_pre_ping": True,  # a restarted server costs one extra round trip, not a failed command
        "connect_args": {
            "connect_timeout": connect_seconds,
            "application_name": "phantoms",
            "options": options.strip(),
            **lost_server,
        },
        "use_native_hstore": False,  # each new engine would ask for a type that we have no column of
        "json_serializer": json_text,
    }


def engine(url: str, *, pool_size: int = 4, overflow: int = 0, max_wait: float | None = None) -> Engine:
    """A pooled engine for commands, sensors and migrations. Raises InvalidInput for a URL that is not PostgreSQL's.

    `overflow`: how many connections more may be open for a while, when the pool's are all in use. `max_wait`: how many seconds
    PostgreSQL may take for an answer, for callers that cannot wait until it is back. None waits as long as it needs.
    """
    place = _place(url)
    if max_wait is None:
        return without_values(create_engine(place, **_options(place, pool_size, COMMAND_SILENT_SECONDS, overflow=overflow)))
    options = _options(place, pool_size, COMMAND_SILENT_SECONDS, overflow=overflow, connect_seconds=IMPATIENT_CONNECT_SECONDS)
    options["pool_pre_ping"] = False
    return ask_when_in_doubt(give_up_after(without_values(create_engine(place, pool_timeout=max_wait, **options)), max_wait))


def reading(database: Engine) -> Engine:
    """The same connections for who only reads: each statement is one trip to the server, without a transaction around it."""
    return database.execution_options(isolation_level="AUTOCOMMIT")


def async_engine(url: str, *, pool_size: int = 8) -> AsyncEngine:
    """A pooled engine for a runner's event loop. It belongs to the loop it is first used on."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - commands do without, and with it comes the ORM

    place = _place(url)
    options = _options(place, pool_size, RUNNER_SILENT_SECONDS, _PLANNED_ONCE)
    options["pool_pre_ping"] = False  # `transactions` tries again anyway, and a round trip before each would be one in three
    options["connect_args"]["prepare_threshold"] = 0
    database = create_async_engine(place, **options)
    without_values(database.sync_engine)
    return database


def without_values(database: Engine) -> Engine:
    """The engine, whose errors say what was wrong but repeat no value: those hold upload addresses and what providers answered.

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
