"""Circuit breakers that all processes share."""
