"""Finds runs whose process is gone. Dagster's run monitoring resumes those that have started, once the launcher says that nobody
carries them; those that died before their start are launched again from here, since monitoring would only fail them.

It is a process of its own: RQ's maintenance runs in workers between jobs, and when all are busy nobody would look.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import sqlalchemy.exc
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from redis.exceptions import RedisError
from rq.job import JobStatus

from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster.execution.slots import QUEUES, job_of, launches
from phantoms_dagster.private.dagster import LaunchRunContext

if TYPE_CHECKING:
    from phantoms_dagster.private.dagster import InstanceRef

SWEEP_SECONDS = 2.0
# Between two sweeps while no run is on its way.
IDLE_SECONDS = 5.0
TIDY_SECONDS = 60.0
# A run without a job may be on its way to its launch just now.
ON_ITS_WAY_SECONDS = 10.0
# A run whose process dies so often before the run begins would kill the next one too.
MOST_LAUNCHES = 5
OPEN = [DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]

log = logging.getLogger(__name__)


class Reaper:
    """Sweeps all queues. Several reapers may sweep the same ones. `clock` is monotonic, in seconds."""

    def __init__(
        self, instance: DagsterInstance, queues: RunQueues, *, lease_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._instance = instance
        self._queues = queues
        self._lease = lease_seconds
        self._clock = clock
        self._seen: dict[str, float] = {}

    def sweep(self) -> bool:
        """Write off the jobs of dead workers, then see to the runs that nobody would miss; whether there was anything to see."""
        noted: set[str] = set()
        busy, runs = self._queues.busy(QUEUES), self._instance.get_runs(RunsFilter(statuses=OPEN))
        for queue in busy:
            self._bury_the_lost(queue, noted)
        for run in runs:
            self._see_to(run, noted)
        self._seen = {what: since for what, since in self._seen.items() if what in noted}
        return bool(busy or runs)

    def tidy(self) -> None:
        """Forget what nobody will ask for."""
        for queue in QUEUES:
            self._queues.tidy(queue)

    def _bury_the_lost(self, queue: str, noted: set[str]) -> None:
        carried = self._queues.carried(queue)
        for job_id, entry, worker in carried:
            if not self._queues.is_alive(worker) and self._queues.bury(queue, job_id, entry):
                log.warning("run job %s: worker %s is gone", job_id, worker or "of an expired lease")
        held = {job_id for job_id, _, _ in carried}
        for job_id in self._queues.popped(queue):
            if job_id not in held and self._for(job_id, noted) >= self._lease and self._queues.bury(queue, job_id):
                log.warning("run job %s: its worker died as it took it", job_id)

    def _see_to(self, run: DagsterRun, noted: set[str]) -> None:
        job = self._queues.job(job_of(run.run_id, run.tags))
        status = job.get_status(refresh=False) if job else None
        if status in (JobStatus.QUEUED, JobStatus.STARTED):
            return
        if job is None and self._for(run.run_id, noted) < ON_ITS_WAY_SECONDS:
            return
        fresh = self._instance.get_run_by_id(run.run_id)
        if fresh is None or fresh.status is not run.status or fresh.tags != run.tags:
            return
        number = launches(run.run_id, run.tags)
        if not self._queues.claim_relaunch(f"{run.run_id}-{number}"):
            return
        if run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(fresh, "its process had ended already")
        elif number >= MOST_LAUNCHES:
            self._instance.report_run_failed(fresh, f"its process died {number} times before the run began")
        else:
            self._instance.report_engine_event("The process that was to carry this run died before it began; once more", fresh)
            self._instance.run_launcher.launch_run(LaunchRunContext(fresh, None))

    def _for(self, what: str, noted: set[str]) -> float:
        """For how many seconds this has been seen in each sweep."""
        noted.add(what)
        return self._clock() - self._seen.setdefault(what, self._clock())


def reap(ref: InstanceRef, url: str, *, lease_seconds: float) -> None:
    """Sweep until killed. A store that is away is waited for."""
    redis = connect(url)
    with DagsterInstance.from_ref(ref) as instance:
        reaper = Reaper(instance, RunQueues(redis), lease_seconds=lease_seconds)
        tidied = time.monotonic()
        while True:
            pause = SWEEP_SECONDS
            try:
                pause = SWEEP_SECONDS if reaper.sweep() else IDLE_SECONDS
                if time.monotonic() - tidied > TIDY_SECONDS:
                    reaper.tidy()
                    tidied = time.monotonic()
            except (RedisError, sqlalchemy.exc.SQLAlchemyError) as error:
                log.warning("nobody looks after dead workers now: %s", str(error).strip().splitlines()[0])
            time.sleep(pause)
