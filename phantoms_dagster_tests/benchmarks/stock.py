"""A stack with Dagster's own run launcher, storage and daemon, to compare ours with: what a project gets by default."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import yaml

from phantoms_dagster.cli.stack import Stack
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.settings import Settings

# The product's definitions with the stand-ins and the multiprocess executor, which is Dagster's default.
MULTIPROCESS = "phantoms_dagster_tests.benchmarks.definitions_multiprocess"
_OURS = ("storage", "run_launcher", "compute_logs")


class StockStack(Stack):
    """DefaultRunLauncher (a process for each run, started by the code server), PostgreSQL storage unpooled, no event batches."""

    def _environment(self, settings: Settings) -> dict[str, str]:
        environment = super()._environment(settings)
        written = Path(environment["DAGSTER_HOME"]) / "dagster.yaml"
        config = {name: value for name, value in yaml.safe_load(written.read_text()).items() if name not in _OURS}
        config["storage"] = {"postgres": {"postgres_url": {"env": "PHANTOMS_BENCH_DAGSTER_URL"}}}
        config["run_monitoring"]["max_resume_run_attempts"] = 0  # DefaultRunLauncher cannot resume
        written.write_text(yaml.safe_dump(config))
        del environment["DAGSTER_EVENT_BATCH_SIZE"]
        return {**environment, "PHANTOMS_BENCH_DAGSTER_URL": settings.dagster_url() or ""}

    def _dagster(self, settings: Settings, environment: dict[str, str]) -> list[ProcessSpec]:
        specs = {spec.name: spec for spec in super()._dagster(settings, environment)}
        daemon = specs["daemon"]
        argv = (sys.executable, "-m", "dagster._daemon", "run", *daemon.argv[3:])
        # Ours waits for the code server; the stock one would load it a minute later.
        specs["daemon"] = replace(daemon, argv=argv, when=specs["code-server"].ready)
        return [spec for name, spec in specs.items() if name != "workers"]
