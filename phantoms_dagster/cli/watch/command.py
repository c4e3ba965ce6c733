"""`phantoms watch`: the command. `loop` reads the data and runs the screen."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from phantoms_dagster.cli.console import current, err, out, plain_errors
from phantoms_dagster.embedded.supervisor import interrupt_on_signals


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(watch)


def watch(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each event, until Ctrl-C")] = False,
) -> None:
    """Watch stages and events live, and open and approve videos. Press q to quit.

    Without a terminal it prints one line per event.
    """
    with plain_errors(), interrupt_on_signals(), suppress(KeyboardInterrupt):
        screen = not as_json and out.is_terminal and sys.stdin.isatty()
        told = "reading the database ..." if screen else "watching: one line per event, until Ctrl-C"
        err.print(told, style="dim", soft_wrap=True)  # print first: the imports below take a second
        from phantoms_dagster.cli.watch.loop import WatchPoller, print_events, run_screen  # noqa: PLC0415 - it imports the database library
        from phantoms_dagster.wiring import Services  # noqa: PLC0415

        services = Services(current())
        try:
            looks = WatchPoller(services)
            looks.look()  # a missing database ends the command here, with the usual message
            if screen:
                run_screen(looks, services)
            else:
                print_events(looks, as_json=as_json)
        finally:
            services.close()
