"""What Dagster's own commands for a checkout work with where no database is set and none runs: a temporary folder.

`dagster dev` and `dagster definitions validate` read the dagster.yaml of the working directory. Everything else that opens the
instance without a database stops with an error: it would work on tables that nobody else sees.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from phantoms_dagster.settings import Settings

# Dagster sets one of them in that command's process; its servers inherit it.
MARKS = ("DAGSTER_IS_DEV_CLI", "DAGSTER_IS_DEFS_VALIDATION_CLI")
# Ours, for the processes that the first one starts.
FOLDER = "DAGSTER_PHANTOMS_TEMPORARY"


def is_only_looked_at(settings: Settings) -> bool:
    """Whether there is no database, and this is one of the commands that work without."""
    return settings.database_url is None and any(os.environ.get(mark) for mark in MARKS)


def temporary_folder() -> Path:
    """The folder of this process and those that it starts; gone with the process that asked first."""
    if not os.environ.get(FOLDER):
        made, maker = tempfile.mkdtemp(prefix="phantoms-dagster-"), os.getpid()
        os.environ[FOLDER] = made
        atexit.register(_remove, made, maker)
    return Path(os.environ[FOLDER])


def _remove(folder: str, maker: int) -> None:
    if os.getpid() == maker:  # a fork ends earlier
        shutil.rmtree(folder, ignore_errors=True)
