"""YouTube's stand-in."""
