"""`phantoms desk`: serve only the desk. `phantoms up` includes it."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from phantoms_dagster.cli.console import current, out, plain_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run")(desk)


def desk(
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; default: PHANTOMS_DESK_PORT, else 4000; 0: any free one")
    ] = None,
) -> None:
    """Serve the desk: web pages to review videos and handle failures. `phantoms up` includes this.

    Without users, only this machine can open it, without a log-in. Once `phantoms users add` has added a user, everybody logs in.
    """
    from phantoms_dagster.desk.serve import address, listening, serve  # noqa: PLC0415 - the help needs no web server
    from phantoms_dagster.wiring import logs  # noqa: PLC0415

    with plain_errors():
        settings = current()
        logs.configure(settings)
        with listening(settings.desk.host, settings.desk.port if port is None else port) as listener:
            where = address(settings, listener.getsockname()[1])
            out.print(f"the desk is at {where}; Ctrl-C stops it", soft_wrap=True)
            with suppress(KeyboardInterrupt):
                serve(settings, listener)
