"""`phantoms worker`: start workers on this machine. `execution.worker` is what they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from phantoms_dagster.cli.console import current, out, plain_errors
from phantoms_dagster.execution.home import dagster_home, prepare
from phantoms_dagster.execution.slots import redis_url, slots_of
from phantoms_dagster.wiring.up_lock import nothing_runs

EVENT_BATCH = "500"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run")(worker)


def worker(
    queues: Annotated[
        str | None,
        typer.Option(
            help="Workers per queue, such as script=2,rendered_video=1. Default: PHANTOMS_WORKER_SLOTS, else one per queue",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run Dagster runs on this machine. `phantoms up` starts workers; this adds more, here or on other machines.

    Each stage has a queue with its name (script, voiceover, rendered_video, approval, youtube_variant, youtube_post and so on).
    Runs over several stages go to `default`. A worker listens on one queue and executes one run at a time, which may hold many
    videos. More workers on a queue run more of that stage at once, and a flood in one queue does not delay the others.

    On another machine, set PHANTOMS_DATABASE_URL and PHANTOMS_REDIS_URL to the servers of the first one.

    Ctrl-C or SIGTERM stops taking new runs. Current runs get PHANTOMS_WORKER_GRACE_SECONDS; then they are handed back, and another
    worker resumes them. kill -HUP reloads the code; current runs finish with the old code.
    """
    with plain_errors():
        settings = current()
        slots = slots_of(settings, queues)
        redis_url(settings)
        if settings.dagster_url() is None:
            raise nothing_runs(settings, "database")
        home = settings.paths.home.expanduser().absolute()
        os.environ["PHANTOMS_HOME"] = str(home)
        if given_home := os.environ.get("DAGSTER_HOME"):
            os.environ["DAGSTER_HOME"] = str(dagster_home(Path(given_home)))
        else:
            written = home / "dagster"
            # A running `phantoms up` reads this file too, so do not change it.
            running = (written / "dagster.yaml").exists()
            os.environ["DAGSTER_HOME"] = str(dagster_home(written) if running else prepare(home, settings))
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH)
        out.print("workers: " + ", ".join(f"{name}={count}" for name, count in slots.items()), soft_wrap=True)
        sys.stdout.flush()
        given = ["--queues", queues] if queues else []
        # Replace this process: the workers' parent forks, so it must be small and single-threaded.
        os.execv(sys.executable, [sys.executable, "-P", "-m", "phantoms_dagster.execution.worker", *given])  # noqa: S606
