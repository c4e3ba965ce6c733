"""Finds runs whose process has died.

Dagster's run monitoring resumes those that had started, once the launcher reports that no worker executes them. Monitoring would
only fail those that died before their start, so the reaper launches them again.

It is a separate process: RQ's own maintenance runs in workers between jobs, so it would not happen while all are busy.
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
# The time between two sweeps while no run is starting or executing.
IDLE_SECONDS = 5.0
TIDY_SECONDS = 60.0
# A run without a job may just be about to be launched.
ON_ITS_WAY_SECONDS = 10.0
# A run whose process has died this often before it started would kill the next process, too.
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
        """Fail the jobs of dead workers, then relaunch or end their runs. Return whether any queue was busy or any run open."""
        noted: set[str] = set()
        busy, runs = self._queues.busy(QUEUES), self._instance.get_runs(RunsFilter(statuses=OPEN))
        for queue in busy:
            self._bury_the_lost(queue, noted)
        for run in runs:
            self._see_to(run, noted)
        self._seen = {what: since for what, since in self._seen.items() if what in noted}
        return bool(busy or runs)

    def tidy(self) -> None:
        """Delete outdated records from all queues."""
        for queue in QUEUES:
            self._queues.tidy(queue)

    def _bury_the_lost(self, queue: str, noted: set[str]) -> None:
        carried = self._queues.carried(queue)
        for job_id, entry, worker in carried:
            if not self._queues.is_alive(worker) and self._queues.bury(queue, job_id, entry):
                log.warning("run job %s: worker %s is gone", job_id, worker or "with an expired lease")
        held = {job_id for job_id, _, _ in carried}
        for job_id in self._queues.popped(queue):
            if job_id not in held and self._for(job_id, noted) >= self._lease and self._queues.bury(queue, job_id):
                log.warning("run job %s: its worker died while taking it", job_id)

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
            self._instance.report_run_canceled(fresh, "its process had already ended")
        elif number >= MOST_LAUNCHES:
            self._instance.report_run_failed(fresh, f"its process died {number} times before the run started")
        else:
            self._instance.report_engine_event("The process of this run died before the run started; launching it again", fresh)
            self._instance.run_launcher.launch_run(LaunchRunContext(fresh, None))

    def _for(self, what: str, noted: set[str]) -> float:
        """Return for how many seconds every sweep has seen this."""
        noted.add(what)
        return self._clock() - self._seen.setdefault(what, self._clock())


def reap(ref: InstanceRef, url: str, *, lease_seconds: float) -> None:
    """Sweep until killed. Keep trying while a store is down."""
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
                log.warning("cannot check for dead workers right now: %s", str(error).strip().splitlines()[0])
            time.sleep(pause)
