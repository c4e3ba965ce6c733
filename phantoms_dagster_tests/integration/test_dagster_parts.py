"""Our replacements for parts of Dagster still fit the installed Dagster and do what the originals do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import dagster._daemon.asset_daemon
import dagster._daemon.controller
import dagster._daemon.sensor
import dagster._grpc.server_watcher
import pytest
from dagster._core.scheduler.instigation import SensorInstigatorData, TickStatus
from dagster._core.storage.schedules.migration import SCHEDULE_JOBS_SELECTOR_ID
from dagster._daemon.daemon import IntervalDaemon
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from sqlalchemy import event as event_of

from phantoms_dagster.defs.dispatch import RELEASE_INTERVAL_SECONDS
from phantoms_dagster.defs.sensors import advance_sensor, intake_sensor, release_sensor
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.execution import daemon, quick_daemon
from phantoms_dagster.execution.home import POOLS_FILE, prepare
from phantoms_dagster.execution.queue_looks import CalmMonitoringDaemon, PromptQueueDaemon
from phantoms_dagster.execution.quick_daemon import INTERVAL_TAG, is_under_min_interval
from phantoms_dagster.execution.slots import QUEUES, pool_limits
from phantoms_dagster.execution.storage import PooledPostgresStorage
from phantoms_dagster.execution.worker import niceness
from phantoms_dagster.private import dagster as private
from phantoms_dagster.settings import Settings

CAPTURE = """
import logging, os, sys
from phantoms_dagster.execution.compute_logs import FileComputeLogManager
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import logs
logs.configure(Settings())
manager = FileComputeLogManager.from_config_value(None, {})
with manager.capture_logs(["run", "compute_logs", "step"]):
    print("printed")
    os.system("echo by a child; echo an error of it >&2")
    logging.getLogger("phantoms_dagster").warning("a line of ours")
print("afterwards")
"""


def test_the_daemon_has_the_interval_that_ours_sets() -> None:
    assert dagster._daemon.sensor.MIN_INTERVAL_LOOP_TIME == 5


def test_a_sensor_that_asks_for_it_is_asked_again_before_a_second_is_over() -> None:
    def too_soon(sensor: dg.SensorDefinition, seconds: float) -> bool:
        data = SensorInstigatorData(last_tick_start_timestamp=time.time() - seconds)
        state = SimpleNamespace(instigator_data=data)
        remote = SimpleNamespace(tags=sensor.tags, min_interval_seconds=sensor.minimum_interval_seconds)
        return is_under_min_interval(cast("Any", state), cast("Any", remote))

    assert release_sensor.tags[INTERVAL_TAG] == str(RELEASE_INTERVAL_SECONDS)
    assert too_soon(release_sensor, 0.1)
    assert not too_soon(release_sensor, 0.5)
    assert too_soon(advance_sensor, 0.5)
    assert not too_soon(advance_sensor, 1.1)
    assert too_soon(intake_sensor, 4)


def test_the_daemon_asks_by_the_function_that_ours_replaces() -> None:
    for asks in (dagster._daemon.sensor.execute_sensor_iteration, dagster._daemon.sensor._process_tick_generator):
        assert "is_under_min_interval" in asks.__code__.co_names


@pytest.mark.usefixtures("fast_paths")
def test_the_daemon_runs_with_our_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    # What `main` replaces is put back after this test.
    for module, name in (
        (dagster._daemon.sensor, "is_under_min_interval"),
        (dagster._daemon.sensor, "MIN_INTERVAL_LOOP_TIME"),
        (dagster._daemon.controller, "QueuedRunCoordinatorDaemon"),
        (dagster._daemon.controller, "MonitoringDaemon"),
        (dagster._daemon.controller, "RELOAD_WORKSPACE_INTERVAL"),
        (dagster._daemon.controller, "DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE"),
        (dagster._daemon.asset_daemon, "MIN_INTERVAL_LOOP_SECONDS"),
        (dagster._daemon.sensor, "execute_sensor_iteration"),
        (dagster._grpc.server_watcher, "WATCH_INTERVAL"),
        (dg.DagsterInstance, "purge_ticks"),
        (PromptQueueDaemon, "ended"),
        (IntervalDaemon, "core_loop"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(private, "command", lambda name, arguments: asked.append([name, *arguments]))
    monkeypatch.setattr("sys.argv", ["daemon", "-w", "workspace.yaml"])
    daemon.main()
    assert asked == [["dagster-daemon", "run", "-w", "workspace.yaml"]]
    assert dagster._daemon.sensor.is_under_min_interval is is_under_min_interval
    assert dagster._daemon.sensor.MIN_INTERVAL_LOOP_TIME == quick_daemon.LOOP_SECONDS
    assert vars(dagster._daemon.controller)["QueuedRunCoordinatorDaemon"] is PromptQueueDaemon
    assert PromptQueueDaemon.ended is daemon.end_listening
    assert vars(dagster._daemon.controller)["MonitoringDaemon"] is CalmMonitoringDaemon
    assert IntervalDaemon.core_loop.__name__ == "calm_loop"
    # A daemon whose definitions are older than the tolerance ends: one reading that fails may not be enough for that.
    controller = dagster._daemon.controller
    assert controller.RELOAD_WORKSPACE_INTERVAL * 1.5 < controller.DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE
    assert dagster._grpc.server_watcher.WATCH_INTERVAL == quick_daemon.WATCH_SECONDS


def test_old_ticks_of_a_sensor_are_deleted_now_and_then_and_not_after_each_tick() -> None:
    purged: list[tuple[Any, ...]] = []
    now = [0.0]
    purge = quick_daemon.purging_at_intervals(lambda *given: purged.append(given[1:]), clock=lambda: now[0])
    instance: Any = object()
    for now[0] in (0.0, 30.0, 60.0):
        for days, status in ((14, TickStatus.SUCCESS), (2, TickStatus.SKIPPED)):
            purge(instance, "origin", selector_id="advance", before=-86_400.0 * days, tick_statuses=[status])
    purge(instance, "other", selector_id="release", before=0.0, tick_statuses=[TickStatus.SKIPPED])
    assert [(which, status[0]) for _, which, _, status in purged] == [
        ("advance", TickStatus.SUCCESS),
        ("advance", TickStatus.SKIPPED),
        ("release", TickStatus.SKIPPED),
    ]
    now[0] = quick_daemon.PURGE_SECONDS
    purge(instance, "origin", selector_id="advance", before=0.0, tick_statuses=[TickStatus.SKIPPED])
    assert len(purged) == 4


def test_ticks_that_found_nothing_are_kept_for_an_hour_and_others_for_the_time_that_dagster_is_configured_with() -> None:
    """They were kept for two days: 33,000 lines of an idle stack."""
    kept: dict[str, float] = {}
    purge = quick_daemon.purging_at_intervals(lambda *given: kept.update({given[4][0].value: 1e9 - given[3]}), wall=lambda: 1e9)
    for days, status in ((14, TickStatus.SUCCESS), (2, TickStatus.SKIPPED), (30, TickStatus.FAILURE)):
        purge(cast("Any", object()), "origin", "advance", 1e9 - days * 86_400.0, tick_statuses=[status])
    assert kept == {"SUCCESS": 14 * 86_400.0, "SKIPPED": quick_daemon.IDLE_TICK_SECONDS, "FAILURE": 30 * 86_400.0}


def test_the_daemon_looks_at_the_run_queue_as_our_pace_says_and_cheaply_until_it_is_shut_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dagster._daemon.controller, "QueuedRunCoordinatorDaemon", PromptQueueDaemon)
    instance: Any = SimpleNamespace(run_coordinator=SimpleNamespace(dequeue_interval_seconds=1))
    queue_daemon = dagster._daemon.controller.create_daemon_of_type(QueuedRunCoordinatorDaemon.daemon_type(), instance)
    assert isinstance(queue_daemon, PromptQueueDaemon)
    told: list[str] = []
    queued = iter([False, True, False])
    shutdown = threading.Event()

    def look(_: object) -> Iterator[None]:
        told.append("look")
        yield None

    def wait(looked: float, outcome: threading.Event) -> bool:
        told.append("wait")
        if told.count("wait") == 3:
            outcome.set()
        return outcome.is_set()

    monkeypatch.setattr("phantoms_dagster.execution.queue_looks.any_queued", lambda _: next(queued))
    monkeypatch.setattr(queue_daemon, "run_iteration", look)
    monkeypatch.setattr(queue_daemon.pace, "wait", wait)
    monkeypatch.setattr(queue_daemon, "ended", lambda: told.append("ended"))
    turns = queue_daemon.core_loop(SimpleNamespace(instance=instance), shutdown)
    while not shutdown.is_set():
        next(turns)
    turns.close()
    assert told == ["wait", "look", "wait", "wait", "ended"]


class Noted(threading.Event):
    """An event that notes how long each caller would wait for it, and is set at the third wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == 3:
            self.set()
        return self.is_set()


def test_a_daemon_that_looks_now_and_then_sleeps_in_between_and_still_tells_that_it_lives() -> None:
    """Two of them woke up twice a second, all day long."""

    class Looks(IntervalDaemon[Any]):
        looks = 0

        @classmethod
        def daemon_type(cls) -> str:
            return "LOOKS"

        def run_iteration(self, workspace_process_context: Any) -> Generator[None, None, None]:
            self.looks += 1
            yield

    daemon, outcome = Looks(interval_seconds=3_600), Noted()
    told = 0
    for _ in quick_daemon.with_longer_waits(IntervalDaemon.core_loop)(daemon, None, outcome):
        told += 1
        if outcome.is_set():
            break
    assert (daemon.looks, outcome.waits) == (1, [quick_daemon.CALM_SECONDS] * 3)
    assert told > 3


@pytest.mark.usefixtures("fast_paths")
def test_what_our_storage_takes_for_granted_is_what_dagsters_own_finds(empty_database_url: str) -> None:
    url = empty_database_url.replace("postgresql+psycopg://", "postgresql+psycopg2://")
    storage = PooledPostgresStorage(url)
    run, event, schedule = storage.run_storage, storage.event_log_storage, storage.schedule_storage
    assert isinstance(run, PostgresRunStorage)
    assert isinstance(event, PostgresEventLogStorage)
    assert isinstance(schedule, PostgresScheduleStorage)
    for stock, ours, names in (
        (
            PostgresRunStorage,
            run,
            (
                "has_run_stats_index_cols",
                "has_bulk_actions_selector_cols",
                "has_backfill_id_column",
                "has_bulk_action_job_name_column",
                "has_backfill_tags_table",
            ),
        ),
        (PostgresScheduleStorage, schedule, ("has_instigators_table", "has_secondary_index_table")),
    ):
        for name in names:
            assert getattr(stock, name)(ours) is True, name
            assert getattr(ours, name)() is True, name
    for table in ("event_logs", "asset_keys", "dynamic_partitions", "concurrency_limits", "concurrency_slots", "pending_steps"):
        assert PostgresEventLogStorage.has_table(event, table)
        assert event.has_table(table)
    assert not event.has_table("no such table")
    assert event.has_asset_key_index_cols()
    built = SCHEDULE_JOBS_SELECTOR_ID
    assert not schedule.has_built_index("no such index")
    assert (PostgresScheduleStorage.has_built_index(schedule, built), schedule.has_built_index(built)) == (True, True)
    statements: list[str] = []
    event_of.listen(schedule._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert schedule.has_built_index(built)
    assert statements == []
    assert run._engine is event._engine is schedule._engine
    run._engine.dispose()


@pytest.mark.usefixtures("fast_paths")  # Dagster's own manager copies the files to the console, too
def test_what_a_step_prints_goes_into_its_files_and_our_lines_to_the_console_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CAPTURE],
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "PHANTOMS_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    out, err = (next(tmp_path.rglob(f"*.{kind}")).read_text() for kind in ("out", "err"))
    assert sorted(out.split("\n")) == sorted(["printed", "by a child", ""])
    assert "an error of it" in err
    assert "a line of ours" in err
    assert next(tmp_path.rglob("*.complete"))
    assert done.stdout == "afterwards\n"
    [line] = done.stderr.splitlines()
    assert json.loads(line)["message"] == "a line of ours"


# --- pools


def test_a_pool_lets_through_as_many_runs_as_there_are_workers_for_them(tmp_path: Path) -> None:
    settings = Settings(paths={"home": tmp_path}, workers={"slots": {"script": 3, "default": 2, "make": 1, "youtube_variant": 2}})
    limits = pool_limits(settings)
    assert limits["script"] == 3 + 1 + 2
    assert limits["variant"] == 2 + 1 + 1 + 3 * 1 + 2
    assert limits["analytics"] == 1
    assert set(limits) == {"analytics", *(stage.pool for stage in STAGES.values())}
    assert json.loads((prepare(tmp_path, settings) / POOLS_FILE).read_text()) == limits


def test_a_limit_that_is_set_holds_and_one_of_no_pool_is_refused() -> None:
    assert pool_limits(Settings(dagster={"pools": {"render": 1}}))["render"] == 1
    with pytest.raises(InvalidInput, match="unknown pool 'redner'; the pools are analytics, script"):
        pool_limits(Settings(dagster={"pools": {"redner": 1}}))


def test_workers_that_make_videos_stand_back_for_those_that_publish_them_and_all_for_the_daemon() -> None:
    least = min(niceness(queue) for queue in QUEUES)
    assert least > 0
    assert {queue for queue in QUEUES if niceness(queue) > least} == {"make", "script", "voiceover", "rendered_video"}


OPENING = """
import sys
from phantoms_dagster.execution.storage import PooledPostgresStorage
print("ready", flush=True)
sys.stdin.readline()
PooledPostgresStorage(sys.argv[1])
"""


def test_processes_that_open_an_empty_instance_at_once_create_its_tables_one_after_the_other(empty_database_url: str) -> None:
    url = empty_database_url.replace("postgresql+psycopg://", "postgresql+psycopg2://")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENING, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
