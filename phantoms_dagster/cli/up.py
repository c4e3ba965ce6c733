"""`phantoms up` and `phantoms sandbox`, which run until they are stopped."""

from __future__ import annotations

import gc
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from phantoms_dagster.cli.console import err, out, plain_errors, say

if TYPE_CHECKING:
    from phantoms_dagster.cli.stack import Running


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Run")(up)
    app.command(rich_help_panel="Run")(sandbox)


def up(
    home: Annotated[Path | None, typer.Option(help="Data directory; default: PHANTOMS_HOME, else .phantoms")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the Dagster UI; default: the previous one, at first 3000")] = None,
) -> None:
    """Start everything and keep it running: servers, migrations, Dagster, and the sandbox for services without a key.

    Ctrl-C stops everything and keeps the data. Without PHANTOMS_DATABASE_URL and PHANTOMS_REDIS_URL both servers are embedded.
    """
    # Imported here, because `sandbox` in this module runs just as long and should not hold them in memory.
    from phantoms_dagster.cli.stack import Stack  # noqa: PLC0415
    from phantoms_dagster.embedded.supervisor import interrupt_on_signals  # noqa: PLC0415
    from phantoms_dagster.settings import Settings  # noqa: PLC0415

    with plain_errors():
        settings = Settings(paths={} if home is None else {"home": home}, web={} if port is None else {"port": port})
        with interrupt_on_signals(), ExitStack() as until_the_end:
            with starting() as waiting:
                running = until_the_end.enter_context(Stack(settings, say=_say, warn=_warn, waiting=waiting))
            out.print(_where(running))
            out.print("Ctrl-C stops everything and keeps the data.", style="dim")
            with suppress(KeyboardInterrupt):  # Ctrl-C is the normal way to stop
                threading.Event().wait()
            err.print("[dim]stopping[/]")


def _say(line: str) -> None:
    say(f"[dim]{escape(line)}[/]", to=err)


def _warn(line: str) -> None:
    say(f"[yellow]{escape(line)}[/]", to=err)


@contextmanager
def starting() -> Iterator[Callable[[Sequence[str]], None]]:
    """Show a spinner on a terminal with what the start waits for. Yields the function that updates it."""
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status("starting") as spinner:
        yield lambda names: spinner.update(escape(f"waiting for {', '.join(names)}" if names else "starting"))


def _where(running: Running) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_row("[bold]Desk[/]", f"[link={running.desk_url}]{running.desk_url}[/link] to review videos")
    table.add_row("[bold]Dagster UI[/]", f"[link={running.web_url}]{running.web_url}[/link]")
    if running.sandbox_url:
        table.add_row("[bold]Sandbox[/]", f"{running.sandbox_url} replaces {', '.join(running.sandboxed)}")
    table.add_row("[bold]Metrics[/]", f"[link={running.metrics_url}]{running.metrics_url}[/link]")
    table.add_row("[bold]Data[/]", escape(str(running.home)))
    table.add_row("[bold]Inbox[/]", f"{escape(str(running.settings.inbox_path))} (drop Excel, CSV, JSON or YAML files)")
    table.add_row("[bold]Logs[/]", escape(str(running.home / "logs")))
    table.add_row("[bold]Next[/]", 'phantoms add "Why octopuses have three hearts"')
    return table


def sandbox(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1")] = 8321,
    seed: Annotated[int, typer.Option(help="Seed for all random choices")] = 1,
    fast_renders: Annotated[bool, typer.Option(help="Answer every render with one small prepared video")] = False,
    state: Annotated[
        Path | None, typer.Option(help="Folder that keeps its posts, renders and settings; default: they are lost when it stops")
    ] = None,
    media: Annotated[Path | None, typer.Option("--films", help="Media folder with the videos that its watch pages play")] = None,
) -> None:
    """Run only the sandbox: local stand-ins of every provider, with fault injection and a ledger of what they accepted.

    GET /_sandbox/ledger lists what took effect. POST /_sandbox/faults makes a route fail, for example
    {"route": "shotstack.render", "kind": "status", "status": 503, "retry_after": 2}.
    """
    from aiohttp import web  # noqa: PLC0415

    from phantoms_dagster.domain.errors import InvalidInput  # noqa: PLC0415
    from phantoms_dagster.sandbox.state_store import StateUnusable  # noqa: PLC0415
    from phantoms_dagster.wiring.sandbox import sandbox_application  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with plain_errors(), ExitStack() as until_the_end:
        if state is None:
            folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="phantoms-sandbox-")))
        else:
            folder = state.expanduser().absolute()
        try:
            application = sandbox_application(
                seed=seed,
                base_url=f"http://127.0.0.1:{port}",
                work_dir=folder,
                real_renders=not fast_renders,
                lasting=state is not None,
                media=media,
            )
        except StateUnusable as error:
            raise InvalidInput(str(error)) from error
        # The sandbox keeps everything that it receives. Scanning all of that for garbage would take a tenth of its time.
        gc.freeze()
        gc.set_threshold(10_000, 50, 1_000)
        web.run_app(application, host="127.0.0.1", port=port, print=None, access_log=None)
