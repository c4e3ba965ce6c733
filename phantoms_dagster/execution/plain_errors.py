"""Shortens what Dagster's daemon logs while Redis or PostgreSQL is down: one line instead of a traceback at every evaluation."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import psycopg
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.private import dagster as private
from phantoms_dagster.store.away import in_words, is_away

if TYPE_CHECKING:
    from phantoms_dagster.private.dagster import SerializableErrorInfo


def process_exception(
    exc_info: tuple[type[BaseException], BaseException, object], logger: logging.Logger, log_message: str
) -> SerializableErrorInfo:
    """Handle an error of Dagster's daemons. Errors that do not come from a store are logged with their traceback, as usual."""
    error = exc_info[1]
    line = why_away(error)
    if line is None:
        return private.DaemonErrorCapture.default_process_exception(exc_info, logger, log_message)  # type: ignore[arg-type]  # passed through
    logger.error("%s: %s", log_message, line)
    return private.SerializableErrorInfo(message=line, stack=[], cls_name=type(error).__name__)


def why_away(error: BaseException) -> str | None:
    """Return in one line why a store does not answer, without its address; None for any other error."""
    if isinstance(error, RedisError):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Redis does not answer ({re.sub(r' to [^ ]+', '', lines[0])}); is `phantoms up` running?"
    if isinstance(error, StoreAway):
        return str(error)
    if isinstance(error, SQLAlchemyError | psycopg.Error) and is_away(error):
        return f"PostgreSQL does not answer ({in_words(error)}); is `phantoms up` running?"
    return None
