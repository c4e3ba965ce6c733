"""Instagram: reels, uploaded into a container and published by `media_publish`."""
