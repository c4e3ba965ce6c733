"""Prepares the Dagster instance once, before any process of it starts: several that do so at once kill one another.

Runs that a killed `phantoms up` left behind are not touched: other machines may carry them, and those that nobody carries are
resumed by Dagster's monitoring.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg

from phantoms_dagster.execution.home import POOLS_FILE
from phantoms_dagster.private import dagster as private


def main() -> None:
    """Create Dagster's tables, or bring those of an older Dagster up to date: `storage` relies on it. Set its pools' limits."""
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
