"""What Dagster's daemon logs when Redis or PostgreSQL is away: one line, because a traceback would come with every look."""

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
    """Dagster's hook for errors of its daemons. Errors that are no store's are logged as ever, with their traceback."""
    error = exc_info[1]
    line = why_away(error)
    if line is None:
        return private.DaemonErrorCapture.default_process_exception(exc_info, logger, log_message)  # type: ignore[arg-type]  # as it was given
    logger.error("%s: %s", log_message, line)
    return private.SerializableErrorInfo(message=line, stack=[], cls_name=type(error).__name__)


def why_away(error: BaseException) -> str | None:
    """Why a store does not answer, in a line without its address; None for any other error."""
    if isinstance(error, RedisError):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Redis does not answer ({re.sub(r' to [^ ]+', '', lines[0])}); is `phantoms up` running?"
    if isinstance(error, StoreAway):
        return str(error)
    if isinstance(error, SQLAlchemyError | psycopg.Error) and is_away(error):
        return f"PostgreSQL does not answer ({in_words(error)}); is `phantoms up` running?"
    return None
