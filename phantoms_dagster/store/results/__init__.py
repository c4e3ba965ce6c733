"""The metrics that were read back, and the sums for the desk."""
