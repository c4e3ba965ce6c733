"""Runs as RQ jobs in Redis, and which workers are alive. It knows Redis but not Dagster. `slots` chooses the queue of a run.

RQ is never the source of truth. Every record here may be lost; the run is then recovered from Dagster's tables. A job id is for one
launch and is executed once. Launching a run again makes a new job id.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker
from rq.worker_registration import clean_worker_registry, get_keys

from phantoms_dagster.resilience.redis.refusals import NO_DRIVER_INFO, OutageAwareRedis

ENTRY = "phantoms_dagster.execution.run_worker.execute_run"
# Failed jobs are kept for inspection. Finished jobs are not kept.
FAILED_SECONDS = 600
ONCE_SECONDS = 86_400
RELAUNCH_SECONDS = 60

Mode = Literal["execute", "resume"]
# `cancel`: let Dagster end the run as canceled. `superseded`: another job now executes the run, so this one must stop.
Stop = Literal["cancel", "superseded"]


def connect(url: str) -> Redis:
    """Return a client for short requests. It gives up after a few seconds."""
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.1), 3)
    return OutageAwareRedis.from_url(
        url, socket_timeout=5, socket_connect_timeout=2, health_check_interval=30, retry=retry, **NO_DRIVER_INFO
    )


class RunQueues:
    """The queues of one Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def queue(self, name: str) -> Queue:
        """Return the RQ queue with this name."""
        return Queue(name, connection=self.redis, serializer=JSONSerializer)

    def enqueue(self, queue: str, job_id: str, run_id: str, mode: Mode, *, description: str) -> None:
        """Hand a run to the workers of a queue."""
        self.queue(queue).enqueue_call(
            func=ENTRY,
            args=(run_id, mode),
            job_id=job_id,
            timeout=-1,
            result_ttl=0,
            failure_ttl=FAILED_SECONDS,
            description=description,
        )

    def job(self, job_id: str | None) -> Job | None:
        """Return the job; None when Redis does not have it."""
        if job_id is None:
            return None
        try:
            return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return None

    def alive(self, queue: str) -> int:
        """Return how many live workers listen on the queue."""
        names = [key.removeprefix(BaseWorker.redis_worker_namespace_prefix) for key in get_keys(self.queue(queue))]
        return sum(self.is_alive(name) for name in names)

    def is_alive(self, worker: str | None) -> bool:
        """Whether a worker's lease is valid. The key expires by Redis's clock, so the clocks of machines do not matter."""
        if not worker or surely_dead(worker):
            return False
        birth, death = self.redis.hmget(BaseWorker.redis_worker_namespace_prefix + worker, "birth", "death")
        return birth is not None and death is None

    def take(self, job_id: str) -> bool:
        """Whether the caller may execute the job. Only the first caller may, even if RQ delivers the job again."""
        return bool(self.redis.set(f"phantoms:run:taken:{job_id}", "1", nx=True, ex=ONCE_SECONDS))

    def claim_relaunch(self, job_id: str) -> bool:
        """Whether the caller may launch the run of this job again. Of several reapers, only one may."""
        return bool(self.redis.set(f"phantoms:run:relaunched:{job_id}", "1", nx=True, ex=RELAUNCH_SECONDS))

    def ask_to_stop(self, job_id: str, how: Stop) -> None:
        """Ask the worker that has the job to stop it. Workers check for this every second."""
        self.redis.set(f"phantoms:run:stop:{job_id}", how, ex=ONCE_SECONDS)

    def stop_asked(self, job_id: str) -> Stop | None:
        """Return the requested stop; None when there is none."""
        asked = self.redis.get(f"phantoms:run:stop:{job_id}")
        return None if asked is None else ("cancel" if asked == b"cancel" else "superseded")

    def withdraw(self, job: Job) -> bool:
        """Remove a job from its queue. Return whether it was still there."""
        if not self.redis.lrem(self.queue(job.origin).key, 1, job.id):
            return False
        self.redis.delete(job.key)
        return True

    def carried(self, queue: str) -> list[tuple[str, str, str | None]]:
        """Return (job id, registry entry, worker) of each job taken from the queue. The worker is None when its lease has expired.

        This reads the registry directly: RQ's own readers clean it up without a lock and so run jobs twice.
        """
        found = self.redis.zrange(StartedJobRegistry(queue, connection=self.redis).key, 0, -1)
        entries = [entry.decode() for entry in cast("list[bytes]", found)]
        executions = [Execution.from_composite_key(entry, connection=self.redis) for entry in entries]
        with self.redis.pipeline(transaction=False) as pipeline:
            for execution in executions:
                pipeline.hget(execution.key, "worker_name")
            workers = pipeline.execute()
        return [(e.job_id, entry, w.decode() if w else None) for e, entry, w in zip(executions, entries, workers, strict=True)]

    def busy(self, queues: Sequence[str]) -> list[str]:
        """Return the queues from which a worker has taken a job. The others need no further queries. One round trip."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for name in queues:
                pipeline.zcard(StartedJobRegistry(name, connection=self.redis).key)
                pipeline.llen(self.queue(name).intermediate_queue_key)
            found = pipeline.execute()
        return [name for name, *counts in zip(queues, found[::2], found[1::2], strict=True) if any(counts)]

    def popped(self, queue: str) -> list[str]:
        """Return the ids of jobs that a worker has popped but not started."""
        found: list[str] = self.queue(queue).intermediate_queue.get_job_ids()
        return found

    def bury(self, queue: str, job_id: str, entry: str | None = None) -> bool:
        """Mark a job as failed because its worker is gone. Return whether it was open. A worker that is alive after all stops."""
        job = self.job(job_id)
        still_open = job is not None and job.get_status(refresh=False) in (JobStatus.QUEUED, JobStatus.STARTED)
        with self.redis.pipeline() as pipeline:
            pipeline.lrem(self.queue(queue).intermediate_queue_key, 1, job_id)
            if entry is not None:
                pipeline.zrem(StartedJobRegistry(queue, connection=self.redis).key, entry)
                pipeline.delete(Execution.from_composite_key(entry, connection=self.redis).key)
            if job is not None and still_open:
                pipeline.set(f"phantoms:run:stop:{job_id}", "superseded", ex=ONCE_SECONDS)
                job.set_status(JobStatus.FAILED, pipeline=pipeline)
                pipeline.expire(job.key, FAILED_SECONDS)
            pipeline.execute()
        return still_open

    def tidy(self, queue: str) -> None:
        """Delete the records of dead workers and of old failed jobs."""
        clean_worker_registry(self.queue(queue))
        FailedJobRegistry(queue, connection=self.redis).cleanup()


# ------------------------------------------------------------------ workers' names


def worker_name(queue: str, slot: int) -> str:
    """Return the worker name of this process. Other processes on the machine can tell from it whether the process is alive."""
    return f"{queue}-{slot}-{_machine()}-{os.getpid()}-{_started(os.getpid()) or 0}"


def surely_dead(worker: str) -> bool:
    """Whether a worker of this machine and process table has ended. False when that cannot be known."""
    try:
        machine, pid, started = worker.rsplit("-", 3)[1:]
        return machine == _machine() and int(started) != 0 and _started(int(pid)) != int(started)
    except ValueError:
        return False


@functools.cache
def _machine() -> str:
    """Return an id of this boot of the machine and of this process table. Containers with the same host name differ in it."""
    parts = [socket.gethostname()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text(encoding="ascii"))
        except OSError:
            parts.append("")
    return hashlib.blake2s("\n".join(parts).encode(), digest_size=5).hexdigest()


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it has ended or there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
