"""Dagster's storage on PostgreSQL for long-lived processes: a few kept connections, planned events in one INSERT.

Stock: a new connection for every operation and one INSERT for every planned partition; 200 partitions of 4 assets took
78 s so, 4 s with this and `DAGSTER_EVENT_BATCH_SIZE`. Dagster's private modules are imported in this room alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.config import PostgresStorageConfig
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage

from phantoms_dagster import settings
from phantoms_dagster.domain.errors import InvalidInput

STATEMENT_TIMEOUT_MS = 60_000
RECYCLE_SECONDS = 3_600
MAX_OVERFLOW = 20


class BatchingEventLogStorage(PostgresEventLogStorage):
    """Writes a batch of planned events in one statement, as stock does for materializations."""

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """See the base class."""
        types = {event.get_dagster_event().event_type for event in events}
        if types != {DagsterEventType.ASSET_MATERIALIZATION_PLANNED}:
            super().store_event_batch(events)
            return
        with self._connect() as connection:
            inserted = connection.execute(self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id))
            ids = [cast("int", row[0]) for row in inserted.fetchall()]
        last = {event.get_dagster_event().asset_key: (event, row) for event, row in zip(events, ids, strict=True)}
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, events, ids)
            for event, row in last.values():
                self._store_asset_event(connection, event, row)


class PooledPostgresStorage(DagsterPostgresStorage):
    """`storage: custom:` of dagster.yaml. Every process that opens the instance gets pooled engines."""

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._event_log_storage = BatchingEventLogStorage(postgres_url, should_autocreate_tables)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage.optimize_for_webserver(
                statement_timeout=STATEMENT_TIMEOUT_MS, pool_recycle=RECYCLE_SECONDS, max_overflow=MAX_OVERFLOW
            )

    @classmethod
    def config_type(cls) -> Any:
        """No fields: the URL is a secret and comes from the environment."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> PooledPostgresStorage:
        """See the base class. Raises InvalidInput when no database is set and none is running here."""
        del config_value
        url = settings.load().dagster_url()
        if url is None:
            raise InvalidInput("no database is running here: start `phantoms up`, or set PHANTOMS_DATABASE_URL")
        return cls(url, inst_data=inst_data)
