"""The schedule of the analytics."""

import dagster as dg

from phantoms_dagster.defs.jobs import analytics_job

analytics_schedule = dg.ScheduleDefinition(
    name="analytics_schedule",
    job=analytics_job,
    cron_schedule="7 * * * *",  # not on the hour, when APIs are busiest
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads results from the platforms every hour.",
)
