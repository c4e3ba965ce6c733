"""Run workers as real processes: they carry out runs, die, are replaced, stop, and load new code. No run is carried out twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from dagster import DagsterRunStatus
from typer.testing import CliRunner, Result

from phantoms_dagster.cli import worker as worker_command
from phantoms_dagster.execution.slots import job_of
from phantoms_dagster_tests.integration.run_world import MODULE, RunWorld, run_world, wait_for

Gone = Callable[[int], bool]
# By default a connection of redis-py gives up after this time.
REDIS_PATIENCE_SECONDS = 5


@pytest.fixture
def world(tmp_path: Path, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWorld]:
    with run_world(tmp_path, dagster_database_url, redis_url, monkeypatch) as running:
        yield running


def children(pid: int) -> list[int]:
    """The processes that `pid` has forked."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def worker_of(horse: int) -> int:
    """The worker whose work-horse that is."""
    status = Path(f"/proc/{horse}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])


def begun(world: RunWorld, run_id: str, times: int = 1) -> int:
    """The work-horse of a run, once the run's step has begun so often."""
    wait_for(lambda: len(world.marks(run_id, "begun")) >= times, world.log)
    return world.marks(run_id, "begun")[-1]


def ends_well(world: RunWorld, run_id: str) -> None:
    """Let the run end, and see that it did, once."""
    world.let_go()
    world.monitored_until(run_id, lambda: world.status(run_id) is DagsterRunStatus.SUCCESS)
    assert len(world.marks(run_id, "done")) == 1


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_runs_are_carried_out_one_after_the_other_each_in_a_process_of_its_own(world: RunWorld) -> None:
    parent = world.start_workers("script=1")
    runs = [world.launch() for _ in range(3)]
    wait_for(lambda: all(world.status(r) is DagsterRunStatus.SUCCESS for r in runs), world.log)
    horses = [horse for run in runs for horse in world.marks(run, "done")]
    assert len(set(horses)) == 3
    _, worker = children(parent.pid)
    # Forking a process with threads could copy a lock that is held.
    assert (threads(parent.pid), threads(worker)) == (1, 1)
    assert world.queues.queue("script").get_job_ids() == []
    wait_for(lambda: not world.queues.carried("script"), world.log)


def test_a_worker_takes_runs_of_its_own_queue_alone(world: RunWorld) -> None:
    world.start_workers("script=1,voiceover=1")
    waiting = world.launch("waiting_job")
    begun(world, waiting)
    behind = world.launch()
    other = world.launch(tags={"phantoms/stage": "voiceover"})
    wait_for(lambda: world.status(other) is DagsterRunStatus.SUCCESS, world.log)
    assert world.status(behind) is DagsterRunStatus.STARTING
    ends_well(world, waiting)
    wait_for(lambda: world.status(behind) is DagsterRunStatus.SUCCESS, world.log)


def test_a_terminated_run_is_canceled_and_its_worker_takes_the_next(world: RunWorld) -> None:
    world.start_workers()
    run_id = world.launch("waiting_job")
    begun(world, run_id)
    assert world.instance.run_launcher.terminate(run_id)
    wait_for(lambda: world.status(run_id) is DagsterRunStatus.CANCELED, world.log)
    assert world.marks(run_id, "done") == []
    following = world.launch()
    wait_for(lambda: world.status(following) is DagsterRunStatus.SUCCESS, world.log)


def test_a_run_whose_work_horse_is_killed_is_resumed(world: RunWorld, gone: Gone) -> None:
    world.start_workers()
    run_id = world.launch("waiting_job")
    horse = begun(world, run_id)
    os.kill(horse, signal.SIGKILL)
    assert gone(horse)
    world.monitored_until(run_id, lambda: len(world.marks(run_id, "begun")) == 2)
    ends_well(world, run_id)


def test_a_killed_worker_takes_its_work_horse_along_is_replaced_and_its_run_resumed(world: RunWorld, gone: Gone) -> None:
    world.start_workers()
    run_id = world.launch("waiting_job")
    horse = begun(world, run_id)
    os.kill(worker_of(horse), signal.SIGKILL)
    assert gone(horse)
    world.monitored_until(run_id, lambda: len(world.marks(run_id, "begun")) == 2)
    ends_well(world, run_id)


def test_a_killed_parent_takes_all_along_and_the_next_one_resumes_the_run(world: RunWorld, gone: Gone) -> None:
    first = world.start_workers()
    run_id = world.launch("waiting_job")
    horse = begun(world, run_id)
    family = children(first.pid)
    first.kill()
    first.wait(30)
    assert all(gone(pid) for pid in [*family, horse])
    world.start_workers()
    world.monitored_until(run_id, lambda: len(world.marks(run_id, "begun")) == 2)
    ends_well(world, run_id)


def test_a_worker_that_comes_back_from_a_stall_stops_what_another_has_taken_over(world: RunWorld, gone: Gone) -> None:
    """kill -STOP: the lease runs out, another worker resumes the run, then the stalled worker continues."""
    world.start_workers("script=2")
    run_id = world.launch("waiting_job")
    horse = begun(world, run_id)
    stalled = worker_of(horse)
    os.kill(stalled, signal.SIGSTOP)
    world.monitored_until(run_id, lambda: len(world.marks(run_id, "begun")) == 2)
    os.kill(stalled, signal.SIGCONT)
    assert gone(horse)
    ends_well(world, run_id)


def test_a_stopped_parent_lets_its_runs_finish_within_the_grace_period(world: RunWorld) -> None:
    parent = world.start_workers(PHANTOMS_WORKER_GRACE_SECONDS="60")
    run_id = world.launch("waiting_job")
    begun(world, run_id)
    behind = world.launch()
    parent.terminate()
    wait_for(lambda: world.queues.redis.hget(f"rq:worker:{_carrier(world, run_id)}", "state") == b"busy", world.log)
    world.let_go()
    assert parent.wait(60) == 0
    assert world.status(run_id) is DagsterRunStatus.SUCCESS
    assert world.status(behind) is DagsterRunStatus.STARTING
    assert world.queues.alive("script") == 0


def _carrier(world: RunWorld, run_id: str) -> str:
    job = world.queues.job(job_of(run_id, world.fresh(run_id).tags))
    assert job is not None
    return str(job.worker_name)


def test_a_run_that_takes_longer_than_the_grace_period_is_handed_back_and_resumed(world: RunWorld, gone: Gone) -> None:
    parent = world.start_workers()
    run_id = world.launch("waiting_job")
    horse = begun(world, run_id)
    parent.terminate()
    assert parent.wait(60) == 0
    assert gone(horse)
    assert world.status(run_id) is DagsterRunStatus.STARTED
    world.start_workers()
    world.monitored_until(run_id, lambda: len(world.marks(run_id, "begun")) == 2)
    ends_well(world, run_id)


def test_on_sighup_the_new_code_is_loaded_while_the_current_run_continues_with_the_old(world: RunWorld) -> None:
    parent = world.start_workers("script=1,voiceover=1")
    before = set(children(parent.pid))
    run_id = world.launch("waiting_job")
    horse = begun(world, run_id)
    parent.send_signal(signal.SIGHUP)
    wait_for(lambda: len(set(children(parent.pid)) - before) == 2, world.log)
    busy = worker_of(horse)
    assert before & set(children(parent.pid)) == {busy}
    assert parent.poll() is None
    ends_well(world, run_id)
    assert world.marks(run_id, "done") == [horse]
    wait_for(lambda: len(set(children(parent.pid)) - before) == 3, world.log)
    following = world.launch()
    wait_for(lambda: world.status(following) is DagsterRunStatus.SUCCESS, world.log)


def test_code_that_cannot_be_loaded_is_refused_and_the_old_goes_on(world: RunWorld) -> None:
    module = world.folder / "fragile.py"
    module.write_text(f"from {MODULE} import defs\n", encoding="utf-8")
    world.environment["PYTHONPATH"] = os.pathsep.join([str(world.folder), *sys.path])
    command = [sys.executable, "-m", "phantoms_dagster.execution.worker", "--queues", "script=1", "--module", "fragile"]
    with (world.folder / "workers.log").open("ab") as out:
        parent = subprocess.Popen(
            command, env=world.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    world.started.append(parent)
    wait_for(lambda: world.queues.alive("script"), world.log)
    before = children(parent.pid)
    module.write_text("defs = nonsense\n", encoding="utf-8")
    parent.send_signal(signal.SIGHUP)
    wait_for(lambda: "name 'nonsense' is not defined" in world.log(), world.log)
    assert children(parent.pid) == before


def test_a_worker_that_ends_again_and_again_is_started_again_more_and_more_slowly(world: RunWorld) -> None:
    parent = world.start_workers()
    for _ in range(3):
        [_, worker] = sorted(children(parent.pid))
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda old=worker: [p for p in children(parent.pid) if p > old], world.log)  # type: ignore[misc]
    run_id = world.launch()
    wait_for(lambda: world.status(run_id) is DagsterRunStatus.SUCCESS, world.log)


def test_a_queue_that_does_not_exist_is_refused_with_a_sentence(world: RunWorld) -> None:
    command = [sys.executable, "-m", "phantoms_dagster.execution.worker", "--queues", "scirpt=1", "--module", MODULE]
    done = subprocess.run(command, env=world.environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "unknown queue 'scirpt'; the queues are default, make, release, script" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------ the command


@pytest.fixture
def command(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., Result], list[list[str]]]:
    """`phantoms worker`, and the programs that it became."""
    app = typer.Typer()
    worker_command.register(app)
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: became.append(arguments))
    return lambda *arguments, **environment: CliRunner().invoke(app, arguments, env=environment), became


def test_the_command_becomes_the_parent_of_workers_with_its_queues(
    world: RunWorld, command: tuple[Callable[..., Result], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, became = command
    monkeypatch.delenv("DAGSTER_HOME")
    result = run("--queues", "script=2,rendered_video=1", DAGSTER_EVENT_BATCH_SIZE="500")
    assert result.exit_code == 0, result.output
    assert "workers: script=2, rendered_video=1" in result.output
    assert became == [[sys.executable, "-P", "-m", "phantoms_dagster.execution.worker", "--queues", "script=2,rendered_video=1"]]
    assert os.environ["DAGSTER_HOME"] == str(world.folder / "dagster")


def test_the_commands_help_teaches_queues_scaling_and_stopping(command: tuple[Callable[..., Result], list[list[str]]]) -> None:
    text = command[0]("--help", COLUMNS="200").output
    for word in ("script=2,rendered_video=1", "PHANTOMS_REDIS_URL", "youtube_post", "handed back", "kill -HUP"):
        assert word in text


def test_the_command_refuses_a_queue_that_is_none_and_a_machine_without_redis(
    command: tuple[Callable[..., Result], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, became = command
    assert run("--queues", "scirpt=1").exit_code == 2
    monkeypatch.delenv("PHANTOMS_REDIS_URL")
    refused = run()
    assert refused.exit_code == 2
    assert became == []


def test_a_worker_that_waits_long_for_a_run_keeps_its_connection_and_takes_it_at_once(world: RunWorld) -> None:
    """A connection that gives up before the wait does costs a pause of seconds each time, and a run that comes then waits, too."""
    world.start_workers("script=1", PHANTOMS_WORKER_LEASE_SECONDS="30")
    wait_for(lambda: world.queues.alive("script") == 1, world.log)
    time.sleep(REDIS_PATIENCE_SECONDS + 2)
    run_id = world.launch()
    wait_for(lambda: world.status(run_id) is DagsterRunStatus.SUCCESS, world.log)
    assert "Redis" not in world.log()
