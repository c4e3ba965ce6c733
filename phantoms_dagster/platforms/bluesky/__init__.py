"""Bluesky: a post is a record whose key we choose, so repeating a request never creates a second post."""
