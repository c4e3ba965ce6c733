"""How Dagster runs are stored and carried out. What runs make belongs to `production`."""
