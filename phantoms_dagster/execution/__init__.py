"""How Dagster runs are stored, queued and executed. `production` is what they execute."""
