"""Prepares the Dagster instance once, before any process of it starts: several that do so at once kill one another.

Also ends the runs that a killed `phantoms up` left behind: their processes died with it, and a run that is open for ever
would keep its videos from being taken up again.
"""

from __future__ import annotations

import dagster as dg

LEFT_BEHIND = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def main() -> None:
    """Create Dagster's tables and end what was left behind."""
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=LEFT_BEHIND)):
            instance.report_run_failed(run, "the process of this run died when phantoms stopped; its videos are taken up again")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


if __name__ == "__main__":
    main()
