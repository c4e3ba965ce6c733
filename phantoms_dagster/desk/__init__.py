"""The desk: web pages and an API to watch videos, decide on them, correct them and plan them.

It holds no business logic. Reads go through `store`, decisions through the same use cases as the command line.
docs/adding-a-page.md shows how to add a page.
"""
