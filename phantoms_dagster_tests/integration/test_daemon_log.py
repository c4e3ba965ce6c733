"""What Dagster's daemon logs while a store is away: one plain line. Our own errors still have their traceback."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._daemon.utils import DaemonErrorCapture

from phantoms_dagster.execution.plain_errors import process_exception
from phantoms_dagster.execution.queue_looks import PromptQueueDaemon, any_queued, notifying_queued
from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster_tests.integration import run_definitions
from phantoms_dagster_tests.integration.run_world import RunWorld, run_world

PASSWORD = "half-of-it"


@pytest.fixture
def world(tmp_path: Path, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWorld]:
    with run_world(tmp_path, dagster_database_url, redis_url, monkeypatch) as running:
        launcher = running.instance.run_launcher
        monkeypatch.setitem(launcher.__dict__, "_queues", RunQueues(connect(f"redis://:{PASSWORD}@127.0.0.1:1/0")))
        monkeypatch.setattr(DaemonErrorCapture, "process_exception", staticmethod(process_exception))
        yield running


def test_a_run_that_redis_does_not_take_leaves_one_plain_line_and_no_traceback(
    world: RunWorld, caplog: pytest.LogCaptureFixture
) -> None:
    job = run_definitions.defs.get_job_def("quick_job")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), job.name)
    run_id = world.instance.create_run_for_job(job, remote_job_origin=origin, status=DagsterRunStatus.QUEUED).run_id
    daemon = PromptQueueDaemon(interval_seconds=1)
    settings = SimpleNamespace(run_queue_config=SimpleNamespace(max_user_code_failure_retries=0))
    with caplog.at_level(logging.INFO):
        daemon._dequeue_run(world.instance, None, world.fresh(run_id), settings, None)  # type: ignore[arg-type]
    assert world.status(run_id) is DagsterRunStatus.FAILURE  # Dagster's way; the sensor asks for its videos again
    [line] = [record for record in caplog.records if record.levelno >= logging.ERROR and "dequeuing" in record.getMessage()]
    assert line.exc_info is None
    assert "Redis does not answer" in line.getMessage()
    events = "\n".join(str(entry.dagster_event) for entry in world.instance.all_logs(run_id))
    assert "Traceback" not in events
    assert PASSWORD not in caplog.text + events
    assert "127.0.0.1:1" not in line.getMessage()


def test_a_run_that_this_process_queues_is_noticed_at_once_and_found_by_the_small_query(world: RunWorld) -> None:
    job = run_definitions.defs.get_job_def("quick_job")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), job.name)
    run = world.instance.create_run_for_job(job, remote_job_origin=origin, status=DagsterRunStatus.NOT_STARTED)
    told: list[bool] = []
    assert not any_queued(world.instance)
    with notifying_queued(lambda: told.append(any_queued(world.instance))):
        QueuedRunCoordinator.submit_run(_coordinator(world.instance), SubmitRunContext(run, None))  # type: ignore[arg-type]
    assert told == [True]  # a listener that hears of it finds it
    QueuedRunCoordinator.submit_run(_coordinator(world.instance), SubmitRunContext(run, None))  # type: ignore[arg-type]
    assert told == [True]


def _coordinator(instance: DagsterInstance) -> QueuedRunCoordinator:
    made = QueuedRunCoordinator()
    made.register_instance(instance)
    return made


def test_the_debug_information_of_a_lost_run_says_that_redis_is_away(world: RunWorld) -> None:
    told = world.instance.run_launcher.get_run_worker_debug_info(world.run())
    assert told is not None
    assert "Redis does not answer" in told


def test_an_error_that_is_not_from_a_store_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("ours")
    except KeyError:
        found = process_exception(sys.exc_info(), logging.getLogger("daemon"), "Caught an error")  # type: ignore[arg-type]
    assert found.stack
    assert caplog.records[-1].exc_info


@pytest.mark.usefixtures("fast_paths")
def test_the_daemon_starts_with_the_plain_lines() -> None:
    code = """
from phantoms_dagster.execution import daemon
from phantoms_dagster.private import dagster as private
private.command = lambda *_: None
daemon.main()
from dagster._daemon.utils import DaemonErrorCapture
print(DaemonErrorCapture.process_exception.__module__)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.strip() == "phantoms_dagster.execution.plain_errors"
