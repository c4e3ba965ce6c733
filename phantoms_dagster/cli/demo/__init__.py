"""`phantoms demo`: three videos from brief to post, on servers of its own."""
