"""Prepares DAGSTER_HOME: the instance's configuration with the settings in force. Imports no Dagster."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from phantoms_dagster.execution.queues import pool_limits, run_limits
from phantoms_dagster.settings import Settings

# The limits of Dagster's pools, which `initialise` sets: no place in dagster.yaml takes them.
POOLS_FILE = "pools.json"


def template() -> str:
    """The project's dagster.yaml: beside the package in a checkout, inside it when installed from a wheel."""
    package = files("phantoms_dagster")
    for place in (package.joinpath("dagster.yaml"), Path(str(package)).parent / "dagster.yaml"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise FileNotFoundError("dagster.yaml is missing from this installation")


def prepare(home: Path, settings: Settings) -> Path:
    """Write `<home>/dagster/dagster.yaml` and a workspace is not needed; the folder, to be used as DAGSTER_HOME."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = yaml.safe_load(template())
    config["concurrency"]["runs"]["max_concurrent_runs"] = settings.max_runs
    config["concurrency"]["runs"]["tag_concurrency_limits"] = run_limits(settings)
    config["run_monitoring"]["start_timeout_seconds"] = settings.run_start_timeout
    config["run_retries"]["max_retries"] = settings.run_retries
    (folder / POOLS_FILE).write_text(json.dumps(pool_limits(settings)), encoding="utf-8")
    written = folder / "dagster.yaml"
    written.write_text("# Written by `phantoms up`; change the settings instead.\n" + yaml.safe_dump(config), encoding="utf-8")
    return folder
