"""Dagster's storage on PostgreSQL: a few connections that a process keeps, whole batches of events in one INSERT.

Stock: a new connection for every operation and one INSERT for every planned partition; 200 partitions of 4 assets took
78 s so, 4 s with this and `DAGSTER_EVENT_BATCH_SIZE`. Dagster's private modules are imported in this room alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.config import PostgresStorageConfig
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetKeyTable,
    SqlEventLogStorageMetadata,
    SqlEventLogStorageTable,
)
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import create_pg_engine
from sqlalchemy import Connection, Engine, NullPool, create_engine, func, or_, select
from sqlalchemy.engine import make_url

from phantoms_dagster import settings
from phantoms_dagster.execution.without_stores import is_only_looked_at, temporary_folder
from phantoms_dagster.store.engine import without_values
from phantoms_dagster.wiring.on_the_way import nothing_runs

STATEMENT_TIMEOUT_MS = 60_000
RECYCLE_SECONDS = 3_600
CHECKS = {DagsterEventType.ASSET_CHECK_EVALUATION}
BATCHES = ({DagsterEventType.ASSET_MATERIALIZATION_PLANNED}, {DagsterEventType.ASSET_MATERIALIZATION})
POOL_SIZE = 8
MAX_OVERFLOW = 16
# The key of PostgreSQL's advisory lock under which Dagster's tables are created.
CREATING_LOCK = 0x70686D5F64616773


# Written as many rows of one statement, which SQLAlchemy compiles once. A statement that has its rows in it, as stock makes it, is
# compiled for each batch, which costs four times as much as the rest of its way.
_INSERT_EVENTS = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)


def engine(url: str) -> Engine:
    """The connections of this process to Dagster's tables; all instances that it opens share them.

    The code server opens an instance for each look of a sensor, and a run one for itself: connections of their own would cost
    2 CPU-ms each here and 2 to 4 in PostgreSQL.
    """
    return _engine(url, os.getpid())  # a connection must not be used on both sides of a fork


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
        use_native_hstore=False,  # it would ask each new connection for a type that Dagster has no column of
        connect_args={"options": " ".join([timeout, *([given] if isinstance(given, str) else given)]).strip()},
    )
    return without_values(made)


@cache
def _create_tables(url: str) -> None:
    """Make the tables that are not there yet, as stock does with each instance that is opened.

    One process at a time: stock asks which tables there are and creates the others. Two that do so at once break each other off.
    """
    alone = create_engine(url, poolclass=NullPool, hide_parameters=True)
    with alone.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(CREATING_LOCK)))
        DagsterPostgresStorage(url)


class BatchingEventLogStorage(PostgresEventLogStorage):
    """Writes a batch of planned events in one statement, as stock does for materializations, and both without compiling it anew.

    Does not look which tables and columns there are, which stock does ten times a step: `initialise` has seen to them.
    """

    def has_table(self, table_name: str) -> bool:
        """See the base class."""
        return table_name in SqlEventLogStorageMetadata.tables

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        del conn
        return column_name in AssetKeyTable.c

    @property
    def has_default_pool_limit_col(self) -> bool:
        """See the base class."""
        return True

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """See the base class."""
        types = {event.get_dagster_event().event_type for event in events}
        if types not in (*BATCHES, CHECKS):
            super().store_event_batch(events)
            return
        with self._connect() as connection:
            inserted = connection.execute(_INSERT_EVENTS, [self._event_to_row(event) for event in events])
            ids = [cast("int", row[0]) for row in inserted]
        if types == CHECKS:
            self._store_evaluations(events, ids)
            return
        last = {event.get_dagster_event().asset_key: (event, row) for event, row in zip(events, ids, strict=True)}
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, events, ids)
            for event, row in last.values():
                self._store_asset_event(connection, event, row)

    def _store_evaluations(self, events: Sequence[EventLogEntry], ids: Sequence[int]) -> None:
        """What stock writes one by one, in three statements each. A step that is repeated evaluates its checks again."""
        rows = [self._evaluation_row(event, event_id) for event, event_id in zip(events, ids, strict=True)]
        table = AssetCheckExecutionsTable.c
        same = [
            (table.asset_key == row["asset_key"])
            & (table.check_name == row["check_name"])
            & (table.run_id == row["run_id"])
            & (table.partition.is_(None) if row["partition"] is None else table.partition == row["partition"])
            for row in rows
        ]
        with self.index_transaction() as connection:
            connection.execute(AssetCheckExecutionsTable.delete().where(or_(*same)))
            connection.execute(AssetCheckExecutionsTable.insert(), rows)

    @staticmethod
    def _evaluation_row(event: EventLogEntry, event_id: int) -> dict[str, Any]:
        evaluation = event.get_dagster_event().asset_check_evaluation_data
        target = evaluation.target_materialization_data
        status = AssetCheckExecutionRecordStatus
        return {
            "asset_key": evaluation.asset_key.to_string(),
            "check_name": evaluation.check_name,
            "run_id": event.run_id,
            "execution_status": (status.SUCCEEDED if evaluation.passed else status.FAILED).value,
            "evaluation_event": serialize_value(event),
            "evaluation_event_timestamp": datetime.fromtimestamp(event.timestamp, UTC).replace(tzinfo=None),
            "evaluation_event_storage_id": event_id,
            "materialization_event_storage_id": target.storage_id if target else None,
            "partition": evaluation.partition,
        }


class RunEventLogStorage(BatchingEventLogStorage):
    """Remembers which partitions there are: a step asks eight times for each of its own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._partitions: set[tuple[str, str]] = set()

    def has_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> bool:
        """See the base class."""
        wanted = (partitions_def_name, partition_key)
        if wanted not in self._partitions and super().has_dynamic_partition(*wanted):
            self._partitions.add(wanted)
        return wanted in self._partitions


class KnownRunStorage(PostgresRunStorage):
    """Does not look which columns there are, which stock does with every event and every run: `initialise` has seen to them."""

    def has_run_stats_index_cols(self) -> bool:
        """See the base class."""
        return True

    def has_bulk_actions_selector_cols(self) -> bool:
        """See the base class."""
        return True

    def has_backfill_id_column(self) -> bool:
        """See the base class."""
        return True

    def has_bulk_action_job_name_column(self) -> bool:
        """See the base class."""
        return True

    def has_backfill_tags_table(self) -> bool:
        """See the base class."""
        return True


class KnownScheduleStorage(PostgresScheduleStorage):
    """Does not look which tables there are, which stock does with every look of the daemon at its sensors."""

    def _has_instigators_table(self, conn: Connection) -> bool:
        del conn
        return True

    def has_secondary_index_table(self) -> bool:
        """See the base class."""
        return True


class PooledPostgresStorage(DagsterPostgresStorage):
    """`storage: custom:` of dagster.yaml. Every process that opens the instance gets pooled engines."""

    autocreate = True
    event_log: type[BatchingEventLogStorage] = BatchingEventLogStorage

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None
    ) -> None:
        if should_autocreate_tables:
            _create_tables(postgres_url)
        self.postgres_url = postgres_url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        self._run_storage = KnownRunStorage(postgres_url, should_autocreate_tables=False)
        self._event_log_storage = self.event_log(postgres_url, False)
        self._schedule_storage = KnownScheduleStorage(postgres_url, should_autocreate_tables=False)
        self._event_log_storage._engine = self._schedule_storage._engine = self._run_storage._engine = engine(postgres_url)
        # The one of DagsterPostgresStorage would make the three parts again, each with connections of its own.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def config_type(cls) -> Any:
        """No fields: the URL is a secret and comes from the environment."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> DagsterStorage:
        """See the base class. Raises InvalidInput when no database is set and none is running here.

        `dagster dev` and `dagster definitions validate` then get SQLite files in a temporary folder.
        """
        del config_value
        found = settings.load()
        url = found.dagster_url()
        if url is None and is_only_looked_at(found):
            return DagsterSqliteStorage(str(temporary_folder()), inst_data)
        if url is None:
            raise nothing_runs(found, "database")
        return cls(url, cls.autocreate, inst_data)


class ReadyStorage(PooledPostgresStorage):
    """The storage of a run, whose tables are there: whoever created it has seen to it. Looking for them costs 60 CPU-ms a run."""

    autocreate = False
    event_log = RunEventLogStorage
