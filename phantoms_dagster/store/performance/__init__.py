"""The performance tables."""
