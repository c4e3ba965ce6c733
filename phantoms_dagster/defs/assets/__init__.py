"""The assets: those of the stages, generated from the table of stages, and the performance tables."""
