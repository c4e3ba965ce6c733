"""YouTube: Shorts, uploaded as private with a resumable upload, then made public."""
