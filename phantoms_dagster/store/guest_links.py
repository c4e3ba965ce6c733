"""Guest links: a person without a user account makes one decision on one video.

A link stores the hash of the content that its guest was asked about. An answer counts only while the link is open and the video
still has that content. Only a hash of the link's secret is stored.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.text import unfit
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.pending import Pending, PendingDecisions
from phantoms_dagster.store.users import digest

LONGEST_NAME = 60
DEFAULT_HOURS, MOST_HOURS = 72, 720
NEWEST = 2**62

State = Literal["open", "outdated", "used", "revoked", "expired"]

# An open link is `outdated` when its video has other content or is decided. `_with_states` computes that.
_COLUMNS = """g.id, v.key, v.title, g.guest, g.content_sha256, g.made_by, g.made_at, g.expires_at, g.revoked_by, g.revoked_at,
    g.used_at, p.answer, p.state AS decision, p.outcome,
    CASE WHEN g.used_at IS NOT NULL THEN 'used' WHEN g.revoked_at IS NOT NULL THEN 'revoked'
        WHEN g.expires_at <= clock_timestamp() THEN 'expired' ELSE 'open' END AS state"""
_FROM = """phantoms.guest_links g JOIN phantoms.videos v ON v.id = g.video_id
    LEFT JOIN phantoms.pending_decisions p ON p.id = g.decision_id"""
_BY_SECRET = text(f"SELECT {_COLUMNS} FROM {_FROM} WHERE g.secret_sha256 = :secret")
# If two people use a link at once, the second waits here and then reads that it was used.
_LOCK = text(f"SELECT {_COLUMNS} FROM {_FROM} WHERE g.secret_sha256 = :secret FOR UPDATE OF g")
_BY_ID = text(f"SELECT {_COLUMNS} FROM {_FROM} WHERE g.id = :id")
_LOCK_ID = text(f"SELECT {_COLUMNS} FROM {_FROM} WHERE g.id = :id FOR UPDATE OF g")
_NEWEST = text(f"SELECT {_COLUMNS} FROM {_FROM} WHERE g.id < :before ORDER BY g.id DESC LIMIT :limit")
_OF_VIDEO = text(f"SELECT {_COLUMNS} FROM {_FROM} WHERE v.key = :key AND g.id < :before ORDER BY g.id DESC LIMIT :limit")
_ADD = text(
    """
    INSERT INTO phantoms.guest_links (video_id, secret_sha256, guest, content_sha256, made_by, expires_at)
    SELECT v.id, :secret, :guest, :content, :made_by, clock_timestamp() + :lives FROM phantoms.videos v WHERE v.key = :key
    RETURNING id
    """
)
_REVOKE = text("UPDATE phantoms.guest_links SET revoked_by = :who, revoked_at = clock_timestamp() WHERE id = :id")
_USE = text("UPDATE phantoms.guest_links SET used_at = clock_timestamp(), decision_id = :decision WHERE id = :id")


class LinkClosed(InvalidInput):
    """The link accepts no answer. The message says why."""


@dataclass(frozen=True)
class GuestLink:
    """A link without its secret. `answer`, `decision` and `outcome`: the guest's decision and its result."""

    id: int
    key: str
    title: str
    guest: str
    content_sha256: str
    made_by: str
    made_at: datetime
    expires_at: datetime
    revoked_by: str | None
    revoked_at: datetime | None
    used_at: datetime | None
    answer: str | None
    decision: str | None
    outcome: str | None
    state: State

    @property
    def reviewer(self) -> str:
        """How its guest is named in decisions and in the audit log."""
        return f"{self.guest} (guest of {self.made_by})"


class GuestLinks:
    """Creates and revokes links, and accepts one answer for each."""

    def __init__(self, engine: Engine, decisions: Decisions, pending: PendingDecisions) -> None:
        self._engine = engine
        self._decisions = decisions
        self._pending = pending

    def add(self, key: str, guest: str, actor: Actor, *, content_sha256: str | None, hours: float) -> tuple[GuestLink, str]:
        """Create a link. Returns it and its secret, which cannot be read again.

        `content_sha256`: what the actor looked at, or its beginning; None: what was shown when the video was rendered.
        Raises InvalidInput when the video cannot be decided on now, or is not what was looked at.
        """
        secret = secrets.token_urlsafe(32)
        with self._engine.begin() as connection:
            return self.add_in(connection, key, guest, actor, secret, content_sha256=content_sha256, hours=hours), secret

    def add_in(
        self,
        connection: Connection,
        key: str,
        guest: str,
        actor: Actor,
        secret: str,
        *,
        content_sha256: str | None,
        hours: float,
    ) -> GuestLink:
        """The same in the caller's transaction, with the caller's secret."""
        name = _guest(guest)
        if not 0 < hours <= MOST_HOURS:
            raise InvalidInput(f"a guest link lives for at most {MOST_HOURS} hours, and for some time at least")
        content = self._decisions.may_be_decided(connection, key, actor, content_sha256=content_sha256)
        values = {
            "key": key,
            "secret": digest(secret),
            "guest": name,
            "content": content,
            "made_by": actor.name,
            "lives": timedelta(hours=hours),
        }
        number = connection.execute(_ADD, values).scalar_one()
        link = _link(connection.execute(_BY_ID, {"id": number}).mappings().one())
        after = {"link": number, "guest": name, "content": content, "expires": link.expires_at.isoformat()}
        note(connection, [AuditEntry(actor, "make guest link", key, after=after)])
        return link

    def revoke(self, number: int, actor: Actor) -> GuestLink:
        """Revoke a link. Revoking it twice is no error. Raises NotFound, and LinkClosed when it was used."""
        with self._engine.begin() as connection:
            row = connection.execute(_LOCK_ID, {"id": number}).mappings().one_or_none()
            if row is None:
                raise NotFound(f"There is no guest link {number}; `phantoms guest-links list` shows them.")
            link = _link(row)
            if link.state == "used":
                raise LinkClosed(f"guest link {number} was already used by {link.guest}: there is nothing to revoke")
            if link.state != "revoked":
                connection.execute(_REVOKE, {"id": number, "who": actor.name})
                note(connection, [AuditEntry(actor, "revoke guest link", link.key, before={"link": number, "guest": link.guest})])
            return _link(connection.execute(_BY_ID, {"id": number}).mappings().one())

    def find(self, secret: str) -> GuestLink | None:
        """The link with that secret and its current state, or None. Changes nothing."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(_BY_SECRET, {"secret": digest(secret)}).mappings().one_or_none()
        return self._with_states([_link(row)])[0] if row is not None else None

    def page(self, *, key: str = "", before: int = NEWEST, limit: int = 50) -> list[GuestLink]:
        """The newest links with an id below `before`, of one video or of all."""
        statement = _OF_VIDEO if key else _NEWEST
        with reading(self._engine).connect() as connection:
            rows = connection.execute(statement, {"key": key, "before": before, "limit": limit}).mappings()
            links = [_link(row) for row in rows]
        return self._with_states(links)

    def decide(self, secret: str, answer: Literal["approve", "reject"], *, reason: str, address: str) -> Pending:
        """Accept a guest's answer, once. The answer and the use of the link are one transaction.

        Raises LinkClosed for a link that is used, revoked or expired, or whose video is not what its guest was asked about;
        DecidedFirst when another person decided meanwhile; NotFound for an unknown secret. The link is unchanged then.
        """
        with self._engine.begin() as connection:
            row = connection.execute(_LOCK, {"secret": digest(secret)}).mappings().one_or_none()
            if row is None:
                raise NotFound("There is no such link.")
            link = _link(row)
            if link.state != "open":
                raise LinkClosed(f"this link is {link.state}")
            actor = Actor(link.reviewer, "guest", address, counts_as=link.made_by)
            made = self._pending.submit_in(
                connection, link.key, answer, actor, content_sha256=link.content_sha256, note=reason, exactly=True
            )
            if made.state == "refused":
                raise LinkClosed(made.outcome or "the decision cannot be carried out")
            connection.execute(_USE, {"id": link.id, "decision": made.id})
            return made

    def _with_states(self, links: Sequence[GuestLink]) -> list[GuestLink]:
        """The links, with open ones marked outdated when their video's content has changed."""
        contents = self._decisions.open_contents([link.key for link in links if link.state == "open"])
        return [
            replace(link, state="outdated") if link.state == "open" and contents.get(link.key) != link.content_sha256 else link
            for link in links
        ]


def _guest(given: str) -> str:
    name = " ".join(given.split())
    problem = unfit(given) or ("is empty" if not name else f"is longer than {LONGEST_NAME}" if len(name) > LONGEST_NAME else None)
    if problem is not None:
        raise InvalidInput(f"the guest's name {problem}; write it as it should be in the audit log, such as Dr. Weber")
    return name


def _link(row: Mapping[Any, Any]) -> GuestLink:
    return GuestLink(**row)
