"""Connections that wait a limited time for an answer. A stopped server or a network that drops packets reports no error itself.

The kernel of a stopped server still acknowledges packets, so a TCP timeout does not help, and `statement_timeout` is enforced by
the stopped server itself. Pages cannot wait for that. The connection is closed, and the error says that PostgreSQL is away.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Engine, event


def limit_answer_time(database: Engine, seconds: float) -> Engine:
    """Make the engine's new connections wait at most `seconds` for each answer. `is_away` is true for the error after that.

    When the server resumes, a transaction whose COMMIT was sent may still be committed. Any other transaction is rolled back.
    """

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, Any], *given: Any, **named: Any) -> Any:
            return super().wait(self._limited(gen), *given, **named)

        def _limited(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            """Forward values between the driver and its wait loop, which resumes ten times a second."""
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
