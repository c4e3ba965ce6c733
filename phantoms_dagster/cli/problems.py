"""Errors in words for a person: ours, and those of settings, database and HTTP. `cli.console` prints them."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from phantoms_dagster.cli.console import BAD_INPUT, FAILED
from phantoms_dagster.cli.settings_problems import settings_problem
from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError
from phantoms_dagster.domain.problems import first_problem

# https://www.postgresql.org/docs/current/errcodes-appendix.html: no such table, no such schema.
_NO_SCHEMA = ("42P01", "3F000")


def problem(error: Exception) -> tuple[str, int] | None:
    """The message for a person and the exit code; None for an error that nobody expects."""
    match error:
        case InvalidInput() | NotFound():
            return str(error), BAD_INPUT
        case PhantomsError():
            return str(error), FAILED
        case UnicodeEncodeError():
            return "an argument contains bytes that are not UTF-8", BAD_INPUT
        case ValidationError() if error.title == "Settings":
            return settings_problem(error), BAD_INPUT
        case ValidationError():
            return f"a stored {error.title} cannot be read: {first_problem(error)}", BAD_INPUT
        case SQLAlchemyError():
            return database_problem(error), FAILED
    import httpx  # noqa: PLC0415 - few commands call somebody

    if isinstance(error, httpx.HTTPError):
        return f"no answer from {error.request.url.host}:{error.request.url.port} ({type(error).__name__})", FAILED
    return None


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
