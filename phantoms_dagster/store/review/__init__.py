"""Videos that wait for a decision, and the notices about them."""
