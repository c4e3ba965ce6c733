"""`phantoms watch`: everything at a glance, again and again. What it looks at, and how, is in `watch_loop`."""

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
    """Watch the stages, the newest events and what waits for you; open and approve films. Ends with q.

    Where there is no terminal it prints a line for each event.
    """
    with plain_errors(), interrupt_on_signals(), suppress(KeyboardInterrupt):
        screen = not as_json and out.is_terminal and sys.stdin.isatty()
        told = "reading the database ..." if screen else "watching: a line for each event, until Ctrl-C"
        err.print(told, style="dim", soft_wrap=True)  # at once: what comes next takes a second
        from phantoms_dagster.cli.watch.loop import WatchLooks, lines, screened  # noqa: PLC0415 - with it comes the database's library
        from phantoms_dagster.wiring import Services  # noqa: PLC0415

        services = Services(current())
        try:
            looks = WatchLooks(services)
            looks.look()  # a database that is not there is told as by every other command
            if screen:
                screened(looks, services)
            else:
                lines(looks, as_json=as_json)
        finally:
            services.close()
