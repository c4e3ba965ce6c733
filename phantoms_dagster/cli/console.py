"""What commands print with, and how their errors reach a person: a message with the next step, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from phantoms_dagster.cli.entry import interrupted
from phantoms_dagster.cli.sentence import WrappedText

if TYPE_CHECKING:
    from phantoms_dagster.settings import Settings


class _Screen(Console):
    """A console that tells of a reader who has gone (`| head`) by BrokenPipeError, not by ending the program with 1."""

    def on_broken_pipe(self) -> None:
        """See the base class, which calls it where it has caught that error."""
        raise  # noqa: PLE0704


# A title may hold `:fire:` and `[red]`: it is shown as it was written.
out = _Screen(highlight=False, emoji=False)
err = _Screen(stderr=True, highlight=False, emoji=False)

BAD_INPUT = 2
FAILED = 1
# What a shell says of a program that ended because nobody reads its output any more, as `yes | head` does.
READER_GONE = 128 + signal.SIGPIPE
MESSAGE_CHARACTERS = 4_000
# What a person can do about a folder that cannot be used.
_NEXT_STEPS = {
    errno.ENOSPC: "make room there, or set PHANTOMS_HOME (or PHANTOMS_MEDIA) to a folder on a larger disk",
    errno.EDQUOT: "make room there, or set PHANTOMS_HOME (or PHANTOMS_MEDIA) to a folder on another disk",
    errno.EROFS: "that disk is read-only: set PHANTOMS_HOME to a folder that can be written to",
    errno.EACCES: "this user may not use that: give it the right, or set PHANTOMS_HOME to a folder of its own",
    errno.EPERM: "this user may not do that: give it the right, or set PHANTOMS_HOME to a folder of its own",
}

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
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        reader_gone()
    except OSError as error:
        next_step = _NEXT_STEPS.get(error.errno or 0)
        _stop(f"{error.filename or 'the system'}: {error.strerror or error}{f'; {next_step}' if next_step else ''}", FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(interrupted(sys.argv[1:])) from None
    except Exception as error:
        from phantoms_dagster.registry.errors import CannotRegister  # noqa: PLC0415

        if isinstance(error, CannotRegister):  # then even the module below cannot be imported
            _stop(str(error), BAD_INPUT)
        # The module knows the errors of many libraries, and imports them: only a command that fails pays for that.
        from phantoms_dagster.cli.problems import problem  # noqa: PLC0415

        found = problem(error)
        if found is None:
            raise
        _stop(*found)


def reader_gone(*_: object) -> NoReturn:
    """End quietly because the reader of the output has gone (`| head`)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # What is still buffered must not raise again at exit. A terminal on the other stream is left alone.
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    raise SystemExit(READER_GONE)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, only when that is a terminal; the function moves it on by so many."""
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def current() -> Settings:
    """The settings in force, with what a running `phantoms up` left for us."""
    from phantoms_dagster import settings  # noqa: PLC0415 - the help needs no settings

    return settings.load()


def print_json(value: Any) -> None:
    """One JSON object on standard output, in ASCII, so that no terminal's encoding can spoil it."""
    sys.stdout.write(json.dumps(value, default=_jsonable) + "\n")
    sys.stdout.flush()


def told(fields: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Say what was done, as one JSON object or as a line."""
    if as_json:
        print_json(fields)
    else:
        out.print(line, soft_wrap=True, markup=False)


def plain(text: str) -> str:
    """The text as it is: its brackets are no markup, and its control characters do nothing to the terminal."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def say(text: str, *, style: str | None = None, to: Console = out) -> None:
    """A sentence: a terminal gets it in lines that end between words and never in a command, a file gets it in one."""
    if to.is_terminal:
        to.print(WrappedText(text), style=style, crop=False)
    else:
        to.print(text, style=style, soft_wrap=True)


def report(message: str) -> None:
    """An error message on standard error, of bounded length."""
    short = message if len(message) <= MESSAGE_CHARACTERS else message[:MESSAGE_CHARACTERS] + "…"
    say(f"[bold red]error:[/] {plain(short)}", to=err)


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
