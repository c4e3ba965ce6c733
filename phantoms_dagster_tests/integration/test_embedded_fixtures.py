"""The fixtures that give each test clean databases on the shared servers."""

from __future__ import annotations

import psycopg
import pytest
import redis
from sqlalchemy import make_url


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_has_a_migrated_database_that_no_other_has_touched(database_url: str, empty_database_url: str, turn: str) -> None:
    assert database_url.startswith("postgresql+psycopg://")
    with connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM phantoms.videos").fetchone() == (0,)
        connection.execute("CREATE TABLE only_once (a int)")
    with connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('phantoms.videos'), to_regclass('only_once')").fetchone() == (None, None)


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_has_an_empty_redis(redis_url: str, turn: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


async def test_the_databases_can_be_used_from_asynchronous_tests(database_url: str, dagster_database_url: str) -> None:
    assert dagster_database_url.startswith("postgresql+psycopg2://")
    assert make_url(database_url).database != make_url(dagster_database_url).database
