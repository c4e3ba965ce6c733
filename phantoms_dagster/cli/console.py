"""Output of commands. Errors become a message with the next step, never a traceback."""

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

from phantoms_dagster.cli.entry import INTERRUPTED, READING, interrupted
from phantoms_dagster.cli.sentence import WrappedText

if TYPE_CHECKING:
    from phantoms_dagster.settings import Settings


class _Screen(Console):
    """A console that raises BrokenPipeError when the reader is gone (`| head`), instead of exiting with 1."""

    def on_broken_pipe(self) -> None:
        """See the base class, which calls it where it has caught that error."""
        raise  # noqa: PLE0704


# A title may contain `:fire:` or `[red]`; show it as written.
out = _Screen(highlight=False, emoji=False)
err = _Screen(stderr=True, highlight=False, emoji=False)

BAD_INPUT = 2
FAILED = 1
# The exit code that a shell reports for a program killed by SIGPIPE, such as `yes` in `yes | head`.
READER_GONE = 128 + signal.SIGPIPE
MESSAGE_CHARACTERS = 4_000
# What the user can do about a folder that cannot be used.
_NEXT_STEPS = {
    errno.ENOSPC: "free some space there, or set PHANTOMS_HOME (or PHANTOMS_MEDIA) to a folder on a larger disk",
    errno.EDQUOT: "free some space there, or set PHANTOMS_HOME (or PHANTOMS_MEDIA) to a folder on another disk",
    errno.EROFS: "that disk is read-only; set PHANTOMS_HOME to a writable folder",
    errno.EACCES: "this user has no permission; grant it, or set PHANTOMS_HOME to a folder that this user owns",
    errno.EPERM: "this user has no permission; grant it, or set PHANTOMS_HOME to a folder that this user owns",
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
    """Turn expected errors into a message and an exit code: 2 for bad input, 1 for failures."""
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
        code = interrupted(sys.argv[1:])
        if code:
            unchanged = ": nothing was changed" if READING.intersection(sys.argv[1:2]) else ""
            err.print(f"\ninterrupted{unchanged}", markup=False, highlight=False)
        raise typer.Exit(code) from None
    except Exception as error:
        from phantoms_dagster.registry.errors import CannotRegister  # noqa: PLC0415

        if isinstance(error, CannotRegister):  # then `cli.problems` cannot be imported either
            _stop(str(error), BAD_INPUT)
        # This imports many libraries for their exceptions, so only a failing command does it.
        from phantoms_dagster.cli.problems import problem  # noqa: PLC0415

        found = problem(error)
        if found is None:
            raise
        _stop(*found)


def whole_number(text: str) -> int:
    """Read an id that a person typed. Typer's own message is about parsing."""
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(f"{text!r} is not a number")
    return int(text)


@contextmanager
def if_interrupted(said: Callable[[], str]) -> Iterator[None]:
    """Say after Ctrl-C what became of the command, and end it."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"\ninterrupted: {said()}", markup=False, highlight=False)
        raise typer.Exit(INTERRUPTED) from None


def reader_gone(*_: object) -> NoReturn:
    """Exit quietly because the reader of the output is gone (`| head`)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # Buffered output must not raise again at exit. The other stream may be a terminal; leave it alone.
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    raise SystemExit(READER_GONE)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if it is a terminal. Yields a function that advances it by a count."""
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def current() -> Settings:
    """Return the current settings, including the URLs of a running `phantoms up`."""
    from phantoms_dagster import settings  # noqa: PLC0415 - the help needs no settings

    return settings.load()


def print_json(value: Any) -> None:
    """Print one JSON object on standard output, in ASCII, so that no terminal encoding can break it."""
    sys.stdout.write(json.dumps(value, default=_jsonable) + "\n")
    sys.stdout.flush()


def print_result(fields: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Print what was done, as a JSON object or as a line."""
    if as_json:
        print_json(fields)
    else:
        out.print(line, soft_wrap=True, markup=False)


def plain(text: str) -> str:
    """Escape text for output: brackets are not markup, and control characters cannot affect the terminal."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def say(text: str, *, style: str | None = None, to: Console = out) -> None:
    """Print a sentence. On a terminal it wraps between words, never inside a command; in a file it is one line."""
    if to.is_terminal:
        to.print(WrappedText(text), style=style, crop=False)
    else:
        to.print(text, style=style, soft_wrap=True)


def report(message: str) -> None:
    """Print an error message on standard error, cut to MESSAGE_CHARACTERS."""
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
