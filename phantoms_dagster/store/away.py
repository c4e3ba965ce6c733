"""Which errors mean that PostgreSQL itself is unavailable. They never decide anything about a video.

Wrong statements and refused values are raised unchanged, because a person has to see these bugs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from phantoms_dagster.domain.errors import StoreAway

# https://www.postgresql.org/docs/current/errcodes-appendix.html. Classes: connection exceptions, invalid authorization (a changed
# password), transaction rollback (deadlocks, serialization), insufficient resources (a full disk, too many connections), operator
# intervention (shutdowns, time-outs), system errors, broken configuration, internal errors. Then: a read-only server after a
# failover, idle and transaction time-outs, a missing database, an object in use, a lock that was not available.
_AWAY = ("08", "28", "40", "53", "57", "58", "F0", "XX", "25006", "25P03", "25P04", "3D000", "55006", "55P03")
# The connection has prepared a statement that the server has forgotten, or whose result changed with the schema.
_STALE_STATEMENT = ("26000", "42P05")
_STALE_PLAN = "0A000"
_READ_ONLY = "25006"


def is_away(error: BaseException) -> bool:
    """Whether the same work may succeed later, because the cause is PostgreSQL or the network."""
    if isinstance(error, PoolTimeoutError | PendingRollbackError):  # the pool's own timeout; a connection lost earlier
        return True
    if not isinstance(error, DBAPIError | psycopg.Error):
        return False
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    code = _code(error)
    if code is None:  # not from the server: the connection failed, or a value cannot be sent
        return isinstance(error, OperationalError | InterfaceError | psycopg.OperationalError | psycopg.InterfaceError)
    return code.startswith(_AWAY) or spoils_connection(error)


def spoils_connection(error: DBAPIError | psycopg.Error) -> bool:
    """Whether the open connection is useless: its server is read-only, or its prepared statements are stale."""
    code = _code(error)
    return code == _READ_ONLY or code in _STALE_STATEMENT or (code == _STALE_PLAN and "cached plan" in str(_original(error)))


def in_words(error: BaseException) -> str:
    """The error in one line for people. It contains no part of the URL, because a mistyped URL may show half a password."""
    found = _original(error)
    line = (str(found).strip().splitlines() or [""])[0].rsplit(" failed: ", 1)[-1][:200]
    if "resolve host" in line:
        return "its host name cannot be resolved"
    return line or type(found).__name__


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of an unavailable PostgreSQL into StoreAway, for code that uses an engine without `transaction`."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        if not is_away(error):
            raise
        raise StoreAway(in_words(error)) from error


def _original(error: BaseException) -> BaseException:
    """The driver's error, without SQLAlchemy's wrapper."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _code(error: BaseException) -> str | None:
    found = _original(error)
    code: str | None = getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)  # psycopg's name for it; psycopg2's
    return code
