"""The web pages where people watch, decide, correct and plan.

It decides nothing by itself: reads go through `store`, decisions through the use cases that the command line uses. How a page is
added: docs/desk.md.
"""
