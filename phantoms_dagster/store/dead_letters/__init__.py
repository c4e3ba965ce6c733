"""Dead letters: reading, replaying and discarding them."""
