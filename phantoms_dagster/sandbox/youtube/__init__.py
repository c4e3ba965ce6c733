"""The stand-in for YouTube."""
