"""Calendar feeds: secret addresses at which programs read the calendar without logging in. Only a hash of each secret is stored."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.users import digest

_COLUMNS = "id, channel, made_by, made_at, revoked_by, revoked_at"
_ADD = text(
    f"""
    INSERT INTO phantoms.calendar_feeds (secret_sha256, channel, made_by) VALUES (:secret, :channel, :made_by) RETURNING {_COLUMNS}
    """
)
_CHANNELS = text("SELECT name FROM phantoms.channels ORDER BY name")
_NEWEST = text(f"SELECT {_COLUMNS} FROM phantoms.calendar_feeds ORDER BY id DESC LIMIT :limit")
_FIND = text(f"SELECT {_COLUMNS} FROM phantoms.calendar_feeds WHERE secret_sha256 = :secret AND revoked_at IS NULL")
_LOCK = text(f"SELECT {_COLUMNS} FROM phantoms.calendar_feeds WHERE id = :id FOR UPDATE")
_REVOKE = text(
    f"""
    UPDATE phantoms.calendar_feeds SET revoked_by = :who, revoked_at = clock_timestamp() WHERE id = :id RETURNING {_COLUMNS}
    """
)


@dataclass(frozen=True)
class CalendarFeed:
    """A feed without its secret. `channel` is empty when it has the posts of all channels."""

    id: int
    channel: str
    made_by: str
    made_at: datetime
    revoked_by: str | None
    revoked_at: datetime | None


class CalendarFeeds:
    """Makes, lists and revokes feeds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, channel: str, actor: Actor) -> tuple[CalendarFeed, str]:
        """Make a feed. Returns it and its secret, which cannot be read again. Raises InvalidInput for an unknown channel."""
        secret = secrets.token_urlsafe(32)
        with self._engine.begin() as connection:
            names = list(connection.execute(_CHANNELS).scalars())
            if channel and channel not in names:
                raise InvalidInput(f"there is no channel {channel[:40]!r}; the channels are {', '.join(names)}")
            values = {"secret": digest(secret), "channel": channel, "made_by": actor.name}
            feed = CalendarFeed(**connection.execute(_ADD, values).mappings().one())
            note(connection, [AuditEntry(actor, "make calendar feed", _subject(feed), after=_shown(feed))])
        return feed, secret

    def revoke(self, number: int, actor: Actor) -> CalendarFeed:
        """Revoke a feed. Revoking it twice is no error. Raises NotFound."""
        with self._engine.begin() as connection:
            row = connection.execute(_LOCK, {"id": number}).mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no calendar feed {number}; `phantoms calendar feed list` shows them")
            feed = CalendarFeed(**row)
            if feed.revoked_at is not None:
                return feed
            feed = CalendarFeed(**connection.execute(_REVOKE, {"id": number, "who": actor.name}).mappings().one())
            note(connection, [AuditEntry(actor, "revoke calendar feed", _subject(feed), before=_shown(feed))])
        return feed

    def all(self, *, limit: int = 200) -> list[CalendarFeed]:
        """The feeds, newest first."""
        with self._engine.connect() as connection:
            return [CalendarFeed(**row) for row in connection.execute(_NEWEST, {"limit": limit}).mappings()]

    def find(self, secret: str) -> CalendarFeed | None:
        """The feed with that secret; None when there is none or it was revoked."""
        with self._engine.connect() as connection:
            row = connection.execute(_FIND, {"secret": digest(secret)}).mappings().one_or_none()
        return CalendarFeed(**row) if row is not None else None


def _subject(feed: CalendarFeed) -> str:
    return f"calendar feed {feed.id}"


def _shown(feed: CalendarFeed) -> dict[str, Any]:
    return {"channel": feed.channel or "all"}
