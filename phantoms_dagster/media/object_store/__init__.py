"""The media store on an object store, by the S3 protocol."""
