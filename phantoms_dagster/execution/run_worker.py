"""One RQ worker on one queue, and its work-horse, which executes a Dagster run. `worker` starts the workers.

The worker is single-threaded, so that forking a work-horse is safe. Instead of RQ's command thread it polls Redis with each
heartbeat. The reaper replaces RQ's maintenance, which only runs between jobs.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from dagster import DagsterInstance, DagsterRunStatus
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker, get_current_job
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker_registration import register
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster import settings
from phantoms_dagster.domain.errors import InvalidInput, SchemaMismatch
from phantoms_dagster.execution.processes import die_with, orphaned
from phantoms_dagster.execution.queues import Mode, RunQueues, worker_name
from phantoms_dagster.execution.slots import JOB_TAG
from phantoms_dagster.execution.storage import PooledPostgresStorage, ReadyStorage
from phantoms_dagster.private import dagster as private
from phantoms_dagster.resilience.redis.refusals import NO_DRIVER_INFO, OutageAwareRedis, refuse_cluster
from phantoms_dagster.store import schema_version
from phantoms_dagster.store.away import in_words
from phantoms_dagster.store.engine import engine

if TYPE_CHECKING:
    from redis.client import Pipeline
    from rq import Queue
    from rq.executions import Execution
    from rq.job import Job
    from sqlalchemy import Engine

    from phantoms_dagster.private.dagster import InstanceRef

BEAT_SECONDS = 1
# A run lives for minutes and makes few reference cycles. Python's default threshold (700) would cost a twentieth of its time.
GC_THRESHOLD = (20_000, 20, 20)
# How long a cancelled run may take to clean up before its process is killed.
CANCEL_SECONDS = 30.0
# How often to check again whether the schema matches this code.
SCHEMA_SECONDS = 2.0

log = logging.getLogger(__name__)
_instance_ref: InstanceRef | None = None


def use_instance(ref: InstanceRef) -> None:
    """Set the Dagster instance of the runs of this process and its children. It is opened after the fork."""
    global _instance_ref  # noqa: PLW0603 - RQ calls `execute_run` by name, so nothing can be passed to it
    stored = ref.storage_data
    if stored and (stored.module_name, stored.class_name) == (PooledPostgresStorage.__module__, PooledPostgresStorage.__name__):
        ready = private.ConfigurableClassData(ReadyStorage.__module__, ReadyStorage.__name__, stored.config_yaml)
        ref = ref._replace(storage_data=ready)
    _instance_ref = ref


def execute_run(run_id: str, mode: Mode) -> str:
    """Execute a run: the RQ job, in the work-horse. The result is only for RQ's log; Dagster's tables say how the run ended."""
    job = get_current_job()
    assert job is not None
    assert _instance_ref is not None
    if not RunQueues(job.connection).take(job.id):
        return "executed before"
    with DagsterInstance.from_ref(_instance_ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished or run.tags.get(JOB_TAG) != job.id:
            return "superseded"
        if run.status is DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run)
            return "cancelled before it started"
        if private.usable("runs"):
            carry = private._execute_run_command_body if mode == "execute" else private._resume_run_command_body
            carry(run_id, instance, lambda _: None, False)
            return "done"
    private.command("dagster", ["api", f"{mode}_run", private.run_arguments(run, mode)])
    return "done"


def interrupts_left_to_dagster() -> contextlib.AbstractContextManager[None]:
    """From now on, record interrupts, so that Dagster raises them where a step can handle them.

    Without the fast path this starts a little later, with `dagster api`. Before that an interrupt ends the process, and the reaper
    reports that the run was cancelled.
    """
    if private.usable("runs"):
        return private.capture_interrupts()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return contextlib.nullcontext()


class RunWorker(Worker):
    """Executes the runs of one queue, one after the other, each in its own process.

    A worker without a heartbeat for `lease_seconds` counts as dead. After SIGTERM or SIGINT the current run gets `grace_seconds`;
    then its process is killed and another worker resumes it. After SIGHUP it gets all the time it needs.
    """

    # While Redis is down, try again soon: all runs wait for it.
    max_connection_wait_time = 5.0
    log_result_lifespan = False

    def __init__(self, queue: str, slot: int, *, connection: Redis, lease_seconds: int, grace_seconds: float) -> None:
        self._lease = lease_seconds
        self._grace = grace_seconds
        self._parent = os.getppid()
        self._idle = False
        self._kill_at = math.inf
        self._interrupted_at: float | None = None
        self.told_to_stop = False
        self._run_queues = RunQueues(connection)
        super().__init__(
            [queue],
            name=worker_name(queue, slot),
            connection=connection,
            serializer=JSONSerializer,
            job_monitoring_interval=BEAT_SECONDS,
            worker_ttl=lease_seconds,
            log_job_description=False,
        )

    # --- leases

    @property
    def dequeue_timeout(self) -> int:
        """The seconds of one wait for a job."""
        return wait_seconds(self._lease)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Renew the lease and register again, in case Redis has lost its data. RQ's own lease would be a minute longer."""
        del timeout
        if not self.is_horse and orphaned(self._parent):
            self._kill_horse_now()
            raise SystemExit(1)
        if pipeline is not None:
            super().heartbeat(self._lease, pipeline=pipeline)
            return
        with self.connection.pipeline() as own:
            super().heartbeat(self._lease, pipeline=own)
            own.hset(self.key, mapping=self.serialize())
            register(self, own)
            own.execute()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """The lease of a job, in seconds."""
        del job, working_time
        return self._lease

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Renew the leases and check whether the run should stop. Without Redis the run continues: its state is in PostgreSQL."""
        asked = None
        try:
            super().maintain_heartbeats(job, execution)
            asked = self._run_queues.stop_asked(job.id)
        except RedisError as error:
            log.warning("%s: no heartbeat: %s", self.name, error)
        if asked == "superseded":
            log.warning("%s: another worker now executes %s; stopping it here", self.name, job.id)
            self._kill_horse_now()
        elif asked == "cancel":
            self._cancel_horse()
        if time.monotonic() >= self._kill_at:
            log.warning("%s: %s did not finish in time; handing it back", self.name, job.id)
            self._kill_horse_now()

    # --- the work-horse

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Execute one run."""
        self._interrupted_at = None
        super().execute_job(job, queue)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Run in the work-horse. It dies with its worker, and Dagster handles interrupts from the start."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        gc.set_threshold(*GC_THRESHOLD)
        with interrupts_left_to_dagster():
            die_with(self.pid or 0)
            super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Do nothing. RQ would ignore SIGINT, which is how a run is cancelled."""

    def _cancel_horse(self) -> None:
        if self._interrupted_at is None:
            self._interrupted_at = time.monotonic()
            if self.horse_pid:
                os.kill(self.horse_pid, signal.SIGINT)
        elif time.monotonic() - self._interrupted_at > CANCEL_SECONDS:
            self._kill_horse_now()

    def _kill_horse_now(self) -> None:
        if self.horse_pid:
            self.kill_horse(signal.SIGKILL)

    # --- stopping

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> tuple[Job, Queue] | None:
        """Wait for a job. A signal may interrupt this wait, but nothing after it."""
        self._idle = True
        try:
            if self.told_to_stop:
                raise StopRequested
            self._wait_for_the_schema()
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        finally:
            self._idle = False

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while all workers are suspended. A signal may interrupt this wait, too."""
        self._idle = True
        try:
            if self.told_to_stop:
                raise StopRequested
            super().check_for_suspension(burst)
        finally:
            self._idle = False

    def _wait_for_the_schema(self) -> None:
        """Take no runs while the database schema does not match this code. Leave them to workers with matching code."""
        told = ""
        while problem := schema_problem():
            if problem != told:
                log.error("%s takes no runs: %s", self.name, problem)
                told = problem
            self.heartbeat()
            time.sleep(SCHEMA_SECONDS)
        if told:
            log.warning("%s takes runs again", self.name)

    def bootstrap(self, *arguments: Any, **named: Any) -> None:
        """Prepare for the first job. RQ makes SIGTERM and SIGINT call `request_stop`; add SIGHUP."""
        super().bootstrap(*arguments, **named)
        signal.signal(signal.SIGHUP, self.request_stop)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP."""
        del frame
        if signum != signal.SIGHUP:
            self._kill_at = min(self._kill_at, time.monotonic() + self._grace)
        self.told_to_stop = True
        if self._idle:
            self._idle = False
            raise StopRequested

    # --- disabled parts of RQ

    def procline(self, message: str) -> None:
        """Do nothing. A worker keeps the process title of its parent, by which people find it."""

    def subscribe(self) -> None:
        """Do nothing; see the module."""

    def unsubscribe(self) -> None:
        """Do nothing; see the module."""

    def run_maintenance_tasks(self) -> None:
        """Do nothing; see the module."""
        self.last_cleaned_at = now()  # type: ignore[assignment]


def schema_problem() -> str:
    """Return why this code must not touch the tables; empty when it may.

    Also empty when the database does not answer, because runs check again, and for a database that was never prepared, because
    there is nothing to damage.
    """
    url = settings.load().database.url
    if url is None:
        return ""
    database = _schema_engine(url.get_secret_value())
    try:
        schema_version.check_cached(database)
    except SchemaMismatch as error:
        return "" if error.reason == schema_version.UNPREPARED else error.reason
    except SQLAlchemyError as error:
        log.debug("cannot read the schema: %s", in_words(error))
    finally:
        database.dispose()  # keep no connection, because this process forks
    return ""


def wait_seconds(lease_seconds: int) -> int:
    """Return how long a worker waits for a job at a time, in seconds: a third of its lease, so it renews it in time."""
    return max(1, lease_seconds // 3)


@functools.cache
def _schema_engine(url: str) -> Engine:
    return engine(url, pool_size=1)


def set_log_levels() -> None:
    """Set the levels of RQ's loggers, before forking: it writes to every logger there is, and a fork would copy them all."""
    for name in ("rq.worker", "rq.job"):
        logging.getLogger(name).setLevel(logging.WARNING)


def warm_up(url: str) -> None:
    """Do once, before forking, what every worker does at its start, so that workers share the memory for it.

    This halves the memory of a worker. All connections are closed again. Errors of a store that is down are ignored.
    """
    schema_problem()
    with (
        contextlib.suppress(RedisError, InvalidInput),
        OutageAwareRedis.from_url(url, socket_connect_timeout=5, **NO_DRIVER_INFO) as redis,
    ):
        refuse_cluster(redis)


def work(queue: str, slot: int, *, url: str, lease_seconds: int, grace_seconds: float) -> int:
    """Run as a worker until told to stop. Return the exit code: 0 when it was told to stop, 1 or 2 after an error."""
    options: dict[str, Any] = {"lease_seconds": lease_seconds, "grace_seconds": grace_seconds}
    try:
        # The socket time-out must be longer than the wait for a job. redis-py's default is shorter.
        max_wait = wait_seconds(lease_seconds) + 10
        redis = OutageAwareRedis.from_url(url, socket_connect_timeout=5, socket_timeout=max_wait, **NO_DRIVER_INFO)
        refuse_cluster(redis)
        worker = RunWorker(queue, slot, connection=redis, **options)
        worker.work(logging_level=None)  # `set_log_levels` has set them
    except RedisError as error:
        log.warning("worker %s-%d: Redis does not answer: %s", queue, slot, error)
        return 1
    except InvalidInput as error:
        log.error("worker %s-%d: %s", queue, slot, error)
        return 2
    return 0 if worker.told_to_stop else 1
