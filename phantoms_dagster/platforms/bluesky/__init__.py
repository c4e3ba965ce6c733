"""Bluesky: a record with a key that we choose, so that a repeat can never be a second post."""
