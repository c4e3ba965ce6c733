"""Events that are written in batches are those that Dagster itself would have written, and cost no connection of their own."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.instance.ref import InstanceRef
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import text

from phantoms_dagster.defs.events import Origin, log_checks, log_materializations
from phantoms_dagster.execution.storage import PooledPostgresStorage, engine
from phantoms_dagster_tests.integration.retirement_world import dagster_instance

KEYS = ["one", "two", "three"]
METADATA: dict[str, dict[str, Any]] = {key: {"seconds": 1.5, "words": dg.MetadataValue.md(f"**{key}** \u00e9\n")} for key in KEYS}
# All of it is about fast paths.
pytestmark = pytest.mark.usefixtures("fast_paths")

videos = dg.DynamicPartitionsDefinition(name="videos")


@dg.multi_asset(
    specs=[dg.AssetSpec("video", partitions_def=videos, skippable=True)], backfill_policy=dg.BackfillPolicy.single_run()
)
def ours(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    log_materializations(context, dg.AssetKey("video"), METADATA)
    yield from ()


@dg.multi_asset(
    specs=[dg.AssetSpec("video", partitions_def=videos, skippable=True)], backfill_policy=dg.BackfillPolicy.single_run()
)
def dagsters(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    for key, entries in METADATA.items():
        event = dg.AssetMaterialization("video", partition=key, metadata=entries)
        DagsterEvent.asset_materialization(context.get_step_execution_context(), event)
    yield from ()


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url.replace("postgresql+psycopg://", "postgresql+psycopg2://")


@pytest.fixture
def instance(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    with dagster_instance(tmp_path, url, monkeypatch) as opened:
        opened.add_dynamic_partitions("videos", KEYS)
        yield opened
    engine(url).dispose()


def materialized(instance: dg.DagsterInstance, asset: dg.AssetsDefinition) -> Sequence[dg.EventLogEntry]:
    """The materializations of one run over all partitions."""
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    run = dg.materialize([asset], instance=instance, tags=tags, partition_key=None)
    return instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)


def told(entry: dg.EventLogEntry, step: str) -> dict[str, Any]:
    """What an entry says, apart from when and in which step."""
    event = entry.get_dagster_event()
    said = {**entry._asdict(), **event._asdict()}
    for name in ("timestamp", "run_id", "dagster_event", "step_key", "step_handle", "node_handle"):
        del said[name]
    assert entry.step_key == event.step_key == step
    return {**said, "logging_tags": {k: v for k, v in (event.logging_tags or {}).items() if step not in v and v != entry.run_id}}


def test_a_materialization_says_what_dagsters_own_says(instance: dg.DagsterInstance) -> None:
    by_us, by_dagster = materialized(instance, ours), materialized(instance, dagsters)
    assert [told(e, "ours") for e in by_us] == [told(e, "dagsters") for e in by_dagster]
    assert [e.get_dagster_event().partition for e in by_us] == KEYS
    assert instance.get_materialized_partitions(dg.AssetKey("video")) == set(KEYS)
    latest = instance.get_latest_materialization_event(dg.AssetKey("video"))
    assert latest is not None
    assert latest.get_dagster_event().partition == KEYS[-1]


def rows(url: str, table: str) -> list[dict[str, Any]]:
    with engine(url).connect() as connection:
        found = connection.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()
        return [{name: value for name, value in row.items() if name not in ("id", "create_timestamp")} for row in found]


def test_a_batch_leaves_the_rows_that_stock_leaves(instance: dg.DagsterInstance, url: str) -> None:
    entries = [*materialized(instance, ours)]
    assert len(entries) == len(KEYS)
    left = []
    for storage in (instance.event_log_storage, PostgresEventLogStorage(url)):
        with engine(url).connect() as connection:
            connection.execute(text("TRUNCATE event_logs, asset_keys RESTART IDENTITY CASCADE"))
        storage.store_event_batch(entries)
        left.append((rows(url, "event_logs"), rows(url, "asset_keys")))
    assert left[0] == left[1]
    assert [row["partition"] for row in left[0][0]] == KEYS
    assert len(left[0][1]) == 1


def sessions(url: str) -> int:
    with engine(url).connect() as connection:
        return int(
            connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")).scalar_one()
        )


CHECKED = [
    dg.AssetCheckEvaluation(dg.AssetKey("video"), "length", True, {"seconds": 30.5}),
    dg.AssetCheckEvaluation(dg.AssetKey("video"), "loudness", False, {}, severity=dg.AssetCheckSeverity.WARN),
]


@dg.asset(name="video")
def checked(context: dg.AssetExecutionContext) -> None:
    origin = Origin.of(context)
    log_checks(context.instance, [(origin, each) for each in CHECKED])


def test_evaluations_of_checks_leave_the_rows_that_stock_leaves_however_often_the_step_is_repeated(
    instance: dg.DagsterInstance, url: str
) -> None:
    run = dg.materialize([checked], instance=instance)
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert [e.get_dagster_event().asset_check_evaluation_data for e in entries] == CHECKED
    instance.event_log_storage.store_event_batch(entries)
    left = [rows(url, "asset_check_executions")]
    with engine(url).connect() as connection:
        connection.execute(text("TRUNCATE event_logs, asset_check_executions RESTART IDENTITY CASCADE"))
    stock = PostgresEventLogStorage(url)
    for entry in entries:
        stock.store_event(entry)
    left.append(rows(url, "asset_check_executions"))
    for row in (*left[0], *left[1]):
        del row["evaluation_event_storage_id"]
    assert left[0] == left[1]
    assert [row["check_name"] for row in left[0]] == ["length", "loudness"]


def test_the_instances_of_a_process_share_its_connections_and_a_forked_one_has_its_own(
    instance: dg.DagsterInstance, url: str, tmp_path: Path
) -> None:
    before = sessions(url)
    for _ in range(5):
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as other:
            assert other.get_runs_count() == instance.get_runs_count()
    assert sessions(url) == before
    mine = id(engine(url))
    child = os.fork()
    if child == 0:
        os._exit(0 if id(engine(url)) != mine and PooledPostgresStorage(url, False)._run_storage._engine is engine(url) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert instance.get_runs_count() == 0


def test_a_session_has_our_time_limit_in_addition_to_what_the_url_says(url: str) -> None:
    told_so = f"{url}{'&' if '?' in url else '?'}options=-c%20lock_timeout%3D9s"
    with engine(told_so).connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "1min"
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "9s"
    engine(told_so).dispose()
