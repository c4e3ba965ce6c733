"""Media work on this machine: the voice, captions, rendering with ffmpeg, probing, fitting to platforms, and the media stores."""
