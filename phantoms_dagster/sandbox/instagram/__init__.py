"""The stand-in for Instagram."""
