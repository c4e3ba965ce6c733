"""Assets: those of the stages, which follow from their table, and the tables of results."""
