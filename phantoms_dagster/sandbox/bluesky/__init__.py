"""Bluesky's stand-in: an account's own server and the video service."""
