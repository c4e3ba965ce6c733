"""The renderer on this machine, which uses ffmpeg."""
