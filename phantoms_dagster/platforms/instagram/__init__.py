"""Instagram: reels by container, published by `media_publish`."""
