"""The servers that tests share: one PostgreSQL and one Valkey per session, a database of its own for each test.

`PHANTOMS_TEST_DATABASE_URL` (its user may create databases) and `PHANTOMS_TEST_REDIS_URL` (its database is emptied) use servers
that run already; otherwise embedded ones are started, which end with pytest however it ends.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import URL, make_url

from phantoms_dagster.embedded.servers import EmbeddedServers, ServerUrls
from phantoms_dagster_tests.server_home import server_home

# GNU readline leaves them to the processes that share the tests, and a Rich console that is made then keeps that size for good.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes share the tests: one more than there are processors, for most tests wait.

    Single files run in this process, and so does everything on servers that run already: each process empties their databases.
    """
    given = {"PHANTOMS_TEST_DATABASE_URL", "PHANTOMS_TEST_REDIS_URL"} & os.environ.keys()
    folders = all(Path(argument).is_dir() for argument in config.args)
    return min(8, (os.cpu_count() or 1) + 1) if folders and not given else 0


@pytest.fixture(autouse=True)
def _no_sandbox_is_kept() -> Iterator[None]:
    """aiohttp remembers the last 1,024 handlers together with their applications, and so every sandbox with its uploads."""
    yield
    if (aiohttp := sys.modules.get("aiohttp.web_app")) is not None:
        aiohttp._cached_build_middleware.cache_clear()


@pytest.fixture
def fast_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of a fast path itself: it is taken, even when `PHANTOMS_DAGSTER_FAST_PATHS` is off for all other tests."""
    monkeypatch.setenv("PHANTOMS_DAGSTER_FAST_PATHS", "on")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUrls]:
    """The URLs of servers for tests. Take `database_url` and `redis_url` for a clean database."""
    database_url, redis_url = os.environ.get("PHANTOMS_TEST_DATABASE_URL"), os.environ.get("PHANTOMS_TEST_REDIS_URL")
    if database_url and redis_url:
        yield _given(database_url, redis_url)
        return
    with server_home(lambda: tmp_path_factory.mktemp("servers")) as home, EmbeddedServers(home, durable=False) as urls:
        yield (urls if not (database_url or redis_url) else _given(database_url or urls.database_url, redis_url or urls.redis_url))


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Waits until a process that need not be our child has ended, for a minute at most; says whether it has."""

    def ended(pid: int) -> bool:
        for _ in range(6_000):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            # Dead, but the process that inherited it has not reaped it yet.
            stat = Path(f"/proc/{pid}/stat")
            if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return True
            time.sleep(0.01)
        return False

    return ended


@pytest.fixture
def redis_url(servers: ServerUrls) -> str:
    """The URL of an empty Redis database."""
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushdb()
    return servers.redis_url


@pytest.fixture
def database_url(_template: str, _admin: psycopg.Connection, servers: ServerUrls) -> Iterator[str]:
    """`postgresql+psycopg://...` of a database with the current schema and no rows, for this test alone."""
    with _database(_admin, servers, template=_template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(_template: str, _admin: psycopg.Connection, servers: ServerUrls) -> Iterator[str]:
    """The same for all tests of a module, which only read what they put there once."""
    with _database(_admin, servers, template=_template) as url:
        yield url


@pytest.fixture
def empty_database_url(_admin: psycopg.Connection, servers: ServerUrls) -> Iterator[str]:
    """`postgresql+psycopg://...` of a database without any schema, for this test alone."""
    with _database(_admin, servers) as url:
        yield url


@pytest.fixture
def dagster_database_url(_admin: psycopg.Connection, servers: ServerUrls) -> Iterator[str]:
    """`postgresql+psycopg2://...` of a database without any schema for a DagsterInstance, for this test alone."""
    with _database(_admin, servers) as url:
        yield _text(make_url(url).set(drivername="postgresql+psycopg2"))


@pytest.fixture(scope="session")
def _admin(servers: ServerUrls) -> Iterator[psycopg.Connection]:
    with psycopg.connect(_text(make_url(servers.database_url).set(drivername="postgresql")), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def _template(_admin: psycopg.Connection, servers: ServerUrls) -> Iterator[str]:
    """The name of a database with the current schema. Migrating takes far longer than copying."""
    # Here, so that tests without the schema do not depend on it.
    from phantoms_dagster.store.migrate import upgrade  # noqa: PLC0415

    with _database(_admin, servers) as url:
        upgrade(url)
        yield make_url(url).database or ""


@contextmanager
def _database(admin: psycopg.Connection, servers: ServerUrls, template: str = "template1") -> Iterator[str]:
    name = f"phantoms_test_{secrets.token_hex(6)}"
    identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    # Copied file by file: the default way would write ten megabytes of log for each test.
    admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY").format(**identifiers))
    try:
        yield _text(make_url(servers.database_url).set(database=name))
    finally:
        admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))


def _given(database_url: str, redis_url: str) -> ServerUrls:
    url = make_url(database_url)
    return ServerUrls(
        database_url=_text(url.set(drivername="postgresql+psycopg")),
        dagster_database_url=_text(url.set(drivername="postgresql+psycopg2")),
        redis_url=redis_url,
    )


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
