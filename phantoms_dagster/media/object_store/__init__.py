"""The media store in an S3-compatible object store."""
