"""The stand-in for Bluesky: an account's own server and the video service."""
