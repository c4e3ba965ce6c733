"""The renderer of this machine: ffmpeg."""
