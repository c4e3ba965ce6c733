"""TikTok's stand-in."""
