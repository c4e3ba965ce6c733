"""What commands print with, and how their errors reach a person: a message with the next step, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import OperationalError, ProgrammingError

from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130

STATE_STYLES = {
    "done": "green",
    "running": "cyan",
    "ready": "blue",
    "deferred": "yellow",
    "failed": "red",
    "rejected": "magenta",
    "discarded": "dim",
    "blocked": "dim",
}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turns errors that a person can do something about into a message and an exit code: 2 bad input, 1 failed."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        _stop(str(error), BAD_INPUT)
    except PhantomsError as error:
        _stop(str(error), FAILED)
    except ValidationError as error:
        _stop(_bad_settings(error), BAD_INPUT)
    except OperationalError as error:
        _stop(f"PostgreSQL does not answer ({_first_line(error.orig)}); is `phantoms up` running?", FAILED)
    except ProgrammingError as error:
        _stop(f"the database has not been prepared ({_first_line(error.orig)}); `phantoms up` does it", FAILED)
    except httpx.HTTPError as error:
        _stop(f"no answer from {error.request.url.host}:{error.request.url.port} ({type(error).__name__})", FAILED)
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _stop(message: str, code: int) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(code)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _bad_settings(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_input=False):
        name = "PHANTOMS_" + "_".join(str(part) for part in problem["loc"]).upper()
        problems.append(f"{name}: {problem['msg']}")
    return "; ".join(problems)
