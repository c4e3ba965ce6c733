"""An outbox: each post becomes a folder with the film, its words and its facts, for a person who posts by hand."""
