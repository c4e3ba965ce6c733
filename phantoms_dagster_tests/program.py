"""The program with every command imported, for tests that look at options."""

from __future__ import annotations

import typer

from phantoms_dagster.cli.lazy import LazyGroup
from phantoms_dagster.cli.main import app


def whole_program() -> LazyGroup:
    """The program's group, whose `commands` are the real ones."""
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    for name in list(group.commands):
        group.commands[name] = group.loaded(name)
    return group
