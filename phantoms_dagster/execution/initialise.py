"""Prepares the Dagster instance once, before its processes start. Several processes that do so at once would abort each other.

It does not touch runs that a killed `phantoms up` left behind: other machines may be executing them, and Dagster's monitoring
resumes the others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg

from phantoms_dagster.execution.home import POOLS_FILE
from phantoms_dagster.private import dagster as private


def main() -> None:
    """Create or migrate Dagster's tables, which `storage` relies on, and set the limits of Dagster's pools."""
    try:
        private.check()
    except private.ChangedDagster as error:
        sys.exit(str(error))
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
        limits = Path(instance.root_directory) / POOLS_FILE
        for pool, limit in json.loads(limits.read_text(encoding="utf-8")).items() if limits.exists() else ():
            instance.event_log_storage.set_concurrency_slots(pool, limit)


if __name__ == "__main__":
    main()
