"""A clock that jumps, for everything that a benchmark runs in its own process: Python, PostgreSQL and Redis tell the same time.

- Python: `time_machine` moves `datetime.now` and `time.time`. The event loop and `time.monotonic` keep real time.
- PostgreSQL: a schema that comes before `pg_catalog` in the search path has functions of the same names (`clock_timestamp`, `now`)
  that are ahead by as much. It must be there before the tables are made, because column defaults keep the function they were made
  with.
- Redis: each Lua script of the product gets its time from a replaced `TIME`. The lives of keys are not moved.

Nothing of the product is changed: it asks for the time as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import redis
import time_machine
from psycopg import sql
from sqlalchemy import Connection, make_url

from phantoms_dagster.resilience.redis.scripts import LuaScript
from phantoms_dagster.wiring.clock import SystemClock

SCHEMA = "simulated"
AHEAD = "simulated:ahead"  # microseconds
_REAL_TIME = "redis.call('TIME')"
_TIME = f"""(function()
  local now = redis.call('TIME')
  local ahead = tonumber(redis.call('GET', '{AHEAD}') or '0')
  local sum = now[1] * 1000000 + now[2] + ahead
  return {{string.format('%.0f', math.floor(sum / 1000000)), string.format('%.0f', sum % 1000000)}}
end)()"""
_FUNCTIONS = ("clock_timestamp", "now", "transaction_timestamp", "statement_timestamp")


class SimulatedClock(SystemClock):
    """Implements `ports.Clock`: a sleep takes no real time, it moves the clock."""

    def __init__(self, traveller: time_machine.Traveller, database: psycopg.Connection, client: redis.Redis) -> None:
        super().__init__()
        self._traveller = traveller
        self._database = database
        self._redis = client
        self._moved = timedelta(0)

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """See the port. Tasks that sleep at the same time do not add up."""
        until = self.now() + timedelta(seconds=seconds)
        await asyncio.sleep(0)
        self.advance_to(until)

    def agree(self, connection: Connection) -> None:
        """See the class. The database's time is this one."""

    def start(self) -> None:
        """Tell the servers how far this process's clock is ahead."""
        self._moved = self.now() - datetime.fromtimestamp(time_machine.escape_hatch.time.time(), UTC)
        self._tell()

    def advance_to(self, moment: datetime) -> None:
        """Move all clocks to that time, unless it is over."""
        if (left := moment - self.now()) > timedelta(0):
            self._moved += left
            self._traveller.shift(left)
            self._tell()

    def _tell(self) -> None:
        self._database.execute(f"UPDATE {SCHEMA}.clock SET ahead = %s", (self._moved,))
        self._redis.set(AHEAD, round(self._moved / timedelta(microseconds=1)))


def prepare(database_url: str) -> None:
    """Give a database that has no tables yet the functions of the simulated time."""
    name = make_url(database_url).database
    with _connect(database_url) as connection:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        connection.execute(f"CREATE TABLE {SCHEMA}.clock (ahead interval NOT NULL)")
        connection.execute(f"INSERT INTO {SCHEMA}.clock VALUES ('0')")
        for function in _FUNCTIONS:
            volatility = "VOLATILE" if function == "clock_timestamp" else "STABLE"
            connection.execute(
                f"CREATE FUNCTION {SCHEMA}.{function}() RETURNS timestamptz LANGUAGE sql {volatility} AS "
                f"'SELECT pg_catalog.{function}() + (SELECT ahead FROM {SCHEMA}.clock)'"
            )
        path = sql.SQL(f'ALTER DATABASE {{}} SET search_path = {SCHEMA}, pg_catalog, "$user", public')
        connection.execute(path.format(sql.Identifier(name or "")))


@contextlib.contextmanager
def simulated_clock(database_url: str, redis_url: str, start: datetime) -> Iterator[SimulatedClock]:
    """The clock, which is at `start`. Call `prepare` before the tables are made."""
    scripts = [found for found in gc.get_objects() if isinstance(found, LuaScript)]
    real = [script.source for script in scripts]
    with (
        _connect(database_url) as connection,
        redis.Redis.from_url(redis_url) as client,
        time_machine.travel(start, tick=True) as traveller,
    ):
        clock = SimulatedClock(traveller, connection, client)
        clock.start()
        try:
            for script in scripts:
                _replace(script, script.source.replace(_REAL_TIME, _TIME))
            yield clock
        finally:
            for script, source in zip(scripts, real, strict=True):
                _replace(script, source)


def _replace(script: LuaScript, source: str) -> None:
    object.__setattr__(script, "source", source)
    object.__setattr__(script, "sha", hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _connect(database_url: str) -> psycopg.Connection:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)
