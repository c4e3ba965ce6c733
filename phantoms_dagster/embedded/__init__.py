"""Embedded PostgreSQL and Valkey in a data directory, and the supervisor of `phantoms up`. It knows nothing about videos."""
