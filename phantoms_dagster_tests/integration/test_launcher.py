"""The run launcher and the reaper against a real Redis and Dagster's real tables. No worker process runs here."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterRun, DagsterRunStatus
from dagster._core.launcher.base import ResumeRunContext, WorkerStatus
from redis import Redis
from redis.client import Pipeline
from rq.job import JobStatus

from phantoms_dagster.defs import tags
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import CHAINS, STAGES
from phantoms_dagster.execution import launcher as launcher_module
from phantoms_dagster.execution import queues as queues_module
from phantoms_dagster.execution import reaper as reaper_module
from phantoms_dagster.execution.reaper import Reaper
from phantoms_dagster.execution.run_worker import RunWorker
from phantoms_dagster.execution.slots import (
    CHAIN_TAG,
    JOB_TAG,
    QUEUES,
    STAGE_TAG,
    job_of,
    queue_of,
    slots_of,
    tags_of_assets,
    tags_of_partitions,
)
from phantoms_dagster.settings import Settings
from phantoms_dagster_tests.integration.run_world import RunWorld, run_world


@pytest.fixture
def world(tmp_path: Path, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWorld]:
    monkeypatch.setattr(launcher_module, "REDIS_WARMUP_SECONDS", 0)
    with run_world(tmp_path, dagster_database_url, redis_url, monkeypatch) as running:
        yield running


@pytest.fixture
def worker(world: RunWorld) -> Iterator[RunWorker]:
    """A worker of the queue `script`, in this process. It takes jobs when the test says so."""
    with Redis.from_url(world.redis_url) as connection:
        found = RunWorker("script", 1, connection=connection, lease_seconds=6, grace_seconds=1)
        found.register_birth()  # type: ignore[no-untyped-call]
        yield found


class Time:
    """A clock that is put forward by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def reaper(world: RunWorld, time: Time) -> Reaper:
    return Reaper(world.instance, world.queues, lease_seconds=6, clock=time)


def carry(worker: RunWorker) -> str:
    """Let the worker take the next job and begin it; the job's id."""
    taken = worker.dequeue_job_and_maintain_ttl(1)
    assert taken is not None
    worker.prepare_execution(taken[0])
    worker.prepare_job_execution(taken[0], remove_from_intermediate_queue=True)
    return taken[0].id


def lose(worker: RunWorker) -> None:
    """The end of a worker's lease."""
    worker.connection.delete(worker.key)


def status_of(world: RunWorld, job_id: str) -> JobStatus | None:
    job = world.queues.job(job_id)
    return None if job is None else job.get_status()


def job_id_of(world: RunWorld, run_id: str) -> str:
    found = job_of(run_id, world.fresh(run_id).tags)
    assert found is not None
    return found


def starting(world: RunWorld, run_id: str) -> None:
    assert world.status(run_id) is DagsterRunStatus.STARTING


def mark_started(world: RunWorld, run_id: str) -> None:
    """As a work-horse does when it begins."""
    record = world.fresh(run_id)
    from dagster._core.events import DagsterEvent, DagsterEventType  # noqa: PLC0415 - only here

    world.instance.report_dagster_event(DagsterEvent(DagsterEventType.RUN_START.value, record.job_name), run_id=run_id)
    assert world.status(run_id) is DagsterRunStatus.STARTED


# ------------------------------------------------------------------ queues


def test_every_stage_has_a_queue_whose_name_rq_accepts() -> None:
    assert set(QUEUES) == {"default", *CHAINS, *(stage.slug for stage in STAGES.values() if stage.usual)}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in QUEUES)
    assert STAGE_TAG == tags.STAGE


@pytest.mark.parametrize(
    ("stage", "queue"), [("youtube/post", "youtube_post"), ("script", "script"), ("analytics", "default"), ("", "default")]
)
def test_a_run_goes_into_the_queue_of_its_stage_and_into_default_without_one(stage: str, queue: str) -> None:
    assert queue_of({STAGE_TAG: stage} if stage else {}) == queue


@pytest.mark.parametrize(
    ("assets", "tag"),
    [
        (["script"], {STAGE_TAG: "script"}),
        (["youtube_post"], {STAGE_TAG: "youtube/post"}),
        (["script", "voiceover"], {CHAIN_TAG: "make"}),
        (["approval", "tiktok_post"], {CHAIN_TAG: "release"}),
        (["rendered_video", "approval"], {}),
        (["script", "video_performance"], {}),
        ([], {}),
    ],
)
def test_a_selection_of_assets_belongs_to_its_stage_or_to_the_chain_that_has_all_of_them(
    assets: list[str], tag: dict[str, str]
) -> None:
    assert tags_of_assets(assets) == tag


def test_a_run_of_a_backfill_goes_to_the_workers_of_its_stage_and_says_so(world: RunWorld) -> None:
    """It came without a tag, so it went into `default`, however many workers its stage had."""
    run = world.instance.add_run(
        DagsterRun(
            job_name="__ASSET_JOB",
            run_id=str(uuid.uuid4()),
            status=DagsterRunStatus.NOT_STARTED,
            asset_selection=frozenset({AssetKey("rendered_video")}),
            tags={tags.BACKFILL: "abcdefgh", tags.PARTITION: "a"},
        )
    )
    world.instance.launch_run(run.run_id, None)  # type: ignore[arg-type]
    assert len(world.queues.queue("rendered_video").get_job_ids()) == 1
    told = world.fresh(run.run_id).tags
    assert (told[STAGE_TAG], told[tags.VIDEO]) == ("rendered_video", "a")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({tags.PARTITION: "a"}, {tags.VIDEO: "a"}),
        ({tags.RANGE_START: "a", tags.RANGE_END: "a"}, {tags.VIDEO: "a"}),
        ({tags.RANGE_START: "a", tags.RANGE_END: "c"}, {tags.VIDEOS: "a .. c"}),
        ({tags.PARTITION: "a", tags.VIDEO: "a"}, {}),
        ({tags.RANGE_START: "a", tags.RANGE_END: "c", tags.VIDEOS: "3"}, {}),
        ({}, {}),
    ],
)
def test_a_run_without_a_named_video_is_named_after_its_partitions(given: dict[str, str], told: dict[str, str]) -> None:
    assert tags_of_partitions(given) == told


def test_slots_are_one_of_each_queue_but_for_what_the_settings_say_and_exactly_those_of_the_command_line() -> None:
    found = slots_of(Settings(workers={"slots": {"rendered_video": 2, "default": 0}}))
    assert found == {name: 1 for name in QUEUES if name != "default"} | {"rendered_video": 2}
    assert slots_of(Settings(), "script=2, rendered_video") == {"script": 2, "rendered_video": 1}


@pytest.mark.parametrize(
    ("given", "says"), [("scirpt=1", "the queues are default"), ("script=x", "script=2"), ("script=0", "at least")]
)
def test_slots_that_cannot_be_are_refused_with_the_names_there_are(given: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        slots_of(Settings(), given)


# ------------------------------------------------------------------ launching


def test_a_launched_run_waits_in_its_queue_and_names_the_job_that_carries_it(world: RunWorld) -> None:
    run_id = world.launch()
    job_id = job_id_of(world, run_id)
    assert world.queues.queue("script").get_job_ids() == [job_id]
    assert re.fullmatch(r"[A-Za-z0-9_-]+", job_id)
    starting(world, run_id)


def test_without_a_worker_the_runs_log_says_so_and_how_to_start_one(world: RunWorld) -> None:
    run_id = world.launch()
    assert any(
        "No worker listens on queue script" in m and "phantoms worker --queues script=1" in m for m in world.messages(run_id)
    )


def test_with_a_worker_the_runs_log_says_nothing_of_it(world: RunWorld, worker: RunWorker) -> None:
    assert not any("No worker" in message for message in world.messages(world.launch()))


def test_a_worker_whose_lease_is_over_or_that_has_left_does_not_count(world: RunWorld, worker: RunWorker) -> None:
    assert world.queues.alive("script") == 1
    worker.register_death()  # type: ignore[no-untyped-call]
    assert world.queues.alive("script") == 0
    worker.register_birth()  # type: ignore[no-untyped-call]
    lose(worker)
    assert world.queues.alive("script") == 0
    assert "0 workers" in str(world.instance.run_launcher.get_run_worker_debug_info(world.run()))


def test_a_worker_that_redis_has_forgotten_reports_itself_again(world: RunWorld, worker: RunWorker) -> None:
    world.queues.redis.flushdb()
    assert world.queues.alive("script") == 0
    worker.heartbeat()
    assert world.queues.alive("script") == 1


def test_a_worker_whose_process_has_ended_does_not_count_although_its_lease_is_good(
    world: RunWorld, worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr("phantoms_dagster.execution.queues.os.getpid", lambda: child.pid)
    worker.name = queues_module.worker_name("script", 7)
    monkeypatch.undo()
    worker.register_birth()  # type: ignore[no-untyped-call]
    assert world.queues.is_alive(worker.name)
    child.kill()
    child.wait()
    assert not world.queues.is_alive(worker.name)


# ------------------------------------------------------------------ health and resumption


def test_a_run_is_healthy_while_it_waits_and_while_its_worker_lives_and_no_longer(world: RunWorld, worker: RunWorker) -> None:
    launcher = world.instance.run_launcher
    run = world.fresh(world.launch())
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    carry(worker)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    lose(worker)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND


def test_an_unknown_run_is_not_found(world: RunWorld) -> None:
    run = world.fresh(world.launch())
    world.queues.redis.flushdb()
    assert world.instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND


def test_runs_are_given_time_when_redis_has_just_come_back(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "REDIS_WARMUP_SECONDS", 10**9)
    run = world.fresh(world.launch())
    world.queues.redis.flushdb()
    assert world.instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_a_resumed_run_has_a_new_job_and_the_old_one_is_asked_to_stop(world: RunWorld, worker: RunWorker) -> None:
    run_id = world.launch()
    first = carry(worker)
    world.instance.run_launcher.resume_run(ResumeRunContext(world.fresh(run_id), None, 1))
    second = job_id_of(world, run_id)
    assert second != first
    assert world.queues.queue("script").get_job_ids() == [second]
    assert world.queues.stop_asked(first) == "superseded"
    assert world.queues.stop_asked(second) is None


def test_a_run_made_from_another_is_not_taken_for_that_one(world: RunWorld) -> None:
    first = world.launch()
    again = world.run(tags={JOB_TAG: job_id_of(world, first)})
    assert job_of(again.run_id, again.tags) is None
    assert world.instance.run_launcher.check_run_worker_health(again).status is WorkerStatus.NOT_FOUND


def test_a_job_is_carried_out_once_however_often_it_is_delivered(world: RunWorld) -> None:
    assert world.queues.take("a-1")
    assert not world.queues.take("a-1")
    assert world.queues.take("a-2")


# ------------------------------------------------------------------ cancelling


def test_a_run_that_waits_is_cancelled_at_once(world: RunWorld, worker: RunWorker) -> None:
    run_id = world.launch()
    assert world.instance.run_launcher.terminate(run_id)
    assert world.status(run_id) is DagsterRunStatus.CANCELED
    assert world.queues.queue("script").get_job_ids() == []


def test_a_run_whose_worker_is_gone_is_cancelled_at_once(world: RunWorld, worker: RunWorker) -> None:
    run_id = world.launch()
    carry(worker)
    lose(worker)
    assert world.instance.run_launcher.terminate(run_id)
    assert world.status(run_id) is DagsterRunStatus.CANCELED


def test_a_run_that_is_carried_is_left_to_its_worker_to_cancel(world: RunWorld, worker: RunWorker) -> None:
    run_id = world.launch()
    job_id = carry(worker)
    assert world.instance.run_launcher.terminate(run_id)
    assert world.status(run_id) is DagsterRunStatus.CANCELING
    assert world.queues.stop_asked(job_id) == "cancel"


def test_an_ended_run_cannot_be_cancelled(world: RunWorld) -> None:
    run_id = world.launch()
    world.instance.report_run_failed(world.fresh(run_id))
    assert not world.instance.run_launcher.terminate(run_id)


# ------------------------------------------------------------------ the reaper


def test_the_job_of_a_dead_worker_is_written_off_so_that_monitoring_resumes_its_run(
    world: RunWorld, worker: RunWorker, reaper: Reaper
) -> None:
    run_id = world.launch()
    job_id = carry(worker)
    mark_started(world, run_id)
    reaper.sweep()
    assert status_of(world, job_id) == JobStatus.STARTED
    lose(worker)
    reaper.sweep()
    assert status_of(world, job_id) == JobStatus.FAILED
    world.monitor(run_id)
    assert job_id_of(world, run_id) != job_id
    assert world.queues.queue("script").get_job_ids() == [job_id_of(world, run_id)]


def test_the_queues_from_which_something_was_taken_are_found_in_one_round_trip(
    world: RunWorld, worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each queue cost the reaper two every two seconds, on an idle machine, too."""
    trips: list[str] = []
    made = world.queues.redis.pipeline

    def pipeline(**options: Any) -> Pipeline:
        trips.append("one")
        return made(**options)

    with monkeypatch.context() as counted:
        counted.setattr(world.queues.redis, "pipeline", pipeline)
        counted.setattr(world.queues.redis, "execute_command", lambda *_, **__: trips.append("more"))
        assert world.queues.busy(QUEUES) == []
    assert trips == ["one"]
    world.launch(tags={STAGE_TAG: "script"})
    assert world.queues.busy(QUEUES) == []  # it waits: no worker has taken it
    taken = worker.dequeue_job_and_maintain_ttl(1)
    assert taken is not None
    assert world.queues.busy(QUEUES) == ["script"]
    worker.prepare_execution(taken[0])
    worker.prepare_job_execution(taken[0], remove_from_intermediate_queue=True)
    assert world.queues.busy(QUEUES) == ["script"]


def test_a_run_that_died_before_its_start_is_launched_again_by_one_of_the_reapers(
    world: RunWorld, worker: RunWorker, reaper: Reaper, time: Time
) -> None:
    run_id = world.launch()
    carry(worker)
    lose(worker)
    other = Reaper(world.instance, world.queues, lease_seconds=6, clock=time)
    for each in (reaper, other, reaper, other):
        each.sweep()
    starting(world, run_id)
    assert world.queues.queue("script").get_job_ids() == [f"{run_id}-2"]


def test_a_run_that_another_reaper_launches_just_now_is_left_to_it(world: RunWorld, worker: RunWorker, reaper: Reaper) -> None:
    run_id = world.launch()
    carry(worker)
    lose(worker)
    assert world.queues.claim_relaunch(f"{run_id}-1")
    reaper.sweep()
    assert world.queues.queue("script").get_job_ids() == []


def test_a_run_that_was_launched_again_since_it_was_read_is_left_alone(
    world: RunWorld, worker: RunWorker, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = world.launch()
    carry(worker)
    lose(worker)
    before = world.fresh(run_id)
    reaper.sweep()
    world.queues.redis.delete(*world.queues.redis.keys("phantoms:run:relaunched:*"))
    monkeypatch.setattr(world.instance, "get_runs", lambda _: [before])
    reaper.sweep()
    assert world.queues.queue("script").get_job_ids() == [f"{run_id}-2"]


def test_a_job_that_a_worker_took_and_never_began_is_launched_again_after_a_lease(
    world: RunWorld, worker: RunWorker, reaper: Reaper, time: Time
) -> None:
    run_id = world.launch()
    assert worker.dequeue_job_and_maintain_ttl(1) is not None
    reaper.sweep()
    time.now = 5.0
    reaper.sweep()
    assert world.queues.queue("script").get_job_ids() == []
    time.now = 6.0
    reaper.sweep()
    assert world.queues.queue("script").get_job_ids() == [f"{run_id}-2"]


def test_a_run_whose_launch_was_cut_off_is_launched_again(world: RunWorld, reaper: Reaper, time: Time) -> None:
    run_id = world.launch()
    world.queues.redis.flushdb()
    reaper.sweep()
    time.now = reaper_module.ON_ITS_WAY_SECONDS
    reaper.sweep()
    assert world.queues.queue("script").get_job_ids() == [f"{run_id}-2"]


def test_a_run_that_kills_its_process_before_it_begins_is_failed_in_the_end(
    world: RunWorld, worker: RunWorker, reaper: Reaper
) -> None:
    run_id = world.launch()
    for _ in range(reaper_module.MOST_LAUNCHES):
        worker.heartbeat()
        carry(worker)
        lose(worker)
        reaper.sweep()
    assert world.status(run_id) is DagsterRunStatus.FAILURE
    assert any("died 5 times before the run started" in message for message in world.messages(run_id))


def test_a_cancelled_run_whose_process_died_meanwhile_is_ended(world: RunWorld, worker: RunWorker, reaper: Reaper) -> None:
    run_id = world.launch()
    carry(worker)
    world.instance.run_launcher.terminate(run_id)
    lose(worker)
    reaper.sweep()
    assert world.status(run_id) is DagsterRunStatus.CANCELED


def test_a_finished_job_that_is_still_on_the_list_is_not_a_dead_one(world: RunWorld, worker: RunWorker, reaper: Reaper) -> None:
    run_id = world.launch()
    job_id = carry(worker)
    mark_started(world, run_id)
    world.queues.redis.delete(f"rq:job:{job_id}")
    lose(worker)
    reaper.sweep()
    assert world.queues.carried("script") == []
    assert world.queues.job(job_id) is None
