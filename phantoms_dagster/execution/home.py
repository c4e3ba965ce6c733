"""Prepares DAGSTER_HOME: writes the instance's configuration from the current settings. Does not import Dagster."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import stat
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.execution.slots import pool_limits, run_limits
from phantoms_dagster.settings import Settings

# The limits of Dagster's pools. dagster.yaml has no entry for them, so `initialise` sets them.
POOLS_FILE = "pools.json"


# A folder that every user can write to and that survives a reboot.
ALIASES = Path("/var/tmp")  # noqa: S108 - `dagster_home` checks that the folder in it is ours


def template() -> str:
    """Return the project's dagster.yaml. In a checkout it is next to the package, in a wheel inside it."""
    package = files("phantoms_dagster")
    for place in (package.joinpath("dagster.yaml"), Path(str(package)).parent / "dagster.yaml"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise FileNotFoundError("dagster.yaml is missing from this installation")


def dagster_home(folder: Path) -> Path:
    """Return the path by which Dagster can use `folder`: itself, or a link to it when the path contains `*`, `?` or `[`.

    Dagster treats the path of its dagster.yaml as a glob pattern. In a folder such as `my [studio]` it silently finds no file and
    keeps everything in SQLite. The link's path depends only on the folder, because runs store it.

    Raises InvalidInput when another user owns the link's place.
    """
    path = str(folder.absolute())
    if glob.escape(path) == path:
        return folder
    place = (
        ALIASES / f"phantoms-home-{hashlib.sha256(f'{os.geteuid()} {path}'.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    )
    place.mkdir(mode=0o700, exist_ok=True)
    made = place.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.geteuid() or made.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(f"{place} does not belong to this user: remove it, or set PHANTOMS_HOME to a path without *, ? and [.")
    link = place / "dagster"
    if not link.is_symlink() or link.readlink() != Path(path):
        fresh = place / f"dagster.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(path)
        fresh.replace(link)
    return link


def prepare(home: Path, settings: Settings) -> Path:
    """Write `<home>/dagster/dagster.yaml` and return the path to use as DAGSTER_HOME. Raises InvalidInput, see `dagster_home`."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = yaml.safe_load(template())
    config["concurrency"]["runs"]["max_concurrent_runs"] = settings.dagster.max_runs
    config["concurrency"]["runs"]["tag_concurrency_limits"] = run_limits(settings)
    config["run_monitoring"]["start_timeout_seconds"] = settings.dagster.run_start_timeout
    # Enable the retry daemon only if needed: it keeps reading the events of all runs.
    config["run_retries"] |= {"enabled": settings.dagster.run_retries > 0, "max_retries": settings.dagster.run_retries}
    (folder / POOLS_FILE).write_text(json.dumps(pool_limits(settings)), encoding="utf-8")
    written = folder / "dagster.yaml"
    written.write_text("# Written by `phantoms up`; change the settings instead.\n" + yaml.safe_dump(config), encoding="utf-8")
    return dagster_home(folder)
