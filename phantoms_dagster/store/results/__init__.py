"""What was read back of posts."""
