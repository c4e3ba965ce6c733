"""TikTok: direct posts, uploaded in chunks. The last chunk publishes."""
