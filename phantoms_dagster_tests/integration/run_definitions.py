"""Small definitions for the tests of run workers: each step leaves lines in a folder, and waits if its config says so.

The worker processes of those tests load this module by name.
"""

import asyncio
import os
from pathlib import Path

import dagster as dg

from phantoms_dagster.defs.interrupt import run_interruptible

MARKS = "RUN_WORLD_MARKS"


def marks() -> Path:
    """The folder in which steps leave their lines."""
    return Path(os.environ[MARKS])


def note(run_id: str, line: str) -> None:
    """Add a line to what is known about a run."""
    with (marks() / run_id).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@dg.op
def quick(context: dg.OpExecutionContext) -> None:
    """Leaves `begun` and `done`, each with its process id."""
    note(context.run_id, f"begun {os.getpid()}")
    note(context.run_id, f"done {os.getpid()}")


@dg.op
def waiting(context: dg.OpExecutionContext) -> None:
    """Leaves `begun`, waits for the file `go`, as a stage waits for its calls, and leaves `done`."""

    async def body() -> None:
        while not (marks() / "go").exists():  # noqa: ASYNC110 - a test in another process sets it
            await asyncio.sleep(0.02)

    note(context.run_id, f"begun {os.getpid()}")
    with asyncio.Runner() as loop:
        run_interruptible(body(), loop)
    note(context.run_id, f"done {os.getpid()}")


@dg.job(executor_def=dg.in_process_executor, tags={"phantoms/stage": "script"})
def quick_job() -> None:
    """Ends at once."""
    quick()


@dg.job(executor_def=dg.in_process_executor, tags={"phantoms/stage": "script"})
def waiting_job() -> None:
    """Ends when it may."""
    waiting()


defs = dg.Definitions(jobs=[quick_job, waiting_job])
