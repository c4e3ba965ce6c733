"""An outbox: each post becomes a folder with the video, its words and its data, for a person who posts by hand."""
