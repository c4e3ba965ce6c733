"""The run launcher of dagster.yaml. It hands each run to RQ, from the daemon and the web server, and executes none itself."""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dagster import DagsterInstance, DagsterInvariantViolationError, DagsterRun
from redis.exceptions import RedisError
from rq.job import JobStatus

from phantoms_dagster import settings
from phantoms_dagster.execution.plain_errors import why_away
from phantoms_dagster.execution.queues import Mode, RunQueues, connect
from phantoms_dagster.execution.slots import (
    CHAIN_TAG,
    JOB_TAG,
    STAGE_TAG,
    job_of,
    launches,
    queue_of,
    redis_url,
    tags_of_assets,
    tags_of_partitions,
)
from phantoms_dagster.execution.without_stores import is_only_looked_at
from phantoms_dagster.private.dagster import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)

if TYPE_CHECKING:
    from rq.job import Job

# A Redis that has just restarted may have lost valid leases. Workers get this time to renew them.
REDIS_WARMUP_SECONDS = 10


class RqRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """The `run_launcher:` entry of dagster.yaml. It has no config; the Redis URL comes from the settings."""

    supports_check_run_worker_health = True
    supports_resume_run = True

    def __init__(self, url: str | None, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._url = url
        self._inst_data = inst_data
        self._of: weakref.ReferenceType[DagsterInstance] | None = None

    def register_instance(self, instance: DagsterInstance) -> None:
        """See the base class."""
        super().register_instance(instance)
        self._of = weakref.ref(instance)  # an instance that refers to itself would never be freed

    @property
    def _opened(self) -> DagsterInstance:
        instance = self._of() if self._of else None
        if instance is None:
            raise DagsterInvariantViolationError("this launcher has no instance, or its instance is closed")
        return instance

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """See the base class."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        """No fields: the URL is a secret and comes from the environment."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> RqRunLauncher:
        """See the base class. Raises InvalidInput when no Redis is set and none is running here: see `without_stores`."""
        del config_value
        found = settings.load()
        return cls(None if found.redis.url is None and is_only_looked_at(found) else redis_url(found), inst_data)

    @cached_property
    def _queues(self) -> RunQueues:
        return RunQueues(connect(self._url or redis_url(settings.load())))

    def launch_run(self, context: LaunchRunContext) -> None:
        """Put the run into its queue. If no worker listens there, note that in the run's event log."""
        self._hand_over(context.dagster_run, "execute")

    def resume_run(self, context: ResumeRunContext) -> None:
        """Put a run whose process died into its queue again. If that process is still alive, it is stopped."""
        superseded = job_of(context.dagster_run.run_id, context.dagster_run.tags)
        self._hand_over(context.dagster_run, "resume")
        if superseded is not None:
            self._queues.ask_to_stop(superseded, "superseded")

    def terminate(self, run_id: str) -> bool:
        """Cancel a run. If it has not started or its worker is gone, it is canceled at once; else its worker interrupts it."""
        run = self._opened.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._opened.report_run_canceling(run)
        job = self._queues.job(job_of(run_id, run.tags))
        if job is None or self._is_lost(job) or self._queues.withdraw(job):
            self._opened.report_run_canceled(run)
        else:
            self._queues.ask_to_stop(job.id, "cancel")
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether a worker executes the run or will. Dagster's run monitoring asks this for started runs."""
        job_id = job_of(run.run_id, run.tags)
        job = self._queues.job(job_id)
        found = self._health(job, queue_of(run.tags))
        if found.status is not WorkerStatus.RUNNING and self._redis_came_back():
            return CheckRunHealthResult(WorkerStatus.RUNNING, "Redis has just restarted; waiting for the workers to report")
        return found._replace(run_worker_id=job_id)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return which queue the run was in. Dagster adds it to the failure message of a run whose worker is gone."""
        del include_container_logs
        queue = queue_of(run.tags)
        try:
            return f"It was in queue {queue}, on which {self._queues.alive(queue)} workers listen."
        except RedisError as error:  # Dagster would log a traceback
            return f"It was in queue {queue}. {why_away(error)}"

    def dispose(self) -> None:
        """Close the connections."""
        if "_queues" in self.__dict__:
            self._queues.redis.close()

    def _hand_over(self, run: DagsterRun, mode: Mode) -> None:
        told = {} if {STAGE_TAG, CHAIN_TAG} & run.tags.keys() else tags_of_assets(_slugs(run))
        queue = queue_of({**run.tags, **told})
        if told:  # the run is of stages, so its partitions are videos
            told |= tags_of_partitions(run.tags)
        job_id = f"{run.run_id}-{launches(run.run_id, run.tags) + 1}"
        # Set the tag first: a worker refuses a job whose id is not in the run's tag.
        self._opened.add_run_tags(run.run_id, {**told, JOB_TAG: job_id})
        self._queues.enqueue(queue, job_id, run.run_id, mode, description=f"{mode} {run.job_name} {run.run_id}")
        if not self._queues.alive(queue):
            self._opened.report_engine_event(
                f"No worker listens on queue {queue}, so this run waits. Start one: phantoms worker --queues {queue}=1", run
            )

    def _health(self, job: Job | None, queue: str) -> CheckRunHealthResult:
        if job is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no worker executes this run")
        status = job.get_status(refresh=False)
        if status == JobStatus.QUEUED:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"waiting for a worker of queue {queue}")
        if status != JobStatus.STARTED:
            # This includes finished jobs: a run that ends normally is marked as ended before its job is.
            return CheckRunHealthResult(WorkerStatus.FAILED, f"the process that executed this run has ended ({status.value})")
        if self._queues.is_alive(job.worker_name):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"executed by {job.worker_name}")
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"worker {job.worker_name} is gone")

    def _is_lost(self, job: Job) -> bool:
        status = job.get_status(refresh=False)
        return status != JobStatus.QUEUED and not (status == JobStatus.STARTED and self._queues.is_alive(job.worker_name))

    def _redis_came_back(self) -> bool:
        return int(self._queues.redis.info("server")["uptime_in_seconds"]) < REDIS_WARMUP_SECONDS


def _slugs(run: DagsterRun) -> list[str]:
    """Return the slugs of the assets that a run selects."""
    return ["_".join(key.path) for key in run.asset_selection or ()]
