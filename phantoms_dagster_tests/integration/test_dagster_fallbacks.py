"""With every fast path off, on Dagster's public names only: slower, with the same results."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster_postgres import PostgresEventLogStorage

from phantoms_dagster.defs.events import Origin, Stamps, log_checks, log_events, log_materializations, report_events
from phantoms_dagster.defs.in_flight import ENDED_BACKFILLS, open_backfills
from phantoms_dagster.execution.storage import PooledPostgresStorage, ReadyStorage
from phantoms_dagster.private import dagster as private
from phantoms_dagster_tests.integration.retirement_world import dagster_instance
from phantoms_dagster_tests.integration.run_world import RunWorld, run_world, wait_for

KEYS = ["one", "two", "three"]
OFF = {private.VARIABLE: "off"}
videos = dg.DynamicPartitionsDefinition(name="videos")


@pytest.fixture(autouse=True)
def without_fast_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OFF.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url(dagster_database_url: str) -> str:
    return dagster_database_url


@pytest.fixture
def instance(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path, url, monkeypatch) as opened:
        yield opened


@dg.multi_asset(
    specs=[dg.AssetSpec("video", partitions_def=videos, skippable=True)],
    check_specs=[dg.AssetCheckSpec("length", asset="video")],
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
)
def made(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    log_materializations(context, dg.AssetKey("video"), {key: {"seconds": 1.5} for key in context.partition_keys})
    log_events(context, [dg.AssetObservation("video", partition=KEYS[0])], stamps=Stamps())
    passed = dg.AssetCheckEvaluation(dg.AssetKey("video"), "length", True, {})
    log_checks(context.instance, [(Origin.of(context), passed)])
    yield from ()


def test_the_storage_is_dagsters_own_and_tells_the_same(instance: dg.DagsterInstance, url: str) -> None:
    assert type(instance.event_log_storage) is PostgresEventLogStorage
    assert type(ReadyStorage(url, False).event_log_storage) is PostgresEventLogStorage
    instance.add_dynamic_partitions("videos", KEYS)
    assert PooledPostgresStorage(url).event_log_storage.get_dynamic_partitions("videos") == KEYS


def test_a_step_logs_what_it_has_made_observed_and_checked_one_by_one(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("videos", KEYS)
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    run = dg.materialize([made], instance=instance, tags=tags, selection=dg.AssetSelection.assets("video").without_checks())
    assert run.success
    assert instance.get_materialized_partitions(dg.AssetKey("video")) == set(KEYS)
    logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert [entry.get_dagster_event().partition for entry in logged] == KEYS
    assert len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)) == 1
    [checked] = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(dg.AssetKey("video"), "length"), 5)
    assert checked.status.value == "SUCCEEDED"


def test_what_is_reported_without_a_run_is_there(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("videos", KEYS)
    report_events(instance, [dg.AssetMaterialization("video", partition=key) for key in KEYS], stamps=Stamps())
    assert instance.get_materialized_partitions(dg.AssetKey("video")) == set(KEYS)


def test_open_backfills_are_found_among_all(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = private.BulkActionStatus
    ended = {status.value for status in private.BULK_ACTION_TERMINAL_STATUSES}
    assert set(ENDED_BACKFILLS) == ended
    every = [type("Backfill", (), {"status": status}) for status in statuses]
    monkeypatch.setattr(instance, "get_backfills", lambda: every)
    assert {backfill.status for backfill in open_backfills(instance)} == set(statuses) - set(private.BULK_ACTION_TERMINAL_STATUSES)


# --- runs


@pytest.fixture
def world(tmp_path: Path, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWorld]:
    with run_world(tmp_path, dagster_database_url, redis_url, monkeypatch) as running:
        yield running


def test_runs_are_carried_by_our_workers_and_cancelled_in_the_middle(world: RunWorld) -> None:
    world.start_workers(**OFF)
    run_id = world.launch()
    wait_for(lambda: world.fresh(run_id).is_finished, world.log)
    assert world.status(run_id) is DagsterRunStatus.SUCCESS
    assert world.marks(run_id, "done")
    waiting = world.launch("waiting_job")
    wait_for(lambda: world.marks(waiting, "begun"), world.log)
    assert world.instance.run_launcher.terminate(waiting)
    wait_for(lambda: world.fresh(waiting).is_finished, world.log)
    assert world.status(waiting) is DagsterRunStatus.CANCELED


# --- the daemon

LISTENING = """
import os, signal, time
from phantoms_dagster.execution import daemon
daemon.end_listening = lambda: print("told", flush=True)
signal.signal(signal.SIGTERM, lambda *_: None)  # whatever Dagster does with it
daemon.end_listening_on_signals()
print("ready", flush=True)
time.sleep(3600)
"""


def test_sensors_hear_of_the_end_of_a_daemon_that_does_not_know_them() -> None:
    process = subprocess.Popen([sys.executable, "-c", LISTENING], stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
    finally:
        process.kill()
        process.communicate()


def test_the_daemon_is_dagsters_own(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from phantoms_dagster.execution import daemon
from phantoms_dagster.private import dagster as private
private.command = lambda name, arguments: print(name, *arguments)
daemon.main()
from dagster._daemon import controller, sensor
print(sensor.MIN_INTERVAL_LOOP_TIME, controller.QueuedRunCoordinatorDaemon.__module__.partition(".")[0])
"""
    told = subprocess.run([sys.executable, "-c", code, "-m", "x"], capture_output=True, text=True, check=True, timeout=240)
    assert told.stdout.splitlines() == ["dagster-daemon run -m x", "5 dagster"]
