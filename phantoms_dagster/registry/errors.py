"""The error that the registry raises."""

from __future__ import annotations


class CannotRegister(ValueError):
    """A platform or a provider cannot be registered.

    The message names the problem and, for a plugin, its package and the next step.
    """
