"""TikTok: direct posts in chunks, published with the last one."""
