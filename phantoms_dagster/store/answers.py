"""Stores answers for a day, so that a request that is sent twice runs only once.

The answer is written in the same transaction as the work. A process that is killed in between has done neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import OperationalError

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.engine import reading

KEPT = timedelta(days=1)
# How long a second request waits for the first one with the same key.
WAIT_MILLISECONDS = 5_000
_LOCK_NOT_AVAILABLE = "55P03"

FORGET = text(
    """
    DELETE FROM phantoms.api_answers WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM phantoms.api_answers WHERE made_at < clock_timestamp() - CAST(:kept AS interval)
        ORDER BY made_at LIMIT 100 FOR UPDATE SKIP LOCKED))
    """
)
# This waits while another transaction holds the same key, and finds its row after the commit.
_TAKE = text(
    """
    INSERT INTO phantoms.api_answers (who, key, body_sha256) VALUES (:who, :key, :body) ON CONFLICT DO NOTHING RETURNING 1
    """
)
FOUND = text(
    """
    SELECT body_sha256, status, answer, made_at < clock_timestamp() - CAST(:kept AS interval) AS old FROM phantoms.api_answers
    WHERE who = :who AND key = :key FOR UPDATE
    """
)
KNOWN = text(
    """
    SELECT body_sha256, status, answer FROM phantoms.api_answers
    WHERE who = :who AND key = :key AND status IS NOT NULL AND made_at >= clock_timestamp() - CAST(:kept AS interval)
    """
)
_AGAIN = text(
    """
    UPDATE phantoms.api_answers SET body_sha256 = :body, made_at = clock_timestamp() WHERE who = :who AND key = :key
    """
)
_ANSWER = text("UPDATE phantoms.api_answers SET status = :status, answer = CAST(:answer AS jsonb) WHERE who = :who AND key = :key")


class StillBusy(InvalidInput):
    """The first request with that key is still being answered."""


@dataclass(frozen=True)
class StoredAnswer:
    """An answer: its HTTP status and its body as JSON values."""

    status: int
    body: Any


class Answers:
    """Runs work once for each idempotency key."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def once(self, who: str, key: str | None, body: str, work: Callable[[Connection], StoredAnswer]) -> StoredAnswer:
        """The answer of `work`, or the stored answer to the same `body` with that key. Without a key the work always runs.

        Raises InvalidInput when the key was used with another body, and StillBusy while the first request is being answered.
        """
        with self._engine.begin() as connection:
            if key is None:
                return work(connection)
            values = _values(who, key, body)
            connection.execute(FORGET, {"kept": KEPT})
            if (said := self._taken(connection, values)) is not None:
                return said
            connection.execute(text("SET LOCAL lock_timeout = DEFAULT"))
            said = work(connection)
            connection.execute(_ANSWER, {**values, "status": said.status, "answer": json.dumps(said.body)})
            return said

    def known(self, who: str, key: str | None, body: str) -> StoredAnswer | None:
        """The stored answer to the same `body` with that key, or None. Raises InvalidInput for another body.

        For requests that are checked before they run: their subject may no longer exist when they are repeated.
        """
        if key is None:
            return None
        values = _values(who, key, body)
        with reading(self._engine).connect() as connection:
            row = connection.execute(KNOWN, {**values, "kept": KEPT}).one_or_none()
        return None if row is None else _same(row, values)

    def _taken(self, connection: Connection, values: dict[str, str]) -> StoredAnswer | None:
        """The answer stored under this key; None when this request has just taken the key."""
        connection.execute(text(f"SET LOCAL lock_timeout = {WAIT_MILLISECONDS}"))
        try:
            if connection.execute(_TAKE, values).scalar() is not None:
                return None
            row = connection.execute(FOUND, {**values, "kept": KEPT}).one_or_none()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise StillBusy("The first request with that Idempotency-Key is not answered yet; send it again later.") from error
            raise
        if row is None:
            raise StillBusy("The Idempotency-Key was forgotten just now; send the request again.")
        if row.old:
            connection.execute(_AGAIN, values)
            return None
        return _same(row, values)


def _values(who: str, key: str, body: str) -> dict[str, str]:
    return {"who": who, "key": key, "body": hashlib.sha256(body.encode()).hexdigest()}


def _same(row: Row[Any], values: dict[str, str]) -> StoredAnswer:
    """The answer in that row. Raises InvalidInput when it belongs to another body."""
    if row.body_sha256 != values["body"]:
        raise InvalidInput("that Idempotency-Key was used for another request; use a new key for a new body")
    return StoredAnswer(row.status, row.answer)
