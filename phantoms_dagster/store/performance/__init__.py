"""The performance tables and their sums."""
