"""PostgreSQL is closed and opened again while `phantoms metrics` runs: each makes one alert."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from aiohttp.test_utils import TestClient, TestServer
from psycopg import sql
from sqlalchemy import make_url

from phantoms_dagster.cli.metrics import metrics_application
from phantoms_dagster.production.alerts import Message
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import store_watch


@pytest.fixture
def administrator(_admin: psycopg.Connection) -> psycopg.Connection:
    return _admin


async def until(found: Callable[[], bool]) -> None:
    for _ in range(1_200):
        if found():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come")


async def test_a_postgresql_that_is_away_makes_one_alert_and_one_when_it_is_back(
    administrator: psycopg.Connection, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []
    monkeypatch.setattr(store_watch, "destinations", lambda _: {"box": sent.append})
    settings = Settings(database={"url": database_url}, redis={"url": redis_url}, alerts={"minutes": 0})
    name = make_url(database_url).database or ""

    def close(closed: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS " + str(not closed))
        administrator.execute(statement.format(sql.Identifier(name)))
        if closed:
            administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

    async with TestClient(TestServer(metrics_application(settings, watch_seconds=0.05))):
        await asyncio.sleep(0.3)
        assert not sent
        close(True)
        try:
            await until(lambda: len(sent) == 1)
            await asyncio.sleep(0.5)
        finally:
            close(False)
        await until(lambda: len(sent) == 2)
        await asyncio.sleep(0.3)
    assert [message.title for message in sent] == ["Phantoms: PostgreSQL is away", "Phantoms: PostgreSQL is back"]
    assert "phantoms doctor" in sent[0].body
    password = make_url(database_url).password
    assert password
    assert password not in sent[0].body
