"""Assets: one file per stage."""
