"""Reads from Dagster which videos open runs and backfills work on, for `production.retirement`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from phantoms_dagster.defs import tags
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.domain.retirement import InFlight
from phantoms_dagster.private import dagster as private

# List the final statuses, so that a status added by a later Dagster counts as open.
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
OPEN = [status for status in dg.DagsterRunStatus if status not in ENDED]
ENDED_BACKFILLS = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")


class VideoPartitions:
    """Implements `retirement.Partitions` on a Dagster instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def keys(self) -> Sequence[str]:
        """See the port."""
        return self._instance.get_dynamic_partitions(VIDEOS)

    def delete(self, key: str) -> None:
        """See the port."""
        self._instance.delete_dynamic_partition(VIDEOS, key)

    def add(self, keys: Sequence[str]) -> None:
        """See the port."""
        if keys:
            self._instance.add_dynamic_partitions(VIDEOS, keys)

    def in_flight(self) -> InFlight:
        """See the port. A run without partitions, such as an analytics run, works on no video."""
        keys: set[str] = set()
        ranges: set[tuple[str, str]] = set()
        unclear: list[str] = []
        for run in self._instance.get_runs(dg.RunsFilter(statuses=OPEN)):
            first, last = run.tags.get(tags.RANGE_START), run.tags.get(tags.RANGE_END)
            if first or last:
                ranges.add((first or last or "", last or first or ""))
            elif key := run.tags.get(tags.PARTITION):
                keys.add(key)
            elif run.is_partitioned:
                unclear.append(f"run {run.run_id}")
        for backfill in open_backfills(self._instance):
            if backfill.asset_backfill_data is not None:
                for subset in backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values():
                    keys.update(subset.get_partition_keys())
            elif backfill.partition_names is not None:
                keys.update(backfill.partition_names)
            else:
                unclear.append(f"backfill {backfill.backfill_id}")
        return InFlight(frozenset(keys), frozenset(ranges), tuple(unclear))


def open_backfills(instance: dg.DagsterInstance) -> Sequence[Any]:
    """Return the backfills that have not ended."""
    if not private.usable("backfills"):
        return [each for each in instance.get_backfills() if each.status.value not in ENDED_BACKFILLS]
    wanted = [status for status in private.BulkActionStatus if status not in private.BULK_ACTION_TERMINAL_STATUSES]
    return instance.get_backfills(filters=private.BulkActionsFilter(statuses=wanted))
