"""PostgreSQL and Valkey from wheels in a data directory, and the supervisor of `phantoms up`. Nothing about videos."""
