"""Dagster's storage on PostgreSQL, with pooled connections and one INSERT per batch of events.

Dagster opens a connection for every operation and makes one INSERT per planned partition. A run over 200 partitions of 4 assets
took 78 s that way; with this and `DAGSTER_EVENT_BATCH_SIZE` it takes 4 s. Without the fast path `storage` it is Dagster's storage.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine
from sqlalchemy import Engine, NullPool, create_engine, func, select
from sqlalchemy.engine import make_url

from phantoms_dagster import settings
from phantoms_dagster.execution.without_stores import is_only_looked_at, temporary_folder
from phantoms_dagster.private import dagster as private
from phantoms_dagster.store.engine import without_values
from phantoms_dagster.wiring.up_lock import nothing_runs

if TYPE_CHECKING:
    from phantoms_dagster.private.dagster import ConfigurableClassData, DagsterStorage

STATEMENT_TIMEOUT_MS = 60_000
RECYCLE_SECONDS = 3_600
# How many connections stay open, and how many more may open for a while. An idle connection takes 3 MB in PostgreSQL.
POOL_SIZE = 4
MAX_OVERFLOW = 20
# The key of the advisory lock for creating Dagster's tables.
CREATING_LOCK = 0x70686D5F64616773


def engine(url: str) -> Engine:
    """Return the engine for Dagster's tables. All instances that this process opens share it.

    The code server opens an instance for each sensor evaluation, and every run opens one. A new connection for each would cost
    2 CPU-ms here and 2 to 4 in PostgreSQL.
    """
    return _engine(url, os.getpid())  # the pid is part of the key, because a fork must not use its parent's connections


@cache
def _engine(url: str, process: int) -> Engine:
    del process
    given = make_url(url).query.get("options", "")
    timeout = f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
    made = create_pg_engine(
        url,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        pool_recycle=RECYCLE_SECONDS,
        pool_use_lifo=True,
        use_native_hstore=False,  # otherwise each new connection looks up the type hstore, which Dagster does not use
        connect_args={"options": " ".join([timeout, *([given] if isinstance(given, str) else given)]).strip()},
    )
    return without_values(made)


@cache
def _create_tables(url: str) -> None:
    """Create missing tables, as Dagster does whenever an instance is opened.

    The lock lets one process do this at a time. Two that check and create tables at once would abort each other.
    """
    alone = create_engine(url, poolclass=NullPool, hide_parameters=True)
    with alone.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(CREATING_LOCK)))
        DagsterPostgresStorage(url)


class PooledPostgresStorage(DagsterPostgresStorage):
    """The `storage: custom:` entry of dagster.yaml, with pooled connections."""

    autocreate = True
    of_a_run = False

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None
    ) -> None:
        if should_autocreate_tables:
            _create_tables(postgres_url)
        if not private.usable("storage"):
            super().__init__(postgres_url, should_autocreate_tables=False, inst_data=inst_data)
            return
        from phantoms_dagster.execution import pooled_storage as parts  # noqa: PLC0415 - it imports the private names that the line above checked

        event_log = parts.RunEventLogStorage if self.of_a_run else parts.BatchingEventLogStorage
        self.postgres_url = postgres_url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        self._run_storage = parts.KnownRunStorage(postgres_url, should_autocreate_tables=False)
        self._event_log_storage = event_log(postgres_url, False)
        self._schedule_storage = parts.KnownScheduleStorage(postgres_url, should_autocreate_tables=False)
        self._event_log_storage._engine = self._schedule_storage._engine = self._run_storage._engine = engine(postgres_url)
        # Skip DagsterPostgresStorage.__init__, which would make the three storages again with their own connections.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def config_type(cls) -> Any:
        """No fields: the URL is a secret and comes from the environment."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> DagsterStorage:  # type: ignore[override]
        """See the base class. Raises InvalidInput when no database is set and none is running here.

        `dagster dev` and `dagster definitions validate` then get SQLite files in a temporary folder.
        """
        del config_value
        found = settings.load()
        url = found.dagster_url()
        if url is None and is_only_looked_at(found):
            return private.DagsterSqliteStorage(str(temporary_folder()), inst_data)
        if url is None:
            raise nothing_runs(found, "database")
        return cls(url, cls.autocreate, inst_data)


class ReadyStorage(PooledPostgresStorage):
    """The storage of a run. The launching process has created the tables; checking again would cost 60 CPU-ms per run."""

    autocreate = False
    of_a_run = True
