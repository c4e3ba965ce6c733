"""`phantoms logs`: what all processes on this machine logged about one video, in time order."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import current, err, out, plain, plain_errors, print_json
from phantoms_dagster.cli.log_files import LogFiles, LogLine
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services

POLL_SECONDS = 0.5
# Give up on a hanging database after this time. The log lines are in files and do not need it.
MAX_WAIT_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(logs)


def logs(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1_000_000, help="Show this many of the newest lines")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line")] = False,
) -> None:
    """Show what all processes on this machine logged about one video, in time order.

    Times are in UTC, as logged. It works without a database when you give the whole key.
    """
    with plain_errors():
        settings = current()
        folder = logs_folder(settings.paths.home)
        key = _key(settings, video)
        files = LogFiles(folder, key)
        if not files:
            raise NotFound(
                f"there are no log files in {folder}: `phantoms up` writes them. For containers use `docker compose logs`"
            )
        found = files.read()[-lines:]
        _print(found, as_json=as_json)
        if not found:
            waiting = "waiting for the first one until Ctrl-C" if follow else "--follow waits for the first one"
            err.print(f"no log lines about {plain(key)} so far; {waiting}", style="yellow", soft_wrap=True)
        with suppress(KeyboardInterrupt):  # Ctrl-C is the normal way to stop
            while follow:
                time.sleep(POLL_SECONDS)
                _print(files.read(), as_json=as_json)


def _print(lines: Iterable[LogLine], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            print_json({"at": line.at, "process": line.process, "text": line.text})
        else:
            out.print(f"[dim]{plain(line.process):<11}[/] {plain(line.text)}", soft_wrap=True)


def _key(settings: Settings, video: str) -> str:
    """Return the video's key. Without a database, that is what the user typed: logs matter most when the database is down."""
    if settings.database.url is None:
        _whole("no database is running", video)
        return video
    services = Services(settings, max_wait=MAX_WAIT_SECONDS)
    try:
        return services.catalogue().find(video)
    except SQLAlchemyError:
        _whole("the database does not answer", video)
        return video
    finally:
        services.close()


def _whole(why: str, video: str) -> None:
    said = f"{why}, so keys cannot be looked up: using {plain(video)} as the whole key"
    err.print(said, style="yellow", soft_wrap=True)


def logs_folder(home: Path) -> Path:
    """Return the log folder of a data directory."""
    return home.expanduser().absolute() / "logs"
