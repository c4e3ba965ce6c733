"""The Dagster definitions: assets, partitions, jobs, schedules, sensors and resources. Thin wrappers around `production`."""
