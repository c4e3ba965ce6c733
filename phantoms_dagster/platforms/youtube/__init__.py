"""YouTube: Shorts by resumable upload, made public by a change of privacy."""
