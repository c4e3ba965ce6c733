"""Turns exceptions into messages for the user: our own, and those of settings, database and HTTP. `cli.console` prints them."""

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
    """Return the message and the exit code for an expected error; None for any other."""
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
    import httpx  # noqa: PLC0415 - few commands make HTTP requests

    if isinstance(error, httpx.HTTPError):
        return f"no answer from {error.request.url.host}:{error.request.url.port} ({type(error).__name__})", FAILED
    return None


def database_problem(error: SQLAlchemyError) -> str:
    """Return what is wrong with the database and what to do. Never repeats the URL: a mistyped one may show a password."""
    found = error.orig if isinstance(error, DBAPIError) else error
    line = (str(found).strip().splitlines() or [type(error).__name__])[0][:300]
    state = getattr(found, "sqlstate", None)
    if state in _NO_SCHEMA:
        return "the database is not set up yet; `phantoms up` or `phantoms init` does it"
    if state is None and "resolve host" in line:
        return "the host in PHANTOMS_DATABASE_URL cannot be found (in a password, write @ : / and % as %40 %3A %2F and %25)"
    if state is None:
        return f"PostgreSQL does not answer ({line.split(' failed: ', 1)[-1]}); is `phantoms up` running?"
    return f"PostgreSQL reported an error ({line})"
