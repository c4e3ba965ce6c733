"""Closes connections that are returned to an engine after it was disposed of.

`Engine.dispose` closes the idle connections and puts a new pool in place of the old one. A thread that is in the middle of a
statement returns its connection to the old pool, which keeps it open until the garbage collector finds it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event

_DISPOSALS = "phantoms_disposals"


def close_late_returns(database: Engine) -> Engine:
    """Close connections of this engine that are returned after `dispose`. Returns the engine."""
    disposals = 0

    def disposed(_database: Engine) -> None:
        nonlocal disposals
        disposals += 1

    def connected(_connection: Any, record: Any) -> None:
        record.info[_DISPOSALS] = disposals

    def returned(connection: Any, record: Any) -> None:
        if connection is not None and record.info.get(_DISPOSALS) != disposals:
            record.invalidate()

    event.listen(database, "engine_disposed", disposed)
    event.listen(database, "connect", connected)
    event.listen(database, "checkin", returned)
    return database
