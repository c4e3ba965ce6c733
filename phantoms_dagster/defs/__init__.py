"""What the Dagster UI shows: assets, partitions, jobs, schedules, sensors, resources. Thin shells around `production`."""
