"""`phantoms watch`: stages, events and what waits for people, live."""
