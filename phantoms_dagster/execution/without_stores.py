"""A temporary folder for Dagster's development commands when there is no database.

`dagster dev` and `dagster definitions validate` read the dagster.yaml in the working directory and work without a database.
Everything else that opens the instance without one fails, because it would work on tables that no other process sees.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from phantoms_dagster.settings import Settings

# Dagster sets one of these for the command; its server processes inherit it.
MARKS = ("DAGSTER_IS_DEV_CLI", "DAGSTER_IS_DEFS_VALIDATION_CLI")
# Our own variable, which child processes inherit.
FOLDER = "DAGSTER_PHANTOMS_TEMPORARY"


def is_only_looked_at(settings: Settings) -> bool:
    """Whether there is no database and this is one of the commands that work without one."""
    return settings.database.url is None and any(os.environ.get(mark) for mark in MARKS)


def temporary_folder() -> Path:
    """Return the temporary folder of this process and its children. It is deleted when the process that made it exits."""
    if not os.environ.get(FOLDER):
        made, maker = tempfile.mkdtemp(prefix="phantoms-dagster-"), os.getpid()
        os.environ[FOLDER] = made
        atexit.register(_remove, made, maker)
    return Path(os.environ[FOLDER])


def _remove(folder: str, maker: int) -> None:
    if os.getpid() == maker:  # a fork that exits earlier must not delete it
        shutil.rmtree(folder, ignore_errors=True)
