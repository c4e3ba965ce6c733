"""`phantoms metrics`: an HTTP endpoint that reads PostgreSQL and Redis at each scrape. `exposition` has the metrics' names."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Generic, TypeVar

import typer
from aiohttp import web
from prometheus_client.core import Metric
from redis.exceptions import RedisError
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.cli import exposition
from phantoms_dagster.cli.console import current, out, plain_errors
from phantoms_dagster.cli.problems import database_problem
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.resilience.breakers.breaker import BreakerState
from phantoms_dagster.resilience.redis.scripts import RedisLost
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.statistics import Statistics, StatisticsReading
from phantoms_dagster.wiring import Services, logs
from phantoms_dagster.wiring.redis_connection import away
from phantoms_dagster.wiring.review_notices import LOOK_SECONDS as NOTICE_SECONDS
from phantoms_dagster.wiring.review_notices import notify
from phantoms_dagster.wiring.store_watch import LOOK_SECONDS, POSTGRESQL, REDIS, watch_stores
from phantoms_dagster.wiring.up_lock import nothing_runs
from phantoms_dagster.wiring.watching import PoolView, watching
from phantoms_dagster.wiring.webhooks import delivering

# A store that takes longer than this counts as down. Prometheus itself gives up after ten seconds by default.
MAX_WAIT_SECONDS = 6.0

log = logging.getLogger(__name__)

Value = TypeVar("Value")
Limited = tuple[list[PoolView], list[BreakerState]]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run")(metrics)


def metrics(
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; default: PHANTOMS_METRICS_PORT, else 9464; 0: any free one")
    ] = None,
) -> None:
    """Serve Prometheus metrics at /metrics, read from PostgreSQL and Redis at each scrape. `phantoms up` includes this.

    When a store does not answer, phantoms_up{store="..."} is 0, and the metrics of the other store are still served. This process
    also delivers webhooks, sends notices about videos that wait for approval, and alerts when a store stays down.
    """
    with plain_errors():
        settings = current()
        logs.configure(settings)
        application = metrics_application(settings)
        with _listening(settings.web.host, settings.metrics.port if port is None else port) as listener:
            host = f"[{settings.web.host}]" if ":" in settings.web.host else settings.web.host
            out.print(f"metrics are at http://{host}:{listener.getsockname()[1]}/metrics; Ctrl-C stops it", soft_wrap=True)
            web.run_app(application, sock=listener, print=None, access_log=None)


def metrics_application(
    settings: Settings,
    *,
    max_wait_seconds: float = MAX_WAIT_SECONDS,
    watch_seconds: float = LOOK_SECONDS,
    notice_seconds: float = NOTICE_SECONDS,
) -> web.Application:
    """Return the endpoint as an aiohttp application. Raises InvalidInput when a store's URL is missing or unusable.

    It also checks both stores every `watch_seconds` and sends an alert when one stays down.
    """
    database = engine(Services(settings).database_url, pool_size=4)
    statistics = Statistics(database)
    if settings.redis.url is None:
        raise nothing_runs(settings, "Redis")

    async def scraping(app: web.Application) -> AsyncIterator[None]:
        async with watching(settings) as watcher:

            async def limited() -> Limited:
                return await watcher.pools(), await watcher.breakers.look()

            async def tables() -> StatisticsReading:
                return await asyncio.to_thread(statistics.read)

            app[_SCRAPER] = scraper = _Scraper(
                _Source("postgresql", tables, max_wait_seconds), _Source("redis", limited, max_wait_seconds)
            )
            seen = (
                _Source("postgresql, watched", lambda: asyncio.to_thread(_ask, database), max_wait_seconds),
                _Source("redis, watched", watcher.breakers.look, max_wait_seconds),
            )
            looks = {POSTGRESQL: seen[0].problem, REDIS: seen[1].problem}
            watch = asyncio.create_task(watch_stores(settings, looks, every_seconds=watch_seconds))
            notices = asyncio.create_task(notify(settings, database, every_seconds=notice_seconds))
            async with delivering(settings, database):
                yield
            for task in (watch, notices):
                task.cancel()
            await asyncio.gather(watch, notices, return_exceptions=True)
            for source in seen:
                await source.aclose()
            await scraper.aclose()
            database.dispose()

    application = web.Application()
    application.cleanup_ctx.append(scraping)
    application.router.add_get("/metrics", _answer)
    return application


def _ask(database: Engine) -> bool:
    """Return True when PostgreSQL answers. Raises SQLAlchemyError."""
    with database.connect() as connection:
        return connection.execute(text("SELECT true")).scalar_one() is True


class _Source(Generic[Value]):
    """A store with at most one reading at a time. Scrapes that come meanwhile share it."""

    def __init__(self, name: str, read: Callable[[], Awaitable[Value]], max_wait_seconds: float) -> None:
        self.name = name
        self._read = read
        self._max_wait = max_wait_seconds
        self._reading: asyncio.Task[Value] | None = None
        self._trouble = ""

    async def latest(self) -> Value | None:
        """Return a fresh reading, or None while the store does not answer. A slow reading continues for the next scrape."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._once())
        reading = self._reading
        await asyncio.wait({reading}, timeout=self._max_wait)
        if not reading.done():
            self._note(f"no answer within {self._max_wait:g} s")
            return None
        self._reading = None if self._reading is reading else self._reading
        try:
            value = reading.result()
        except SQLAlchemyError as error:
            self._note(database_problem(error))
            return None
        except RedisLost as error:
            self._note(away(error))
            return None
        except RedisError as error:
            self._note(f"{type(error).__name__}: {error}")
            return None
        self._note("")
        return value

    async def problem(self) -> str | None:
        """Return why the store does not answer; None when it does."""
        return None if await self.latest() is not None else self._trouble

    async def aclose(self) -> None:
        """Cancel the current reading and wait for it to end."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _once(self) -> Value:
        return await self._read()

    def _note(self, trouble: str) -> None:
        """Log when the store goes down or comes back, not at every scrape."""
        if bool(trouble) != bool(self._trouble):
            log.warning("%s: %s", self.name, trouble or "answers again")
        self._trouble = trouble


class _Scraper:
    """Answers scrapes."""

    def __init__(self, tables: _Source[StatisticsReading], limits: _Source[Limited]) -> None:
        self._tables = tables
        self._limits = limits

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the available metrics, encoded, and their content type."""
        reading, limited = await asyncio.gather(self._tables.latest(), self._limits.latest())
        found: list[Metric] = list(exposition.up({self._tables.name: reading is not None, self._limits.name: limited is not None}))
        if reading is not None:
            found += exposition.table_metrics(reading)
        if limited is not None:
            found += exposition.limit_metrics(*limited)
        return exposition.exposition(found, accept)

    async def aclose(self) -> None:
        """Cancel the current readings."""
        await self._tables.aclose()
        await self._limits.aclose()


_SCRAPER = web.AppKey("scraper", _Scraper)


async def _answer(request: web.Request) -> web.Response:
    body, content_type = await request.app[_SCRAPER].scrape(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


def _listening(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises InvalidInput when the port is in use or the address is not local."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=16)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}); choose another with --port"
        ) from error
