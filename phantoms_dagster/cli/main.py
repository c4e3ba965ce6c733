"""The command line's entry point. Commands stand in the files of their groups."""

from __future__ import annotations

import typer

from phantoms_dagster.cli import briefs, catalogue, demo, doctor, review, up
from phantoms_dagster.cli.console import plain_errors

app = typer.Typer(
    name="phantoms",
    help="Short-form video from brief to published posts, unattended.\n\n"
    'Try it: [bold]phantoms demo[/]. Run it: [bold]phantoms up[/], then [bold]phantoms add "Why octopuses have three hearts"[/].',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

for group in (up, demo, briefs, catalogue, review, doctor):
    group.register(app)


def main() -> None:
    """Run the command that the arguments name."""
    with plain_errors():
        app(standalone_mode=True)


if __name__ == "__main__":
    main()
