"""A command group that imports a command's module only when the command runs, not to list it in the help."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    # Typer carries its own copy of Click, whose command class has no public name.
    ClickCommand = TyperCommand | TyperGroup


@dataclass(frozen=True)
class LazyCommand:
    """A command's entry in the help. `module` is a module of this package whose `register` adds the command.

    `help` repeats the first paragraph of the command's own help, so that listing the commands imports nothing else.
    """

    name: str
    module: str
    panel: str
    help: str


class LazyGroup(TyperGroup):
    """A group whose commands are only names and help texts until one of them runs.

    Subclasses set `lines`, and `examples`, which are shown at the end of each command's help.
    """

    lines: Sequence[LazyCommand] = ()
    examples: Mapping[str, Sequence[str]] = {}

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._lines = {line.name: line for line in self.lines}
        for line in self.lines:
            shown = TyperCommand(line.name, help=line.help, rich_help_panel=line.panel, rich_markup_mode=self.rich_markup_mode)
            self.commands[line.name] = shown

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command in the arguments and import it. Listing and completing command names does not call this."""
        name, shown, rest = super().resolve_command(ctx, args)
        return name, self.loaded(name) if name in self._lines else shown, rest

    def loaded(self, name: str) -> ClickCommand:
        """Import the command's module and return the real command, which may be a group."""
        app = typer.Typer(rich_markup_mode=self.rich_markup_mode, pretty_exceptions_enable=False)
        app.callback()(_group)
        # Without this the garbage collector would scan thousands of new objects many times, and all of them stay.
        gc.disable()
        try:
            import_module(f"{__package__}.{self._lines[name].module}").register(app)
        finally:
            gc.freeze()
            gc.enable()
        found = typer.main.get_group(app).commands[name]
        if name in self.examples:
            found.epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in self.examples[name])])
        return found  # type: ignore[return-value]


def first_paragraph(command: ClickCommand) -> str:
    """Return the first paragraph of a command's help on one line, as the list of commands shows it."""
    text = command.short_help or command.help or ""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _group() -> None:
    """Make a Typer application a group even when it has only one command."""
