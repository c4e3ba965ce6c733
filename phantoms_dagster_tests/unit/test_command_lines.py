"""The table of commands, from which the help is made, agrees with the commands."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from phantoms_dagster.cli.lazy import LazyCommand, first_paragraph
from phantoms_dagster.cli.main import LINES, app
from phantoms_dagster_tests.program import whole_program


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_a_line_of_the_table_repeats_its_commands_help_and_panel(line: LazyCommand) -> None:
    command = whole_program().commands[line.name]
    assert isinstance(command, TyperCommand | TyperGroup)
    assert first_paragraph(command) == line.help
    assert getattr(command, "rich_help_panel", None) == line.panel


def test_the_table_lists_every_command_that_a_module_registers() -> None:
    listed = defaultdict(set)
    for line in LINES:
        listed[line.module].add(line.name)
    for module, names in listed.items():
        registered = typer.Typer()
        registered.callback()(lambda: None)
        import_module(f"phantoms_dagster.cli.{module}").register(registered)
        assert set(typer.main.get_group(registered).commands) == names, module


def test_the_help_shows_each_line_in_its_panel() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}).stdout
    for line in LINES:
        assert f" {line.name} " in shown
        assert line.help.replace("`", "") in shown.replace("`", "")


def test_a_mistyped_command_gets_the_right_one_suggested_without_importing_it() -> None:
    result = CliRunner().invoke(app, ["statsu"])
    assert result.exit_code == 2
    assert "Did you mean 'status'" in result.output
