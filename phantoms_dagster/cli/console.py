"""What commands print with, and how their errors reach a person: a message with the next step, never a traceback."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

import httpx
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError
from phantoms_dagster.domain.problems import first_problem

# A title may hold `:fire:` and `[red]`: it is shown as it was written.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130
MESSAGE_CHARACTERS = 4_000

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

# https://www.postgresql.org/docs/current/errcodes-appendix.html: no such table, no such schema.
_NO_SCHEMA = ("42P01", "3F000")


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
        _stop(_invalid(error), BAD_INPUT)
    except SettingsError as error:
        # It names the field in quotes, and never what was given for it.
        field = re.search(r'field "(\w+)"', str(error))
        name = f"PHANTOMS_{field[1].upper()}" if field else "a setting"
        _stop(f"{name} cannot be read: it must be JSON, as the README's table of settings shows", BAD_INPUT)
    except UnicodeEncodeError:
        _stop("an argument contains bytes that are not UTF-8", BAD_INPUT)
    except SQLAlchemyError as error:
        _stop(database_problem(error), FAILED)
    except httpx.HTTPError as error:
        _stop(f"no answer from {error.request.url.host}:{error.request.url.port} ({type(error).__name__})", FAILED)
    except BrokenPipeError:
        # The reader (`| head`) has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except OSError as error:
        _stop(f"{error.filename or 'the system'}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, only when that is a terminal; the function moves it on by so many."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def print_json(value: Any) -> None:
    """One JSON object on standard output, in ASCII, so that no terminal's encoding can spoil it."""
    sys.stdout.write(json.dumps(value, default=_jsonable) + "\n")
    sys.stdout.flush()


def plain(text: str) -> str:
    """The text as it is: its brackets are no markup, and its control characters do nothing to the terminal."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def local(moment: datetime | None) -> str:
    """A time as people here write it."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def database_problem(error: SQLAlchemyError) -> str:
    """What is wrong with the database and what to do. Nothing of its URL is repeated: a mistyped one is half a password."""
    found = error.orig if isinstance(error, DBAPIError) else error
    line = (str(found).strip().splitlines() or [type(error).__name__])[0][:300]
    state = getattr(found, "sqlstate", None)
    if state in _NO_SCHEMA:
        return "the database has not been prepared; `phantoms up` does it"
    if state is None and "resolve host" in line:
        return "the host in PHANTOMS_DATABASE_URL is not known (write @ : / and % in a password as %40 %3A %2F and %25)"
    if state is None:
        return f"PostgreSQL does not answer ({line.split(' failed: ', 1)[-1]}); is `phantoms up` running?"
    return f"PostgreSQL refused ({line})"


def report(message: str) -> None:
    """An error message on standard error, of bounded length, in lines that the terminal breaks and a file does not."""
    short = message if len(message) <= MESSAGE_CHARACTERS else message[:MESSAGE_CHARACTERS] + "…"
    err.print(f"[bold red]error:[/] {plain(short)}", soft_wrap=True)


def _stop(message: str, code: int) -> NoReturn:
    report(message)
    raise typer.Exit(code) from None


def _jsonable(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return float(value)
        case _:
            return str(value)


def _invalid(error: ValidationError) -> str:
    """Which setting is wrong and why; never its value, which may be a secret in the wrong place."""
    if error.title != "Settings":
        return f"a stored {error.title} cannot be read: {first_problem(error)}"
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = "PHANTOMS_" + "_".join(str(part) for part in problem["loc"]).upper()
        problems.append(f"{name}: {problem['msg']}")
    return "; ".join(problems)
