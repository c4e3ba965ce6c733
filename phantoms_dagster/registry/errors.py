"""What is wrong with something that is to be registered."""

from __future__ import annotations


class CannotRegister(ValueError):
    """A platform or a provider that cannot be registered. The message says which package brings it and what to correct."""
