"""What the tests of the launcher and of the workers share: a Dagster instance on real servers, runs, and worker processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster_tests.integration import run_definitions

MODULE = "phantoms_dagster_tests.integration.run_definitions"
MAX_WAIT_SECONDS = 240.0
LEASE_SECONDS = 6
CONFIG = {
    "storage": {"custom": {"module": "phantoms_dagster.execution.storage", "class": "PooledPostgresStorage", "config": {}}},
    "run_launcher": {"module": "phantoms_dagster.execution.launcher", "class": "RqRunLauncher", "config": {}},
    "run_monitoring": {"enabled": True, "max_resume_run_attempts": 3},
    "telemetry": {"enabled": False},
}


@dataclass
class RunWorld:
    """A Dagster instance with runs in RQ, and the means to look at them."""

    folder: Path
    redis_url: str
    instance: DagsterInstance
    environment: dict[str, str]
    queues: RunQueues
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, job: str = "quick_job", tags: Mapping[str, str] | None = None) -> DagsterRun:
        """A run that is not launched yet."""
        pointer = ModuleCodePointer(MODULE, "defs")
        origin = JobPythonOrigin(job, RepositoryPythonOrigin(sys.executable, pointer, None, None, None))
        definition = run_definitions.defs.get_job_def(job)
        return self.instance.create_run_for_job(
            definition, job_code_origin=origin, tags={**definition.tags, **(tags or {})}, status=DagsterRunStatus.NOT_STARTED
        )

    def launch(self, job: str = "quick_job", tags: Mapping[str, str] | None = None) -> str:
        """The id of a run that was handed to the launcher."""
        run = self.run(job, tags)
        self.instance.launch_run(run.run_id, None)  # type: ignore[arg-type] # ours needs no workspace
        return run.run_id

    def status(self, run_id: str) -> DagsterRunStatus:
        """The run's status."""
        return self.fresh(run_id).status

    def fresh(self, run_id: str) -> DagsterRun:
        """The run as it is now."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def messages(self, run_id: str) -> list[str]:
        """The run's event log."""
        return [entry.message for entry in self.instance.all_logs(run_id)]

    def marks(self, run_id: str, word: str) -> list[int]:
        """The processes that noted `word` about the run, in order."""
        path = self.folder / "marks" / run_id
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(word)]

    def let_go(self) -> None:
        """Let waiting steps end."""
        (self.folder / "marks" / "go").touch()

    def monitor(self, run_id: str) -> None:
        """What Dagster's monitoring daemon does about one run in one of its rounds."""
        record = self.instance.get_run_record_by_id(run_id)
        if record is not None and record.dagster_run.status is DagsterRunStatus.STARTED:
            monitor_started_run(self.instance, None, record, logging.getLogger("monitoring"))  # type: ignore[arg-type]

    def monitored_until(self, run_id: str, condition: Callable[[], object]) -> None:
        """Monitor the run, again and again, until the condition holds."""

        def look() -> object:
            self.monitor(run_id)
            return condition()

        wait_for(look, self.log)

    def start_workers(self, queues: str = "script=1", **environment: str) -> subprocess.Popen[bytes]:
        """A parent of workers, when its workers listen."""
        command = [sys.executable, "-m", "phantoms_dagster.execution.worker", "--queues", queues, "--module", MODULE]
        with (self.folder / "workers.log").open("ab") as out:
            parent = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.started.append(parent)
        names = [part.partition("=")[0] for part in queues.split(",")]
        wait_for(lambda: parent.poll() is not None or all(self.queues.alive(name) for name in names), self.log)
        assert parent.poll() is None, self.log()
        return parent

    def log(self) -> str:
        """What the workers wrote."""
        path = self.folder / "workers.log"
        return path.read_text(encoding="utf-8", errors="replace")[-8_000:] if path.exists() else ""


def wait_for(condition: Callable[[], object], explain: Callable[[], str] = str, seconds: float = MAX_WAIT_SECONDS) -> None:
    """Wait until the condition holds; fails after `seconds` with the explanation."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s\n{explain()}")
        time.sleep(0.02)


@contextmanager
def run_world(folder: Path, dagster_database_url: str, redis_url: str, patch: pytest.MonkeyPatch) -> Iterator[RunWorld]:
    """A world in an empty folder. What was started in it is gone afterwards."""
    (folder / "marks").mkdir()
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    ours = {
        "PHANTOMS_HOME": str(folder),
        "PHANTOMS_DATABASE_URL": dagster_database_url,
        "PHANTOMS_DAGSTER_DATABASE_URL": dagster_database_url,
        "PHANTOMS_REDIS_URL": redis_url,
        "PHANTOMS_WORKER_LEASE_SECONDS": str(LEASE_SECONDS),
        "PHANTOMS_WORKER_GRACE_SECONDS": "1",
        "DAGSTER_HOME": str(home),
        run_definitions.MARKS: str(folder / "marks"),
    }
    for name, value in ours.items():
        patch.setenv(name, value)
    queues = RunQueues(connect(redis_url))
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as instance:
        world = RunWorld(folder, redis_url, instance, {**os.environ, **ours}, queues)
        try:
            yield world
        finally:
            for parent in world.started:
                if parent.poll() is None:
                    os.killpg(parent.pid, signal.SIGKILL)
                parent.wait(30)
            instance.run_launcher.dispose()
            queues.redis.close()
