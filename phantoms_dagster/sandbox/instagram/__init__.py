"""Instagram's stand-in."""
