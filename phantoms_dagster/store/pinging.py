"""Connections of a pool are asked whether their server is there only when that is in doubt.

`pool_pre_ping` asks before each use: half of what pages say to PostgreSQL would be that question. But a server that ends, or that
ends the connection, closes its side, and that can be seen here without asking: there is something to read of a connection that
waits for nothing. One that was not used for a while is asked all the same, because a network may have forgotten it.
"""

from __future__ import annotations

import select
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

ASKED_AFTER_SECONDS = 20.0
_USED = "phantoms_used_at"


def ask_when_in_doubt(database: Engine) -> Engine:
    """The engine. It is made without `pool_pre_ping`."""

    def used(_connection: Any, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        last = record.info.get(_USED)
        if last is None:
            return  # it was made just now
        if time.monotonic() - last < ASKED_AFTER_SECONDS and not _has_something_to_say(connection):
            return
        try:
            database.dialect.do_ping(connection)
        except database.dialect.loaded_dbapi.Error as error:
            # This and all that were made before it: then the pool makes another one.
            raise InvalidatePoolError from error

    event.listen(database, "checkin", used)
    event.listen(database, "checkout", check)
    return database


def _has_something_to_say(connection: Any) -> bool:
    """Whether there is something to read, or the end of it."""
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except Exception:  # noqa: BLE001 - a connection that is closed already has no number; asking it raises what it should
        return True
