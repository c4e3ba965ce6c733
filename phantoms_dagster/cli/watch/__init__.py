"""`phantoms watch`: the stages, the newest events and what waits for people, live."""
