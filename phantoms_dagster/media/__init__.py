"""Local media work: the voice, captions, the ffmpeg graph, probing, fitting, and the folder that keeps the files."""
