"""Connections that wait a limited time for PostgreSQL: a server that is stopped, or a network that swallows, never says so itself.

The kernel of a stopped server still acknowledges what is sent, so no time-out of TCP helps, and `statement_timeout` is kept by the
very server that is stopped. Pages cannot wait for that: the connection is closed, and the error says that PostgreSQL is away.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Engine, event


def give_up_after(database: Engine, seconds: float) -> Engine:
    """The engine, whose new connections wait at most `seconds` for each answer; then `is_away` is true of the error.

    What was sent may still be carried out when the server goes on, but only as a whole: a transaction whose COMMIT was not sent is
    rolled back.
    """

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, Any], *given: Any, **named: Any) -> Any:
            return super().wait(self._limited(gen), *given, **named)

        def _limited(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            """Passes on what the driver and its loop say to each other. The loop looks in ten times a second."""
            ends = time.monotonic() + seconds
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if not ready and time.monotonic() > ends:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"no answer within {seconds:g} s")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

    def connect(_dialect: Any, _record: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> psycopg.Connection[Any]:
        return Impatient.connect(*arguments, **parameters)

    event.listen(database, "do_connect", connect)
    return database
