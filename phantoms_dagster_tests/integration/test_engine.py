"""Sessions: how long a runner that is gone can hold locks, and what a URL may say about that."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from phantoms_dagster.store import engine as engines
from phantoms_dagster.store import pinging
from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.store.transactions import is_retryable


def with_query(url: str, **parameters: str) -> str:
    return make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)


async def shown(url: str, name: str) -> str:
    database = async_engine(url)
    try:
        async with database.connect() as connection:
            return str((await connection.execute(text(f"SHOW {name}"))).scalar_one())
    finally:
        await database.dispose()


async def test_rows_that_a_silent_runner_has_locked_come_free(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that lost its power inside a claim: nothing comes from it any more, and its connection is not closed either.
    monkeypatch.setattr(engines, "RUNNER_SILENT_SECONDS", 0.5)
    lock = text("SELECT pg_advisory_xact_lock(4711)")
    gone, other = async_engine(database_url), async_engine(database_url)
    try:
        async with gone.connect() as silent:
            await silent.execute(lock)
            async with other.begin() as connection:
                await connection.execute(text("SET LOCAL statement_timeout = '20s'"))
                await connection.execute(lock)
            # If it is alive after all, its transaction is repeated, as after any lost connection.
            with pytest.raises(DBAPIError) as refused:
                await silent.execute(text("SELECT 1"))
            assert is_retryable(refused.value)
    finally:
        await gone.dispose()
        await other.dispose()


async def test_a_runner_may_be_silent_as_long_as_a_lease_and_a_command_for_longer(database_url: str) -> None:
    assert await shown(database_url, "idle_in_transaction_session_timeout") == "30s"
    database = engine(database_url)
    try:
        with database.connect() as connection:
            assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "10min"
    finally:
        database.dispose()


@pytest.mark.parametrize("max_wait", [None, 5.0])
def test_a_connection_that_a_thread_returns_after_the_engine_was_disposed_of_is_closed(
    database_url: str, max_wait: float | None
) -> None:
    database = engine(database_url, max_wait=max_wait)
    try:
        late = database.connect()
        plain = late.connection.dbapi_connection
        assert plain is not None
        assert late.execute(text("SELECT 1")).scalar_one() == 1
        database.dispose()
        assert late.execute(text("SELECT 2")).scalar_one() == 2
        late.close()
        assert plain.closed
        with database.connect() as connection:  # an engine can be used again, and keeps its new connections
            kept = connection.connection.dbapi_connection
            assert connection.execute(text("SELECT 3")).scalar_one() == 3
        with database.connect() as connection:
            assert connection.connection.dbapi_connection is kept
    finally:
        database.dispose()


async def test_of_a_runner_too_a_connection_that_is_returned_late_is_closed(database_url: str) -> None:
    database = async_engine(database_url)
    late = await database.connect()
    raw = await late.get_raw_connection()
    plain = raw.driver_connection
    assert plain is not None
    await late.execute(text("SELECT 1"))
    await database.dispose()
    assert not plain.closed
    await late.close()
    assert plain.closed


async def test_what_a_url_says_about_its_sessions_holds(database_url: str) -> None:
    url = with_query(database_url, options="-c idle_in_transaction_session_timeout=7s -c lock_timeout=9s", tcp_user_timeout="0")
    assert await shown(url, "idle_in_transaction_session_timeout") == "7s"
    assert await shown(url, "lock_timeout") == "9s"
    assert await shown(with_query(database_url, options="-c lock_timeout=9s"), "idle_in_transaction_session_timeout") == "30s"


def test_a_page_asks_whether_postgresql_is_there_only_when_that_is_in_doubt(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, other = engine(database_url, pool_size=1, max_wait=5.0), engine(database_url)
    asked: list[object] = []
    ping = pages.dialect.do_ping

    def noted(connection: DBAPIConnection) -> bool:
        asked.append(connection)
        return ping(connection)

    monkeypatch.setattr(pages.dialect, "do_ping", noted)

    def pid() -> int:
        with pages.connect() as connection:
            found: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        return found

    try:
        first = pid()
        assert (pid(), pid(), asked) == (first, first, [])
        with other.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
        second = pid()  # the server closed the connection: the pool notices, and the caller does not
        assert (second != first, len(asked)) == (True, 1)
        monkeypatch.setattr(pinging, "ASKED_AFTER_SECONDS", 0.0)
        assert (pid(), len(asked)) == (second, 2)  # not used for a while: the network may have forgotten it
    finally:
        pages.dispose()
        other.dispose()
