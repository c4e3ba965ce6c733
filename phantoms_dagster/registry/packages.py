"""The entry points of other packages. Each process reads them once, because that takes 17 ms of CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from phantoms_dagster.registry.errors import CannotRegister


@cache
def _all() -> tuple[EntryPoint, ...]:
    every = entry_points()
    return tuple(entry for group in every.groups if group.startswith("phantoms.") for entry in every.select(group=group))


def of_group(group: str) -> Iterator[EntryPoint]:
    """Return the entry points of the group, by name."""
    yield from sorted((entry for entry in _all() if entry.group == group), key=lambda entry: entry.name)


def cannot_register(kind: str, entry: EntryPoint, error: Exception) -> CannotRegister:
    """Return the error that stops the program. It names the package, the problem and the way out."""
    package = entry.dist.name if entry.dist is not None else entry.value
    message = f"the {kind} {entry.name!r} of the package {package} cannot be registered: {type(error).__name__}: {error}"
    return CannotRegister(f"{message}; correct the package, or uninstall it: pip uninstall {package}")
