"""`phantoms demo`: three videos from brief to post, on its own servers."""
