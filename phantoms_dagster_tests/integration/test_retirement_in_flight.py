"""No video is retired while a run is in flight, whenever that was launched: real tables of ours and of Dagster."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.defs.in_flight import VideoPartitions
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.domain.retirement import InFlight
from phantoms_dagster.production import retirement
from phantoms_dagster_tests.integration.retirement_world import LONG_AGO, Archive, dagster_instance
from phantoms_dagster_tests.integration.stage_world import World, open_world

Status = dg.DagsterRunStatus
A_MONTH_AGO = datetime.now(UTC) - timedelta(days=30)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def archive(world: World, tmp_path: Path, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    with dagster_instance(tmp_path, dagster_database_url, monkeypatch) as instance:
        yield Archive(world, instance)


@pytest.mark.parametrize("status", [s for s in Status if s not in (Status.SUCCESS, Status.FAILURE, Status.CANCELED, Status.QUEUED)])
def test_a_run_that_has_not_ended_holds_the_videos_that_it_covers(archive: Archive, status: dg.DagsterRunStatus) -> None:
    keys = archive.finished(6)
    archive.run(key=keys[0], status=status)
    archive.run(ends=(keys[2], keys[4]), status=status)
    night = archive.retire()
    assert (night.retired, night.held) == ([keys[1], keys[5]], [keys[0], keys[2], keys[3], keys[4]])
    assert archive.retired() == night.retired
    archive.end_runs()
    assert archive.retire().retired == night.held


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE, Status.CANCELED])
def test_a_run_that_has_ended_holds_nothing(archive: Archive, status: dg.DagsterRunStatus) -> None:
    keys = archive.finished(2)
    archive.run(ends=(keys[0], keys[1]), status=status)
    assert archive.retire().retired == keys


@pytest.mark.parametrize("status", list(BulkActionStatus))
def test_a_backfill_that_has_not_ended_holds_what_it_targets(archive: Archive, status: BulkActionStatus) -> None:
    keys = archive.finished(4)
    graph = build_definitions().get_repository_def().asset_graph
    chosen = PartitionsByAssetSelector(
        asset_key=dg.AssetKey("script"), partitions=PartitionsSelector(ranges=[PartitionRangeSelector(start=keys[1], end=keys[2])])
    )
    with _loading(archive.instance):
        backfill = PartitionBackfill.from_partitions_by_assets(
            "b1", graph, time.time(), {}, archive.instance, [chosen], None, None, None
        )
    archive.instance.add_backfill(backfill.with_status(status))
    ended = status.value.startswith("COMPLETED") or status in (BulkActionStatus.FAILED, BulkActionStatus.CANCELED)
    assert archive.retire().retired == (keys if ended else [keys[0], keys[3]])


def _loading(instance: dg.DagsterInstance) -> Any:
    from dagster._core.definitions.partitions.context import partition_loading_context  # noqa: PLC0415

    return partition_loading_context(dynamic_partitions_store=instance)


def test_a_claim_in_our_table_holds_its_video_whatever_dagster_says(archive: Archive) -> None:
    running, free = archive.finished(2)
    archive.set(running, "youtube/post", "running")
    archive.world.write("UPDATE phantoms.stages SET lease_until = now() - interval '1 hour' WHERE state = 'running'")
    assert archive.retire().retired == [free]


def test_a_run_over_a_range_whose_end_is_gone_counts_as_covering_everything(archive: Archive) -> None:
    keys = archive.finished(3)
    archive.run(ends=(keys[0], keys[1]))
    archive.instance.delete_dynamic_partition(VIDEOS, keys[0])
    night = archive.retire()
    assert (night.retired, archive.known()) == ([], keys[1:])


HAPPENS = st.tuples(
    st.sampled_from(["nothing", "nothing", "nothing", "launch", "launch range", "end"]), st.integers(0, 5), st.integers(0, 5)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happens=st.lists(HAPPENS, max_size=30))
def test_no_partition_is_deleted_under_a_run_whenever_that_is_launched(
    archive: Archive, happens: list[tuple[str, int, int]]
) -> None:
    """Runs are launched and end before any look at Dagster and after any deletion, as people do it."""
    archive.empty()
    keys = archive.finished(6)
    script = iter(happens)
    running: dict[str, list[str]] = {}  # what each open run covered when it was launched
    seen: set[str] = set()

    def something_happens() -> None:
        known = archive.known()
        action, one, other = next(script, ("nothing", 0, 0))
        if action == "end" and running:
            run = sorted(running)[one % len(running)]
            archive.instance.delete_run(run)
            del running[run]
        elif action.startswith("launch") and known:
            first, last = sorted((one % len(known), other % len(known)))
            if action == "launch":
                running[archive.run(key=known[first])] = [known[first]]
            else:
                running[archive.run(ends=(known[first], known[last]))] = known[first : last + 1]

    class Watched(VideoPartitions):
        def in_flight(self) -> InFlight:
            something_happens()
            seen.clear()
            seen.update(key for covered in running.values() for key in covered)
            return super().in_flight()

        def delete(self, key: str) -> None:
            assert key not in seen, "there is a run in flight"
            super().delete(key)
            something_happens()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retirement, "BATCH", 2)
        night = retirement.retire(archive.store, Watched(archive.instance), before=A_MONTH_AGO)
    assert [key for key in keys if key not in archive.known()] == [key for key in keys if key in night.retired]
    assert archive.retired() == [key for key in keys if key in night.retired]
    # Once all runs are over every video goes, including those that were kept for a run.
    archive.end_runs()
    archive.register()
    archive.world.write("UPDATE phantoms.videos SET registered_at = :at WHERE retired_at IS NULL", at=A_MONTH_AGO - LONG_AGO)
    archive.retire()
    assert (archive.known(), archive.retired(), archive.unfinished()) == ([], keys, [])


def test_a_run_launched_for_a_video_while_it_is_deleted_finds_it_again(archive: Archive) -> None:
    keys = archive.finished(3)
    partitions = _launching(archive, lambda: archive.run(key=keys[1]), at=keys[1])
    night = retirement.retire(archive.store, partitions, before=A_MONTH_AGO)
    assert (night.retired, night.taken_back, night.overtaken) == ([keys[0], keys[2]], [keys[1]], [])
    assert archive.known() == [keys[1]]
    assert archive.retired() == [keys[0], keys[2]]
    assert archive.register() == [keys[1]]  # as the intake sees it, it is new and at the end
    assert archive.known() == [keys[1]]


def test_the_end_of_a_range_that_was_launched_meanwhile_is_not_put_at_the_end_of_the_list(archive: Archive) -> None:
    keys = archive.finished(3)
    young = archive.finished(2, ago=timedelta(days=1))
    partitions = _launching(archive, lambda: archive.run(ends=(keys[1], young[0])), at=keys[0])
    night = retirement.retire(archive.store, partitions, before=A_MONTH_AGO)
    assert (night.retired, night.overtaken) == (keys, [keys[1]])
    assert archive.known() == young


def _launching(archive: Archive, launch: Callable[[], str], *, at: str) -> Any:
    class Launching(VideoPartitions):
        def delete(self, key: str) -> None:
            if key == at:
                launch()
            super().delete(key)

    return Launching(archive.instance)
