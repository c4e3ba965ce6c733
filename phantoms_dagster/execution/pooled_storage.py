"""Variants of Dagster's storages that write in batches and do not inspect the schema.

Only the fast path `storage` imports this module; see `private.dagster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from dagster import DagsterEventType, EventLogEntry, serialize_value
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from sqlalchemy import Connection, or_

from phantoms_dagster.private.dagster import (
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionsTable,
    AssetKeyTable,
    SqlEventLogStorageMetadata,
    SqlEventLogStorageTable,
)

CHECKS = {DagsterEventType.ASSET_CHECK_EVALUATION}
BATCHES = ({DagsterEventType.ASSET_MATERIALIZATION_PLANNED}, {DagsterEventType.ASSET_MATERIALIZATION})

# One statement for many rows, which SQLAlchemy compiles once. Dagster puts the rows into the statement, which is then compiled for
# each batch; that costs four times as much as everything else.
_INSERT_EVENTS = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)


class BatchingEventLogStorage(PostgresEventLogStorage):
    """Writes a batch of planned events in one statement, as Dagster does for materializations, and compiles it only once.

    It does not inspect the schema, which Dagster does ten times per step: `initialise` has made sure of it.
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
        """Write check evaluations in two statements; Dagster uses three for each. A repeated step replaces its evaluations."""
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
    """Caches which partitions exist. A step asks eight times for each of its own."""

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
    """Does not inspect the schema, which Dagster does for every event and run: `initialise` has made sure of it."""

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
    """Does not inspect tables and indexes, which Dagster does whenever the daemon evaluates its sensors."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._built: set[str] = set()

    def _has_instigators_table(self, conn: Connection) -> bool:
        del conn
        return True

    def has_secondary_index_table(self) -> bool:
        """See the base class."""
        return True

    def has_built_index(self, migration_name: str) -> bool:
        """See the base class. An index that exists is assumed to stay."""
        if migration_name not in self._built and super().has_built_index(migration_name):
            self._built.add(migration_name)
        return migration_name in self._built
