"""Pings a pooled connection only when it may be broken.

`pool_pre_ping` pings before each use, which would be half of a page's round trips. A server that stops or ends the connection
closes its side, and that is visible without a ping: an idle connection then has something to read. A connection that was not used
for a while is pinged anyway, because the network may have dropped it.
"""

from __future__ import annotations

import select
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

ASKED_AFTER_SECONDS = 20.0
_USED = "phantoms_used_at"


def ping_when_in_doubt(database: Engine) -> Engine:
    """Add these pings to an engine that was made without `pool_pre_ping`, and return it."""

    def used(_connection: Any, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        last = record.info.get(_USED)
        if last is None:
            return  # it was made just now
        if time.monotonic() - last < ASKED_AFTER_SECONDS and not _is_readable(connection):
            return
        try:
            database.dialect.do_ping(connection)
        except database.dialect.loaded_dbapi.Error as error:
            # Invalidates this connection and all older ones, and the pool opens a new one.
            raise InvalidatePoolError from error

    event.listen(database, "checkin", used)
    event.listen(database, "checkout", check)
    return database


def _is_readable(connection: Any) -> bool:
    """Whether there is something to read, including the end of the stream."""
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except Exception:  # noqa: BLE001 - a closed connection has no file number; the ping raises the right error
        return True
