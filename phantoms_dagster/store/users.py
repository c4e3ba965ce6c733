"""Users of the desk, their sessions, and API tokens. Secrets are stored only as hashes."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.engine import reading

RoleName = Literal["viewer", "reviewer", "operator"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)
LONGEST_NAME = 60
# A session is marked as seen at most this often, so that not every page costs a write.
_SEEN_SECONDS = 60

_USERS = text("SELECT name, role, created_at, updated_at, issuer FROM phantoms.users ORDER BY name")
_SPEND = text(
    """
    INSERT INTO phantoms.oidc_states (state_sha256, expires_at) VALUES (:state, clock_timestamp() + interval '1 day')
    ON CONFLICT DO NOTHING RETURNING state_sha256
    """
)
_FORGET_STATES = text("DELETE FROM phantoms.oidc_states WHERE expires_at <= clock_timestamp()")
_BY_SUBJECT = text(
    "SELECT id, name, role, password_hash FROM phantoms.users WHERE issuer = :issuer AND subject = :subject FOR UPDATE"
)
_ADD_SUBJECT = text(
    """
    INSERT INTO phantoms.users (name, role, issuer, subject) VALUES (:name, :role, :issuer, :subject)
    RETURNING id, name, role, password_hash
    """
)
_CREDENTIALS = text("SELECT id, name, role, password_hash FROM phantoms.users WHERE name = :name")
_SESSION = text(
    """
    SELECT u.name, u.role, s.seen_at < clock_timestamp() - make_interval(secs => :seen) AS stale
    FROM phantoms.desk_sessions s JOIN phantoms.users u ON u.id = s.user_id
    WHERE s.id_sha256 = :id AND s.expires_at > clock_timestamp()
    """
)
_START = text(
    """
    INSERT INTO phantoms.desk_sessions (id_sha256, user_id, address, expires_at)
    VALUES (:id, :user_id, :address, clock_timestamp() + :lives)
    """
)
_END_OLD = text("DELETE FROM phantoms.desk_sessions WHERE expires_at <= clock_timestamp()")
_TOKEN = text(
    """
    SELECT id, name, role, used_at IS NULL OR used_at < clock_timestamp() - make_interval(secs => :seen) AS stale
    FROM phantoms.api_tokens WHERE token_sha256 = :secret
    """
)
# The guest links of a user who may no longer decide are revoked.
_CLOSE_INVITATIONS = text(
    """
    UPDATE phantoms.guest_links SET revoked_by = :who, revoked_at = clock_timestamp()
    WHERE made_by = :name AND used_at IS NULL AND revoked_at IS NULL AND expires_at > clock_timestamp() RETURNING id
    """
)
# The calendar feeds of a user who may not even look any more are revoked.
_CLOSE_FEEDS = text(
    """
    UPDATE phantoms.calendar_feeds SET revoked_by = :who, revoked_at = clock_timestamp()
    WHERE made_by = :name AND revoked_at IS NULL RETURNING id
    """
)
_TOKENS = text("SELECT name, role, created_at, used_at FROM phantoms.api_tokens ORDER BY name")


@dataclass(frozen=True)
class User:
    """A user. `issuer`: the OpenID Connect provider that they log in with; None for users with a password here."""

    name: str
    role: RoleName
    created_at: datetime
    updated_at: datetime
    issuer: str | None = None


@dataclass(frozen=True)
class Credentials:
    """What a log-in is checked against. A user of an OpenID Connect provider has no password here."""

    id: int
    name: str
    role: RoleName
    password_hash: str | None


@dataclass(frozen=True)
class ApiToken:
    """An API token, without its secret."""

    name: str
    role: RoleName
    created_at: datetime
    used_at: datetime | None


@dataclass(frozen=True)
class Principal:
    """The owner of a session or of an API token."""

    name: str
    role: RoleName


def digest(secret: str) -> str:
    """The stored form of a random secret. The secret is long and random, so a plain hash cannot be brute-forced."""
    return hashlib.sha256(secret.encode()).hexdigest()


def user_name(given: str) -> str:
    """The stored form of a name, ignoring case. Raises InvalidInput."""
    name = unicodedata.normalize("NFKC", given).strip().casefold()
    if not name or len(name) > LONGEST_NAME or not all(c.isalnum() or c in "._@-+" for c in name):
        raise InvalidInput(f"a user's name has 1 to {LONGEST_NAME} letters, digits and . _ @ - +, such as kim@example.org")
    return name


class Users:
    """Users, sessions and tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- users

    def all(self) -> list[User]:
        """All users by name."""
        with self._engine.connect() as connection:
            return [User(**row) for row in connection.execute(_USERS).mappings()]

    def any(self) -> bool:
        """Whether there is any user."""
        with self._engine.connect() as connection:
            return bool(connection.execute(text("SELECT EXISTS (SELECT FROM phantoms.users)")).scalar_one())

    def add(self, name: str, role: RoleName, password_hash: str, *, actor: Actor) -> str:
        """Add a user. Returns the stored name. Raises InvalidInput when the name is taken."""
        name = user_name(name)
        statement = text("INSERT INTO phantoms.users (name, role, password_hash) VALUES (:name, :role, :hash)")
        try:
            with self._engine.begin() as connection:
                connection.execute(statement, {"name": name, "role": role, "hash": password_hash})
                note(connection, [AuditEntry(actor, "add user", name, after={"role": role})])
        except IntegrityError as error:
            raise InvalidInput(f"there is a user {name} already; `phantoms users passwd {name}` sets a new password") from error
        return name

    def remove(self, name: str, *, actor: Actor) -> None:
        """Remove a user, end their sessions, and revoke their guest links and calendar feeds. Raises NotFound."""
        with self._engine.begin() as connection:
            statement = text("DELETE FROM phantoms.users WHERE name = :name RETURNING role")
            role = connection.execute(statement, {"name": user_name(name)}).scalar()
            if role is None:
                raise _unknown(name)
            closed = {**_close_invitations(connection, user_name(name), actor), **_close_feeds(connection, user_name(name), actor)}
            note(connection, [AuditEntry(actor, "remove user", user_name(name), before={"role": role}, after={**closed})])

    def set_password(self, name: str, password_hash: str, *, actor: Actor) -> None:
        """Set a password and end all sessions of that user. Raises NotFound."""
        statement = text(
            """
            UPDATE phantoms.users SET password_hash = :hash, updated_at = clock_timestamp()
            WHERE name = :name AND issuer IS NULL RETURNING id
            """
        )
        with self._engine.begin() as connection:
            found = connection.execute(statement, {"name": user_name(name), "hash": password_hash}).scalar()
            if found is None:
                raise _theirs(name) if _of_provider(connection, name) else _unknown(name)
            connection.execute(text("DELETE FROM phantoms.desk_sessions WHERE user_id = :id"), {"id": found})
            note(connection, [AuditEntry(actor, "change password", user_name(name))])

    def set_role(self, name: str, role: RoleName, *, actor: Actor) -> None:
        """Give a user another role, from their next request on. The guest links of a viewer are revoked. Raises NotFound."""
        with self._engine.begin() as connection:
            before = connection.execute(
                text("SELECT role FROM phantoms.users WHERE name = :name FOR UPDATE"), {"name": user_name(name)}
            ).scalar()
            if before is None:
                raise _unknown(name)
            if _of_provider(connection, name):
                raise _theirs(name)
            statement = text("UPDATE phantoms.users SET role = :role, updated_at = clock_timestamp() WHERE name = :name")
            connection.execute(statement, {"name": user_name(name), "role": role})
            _note_role(connection, user_name(name), before, role, actor)

    def credentials(self, name: str) -> Credentials | None:
        """The credentials for a log-in with that name; None for an unknown name."""
        try:
            name = user_name(name)
        except InvalidInput:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(_CREDENTIALS, {"name": name}).mappings().one_or_none()
        return Credentials(**row) if row else None

    def rehash(self, user_id: int, password_hash: str) -> None:
        """Store the same password with a hash of the current strength."""
        statement = text("UPDATE phantoms.users SET password_hash = :hash WHERE id = :id")
        with self._engine.begin() as connection:
            connection.execute(statement, {"id": user_id, "hash": password_hash})

    # --- users of an OpenID Connect provider

    def spend_state(self, state: str) -> bool:
        """Use up a started log-in, by the hash of its state. Returns False when it was already used."""
        with self._engine.begin() as connection:
            connection.execute(_FORGET_STATES)
            return connection.execute(_SPEND, {"state": state}).scalar() is not None

    def from_provider(self, issuer: str, subject: str, name: str, role: RoleName) -> Credentials:
        """The user with the provider's id `subject`, updated to the role that the provider gives now. The first log-in adds them.

        They keep the name of their first log-in, so that their decisions stay theirs when the provider renames them.
        Raises InvalidInput when the name is invalid or belongs to another user.
        """
        actor = Actor(issuer, "oidc")
        with self._engine.begin() as connection:
            row = connection.execute(_BY_SUBJECT, {"issuer": issuer, "subject": subject}).mappings().one_or_none()
            if row is not None:
                if row["role"] != role:
                    statement = text("UPDATE phantoms.users SET role = :role, updated_at = clock_timestamp() WHERE id = :id")
                    connection.execute(statement, {"id": row["id"], "role": role})
                    _note_role(connection, row["name"], row["role"], role, actor)
                return Credentials(**{**row, "role": role})
            name = user_name(name)
            try:
                with connection.begin_nested():
                    values = {"name": name, "role": role, "issuer": issuer, "subject": subject}
                    made = connection.execute(_ADD_SUBJECT, values).mappings().one()
            except IntegrityError as error:
                if connection.execute(_BY_SUBJECT, {"issuer": issuer, "subject": subject}).scalar() is not None:
                    raise InvalidInput("You logged in twice at once. Log in again.") from error
                raise InvalidInput(
                    f"There is another {name} at this desk already, so this log-in would mix you up. "
                    "An operator can remove that user (phantoms users remove), then log in again."
                ) from error
            note(connection, [AuditEntry(actor, "add user", name, after={"role": role, "issuer": issuer})])
            return Credentials(**made)

    # --- sessions

    def start_session(self, secret: str, user: Credentials, *, actor: Actor, lives: timedelta) -> None:
        """Start a session and delete expired ones."""
        with self._engine.begin() as connection:
            connection.execute(_END_OLD)
            values = {"id": digest(secret), "user_id": user.id, "address": actor.address, "lives": lives}
            connection.execute(_START, values)
            note(connection, [AuditEntry(actor, "log in", user.name)])

    def session(self, secret: str) -> Principal | None:
        """The owner of the session; None when it has ended."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(_SESSION, {"id": digest(secret), "seen": _SEEN_SECONDS}).one_or_none()
            if row is None:
                return None
            if row.stale:
                statement = text("UPDATE phantoms.desk_sessions SET seen_at = clock_timestamp() WHERE id_sha256 = :id")
                connection.execute(statement, {"id": digest(secret)})
                connection.commit()
        return Principal(row.name, row.role)

    def end_session(self, secret: str, *, actor: Actor) -> None:
        """End a session. Ending it twice is no error."""
        with self._engine.begin() as connection:
            ended = connection.execute(text("DELETE FROM phantoms.desk_sessions WHERE id_sha256 = :id"), {"id": digest(secret)})
            if ended.rowcount:
                note(connection, [AuditEntry(actor, "log out", actor.name)])

    # --- API tokens

    def tokens(self) -> list[ApiToken]:
        """All API tokens by name."""
        with self._engine.connect() as connection:
            return [ApiToken(**row) for row in connection.execute(_TOKENS).mappings()]

    def add_token(self, name: str, role: RoleName, secret: str, *, actor: Actor) -> None:
        """Add an API token. Raises InvalidInput when the name is taken."""
        name = user_name(name)
        statement = text("INSERT INTO phantoms.api_tokens (name, role, token_sha256) VALUES (:name, :role, :secret)")
        try:
            with self._engine.begin() as connection:
                connection.execute(statement, {"name": name, "role": role, "secret": digest(secret)})
                note(connection, [AuditEntry(actor, "add token", name, after={"role": role})])
        except IntegrityError as error:
            raise InvalidInput(f"there is a token {name} already; `phantoms users token {name} --revoke` ends it") from error

    def revoke_token(self, name: str, *, actor: Actor) -> None:
        """End an API token, and revoke the guest links and calendar feeds that were made with it. Raises NotFound."""
        with self._engine.begin() as connection:
            statement = text("DELETE FROM phantoms.api_tokens WHERE name = :name RETURNING role")
            role = connection.execute(statement, {"name": user_name(name)}).scalar()
            if role is None:
                raise NotFound(f"no token {name!r}; `phantoms users list` shows them")
            closed = {**_close_invitations(connection, user_name(name), actor), **_close_feeds(connection, user_name(name), actor)}
            note(connection, [AuditEntry(actor, "revoke token", user_name(name), before={"role": role}, after={**closed})])

    def token(self, secret: str) -> Principal | None:
        """The owner of the token, or None."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(_TOKEN, {"secret": digest(secret), "seen": _SEEN_SECONDS}).one_or_none()
            if row is None:
                return None
            if row.stale:
                _mark_used(connection, row.id)
        return Principal(row.name, row.role)


def _mark_used(connection: Connection, token: int) -> None:
    connection.execute(text("UPDATE phantoms.api_tokens SET used_at = clock_timestamp() WHERE id = :id"), {"id": token})
    connection.commit()


def _of_provider(connection: Connection, name: str) -> bool:
    statement = text("SELECT issuer IS NOT NULL FROM phantoms.users WHERE name = :name")
    return bool(connection.execute(statement, {"name": user_name(name)}).scalar())


def _theirs(name: str) -> InvalidInput:
    return InvalidInput(f"{name} logs in by an OpenID Connect provider, which says their role and knows their password")


def _unknown(name: str) -> NotFound:
    return NotFound(f"no user {name!r}; `phantoms users list` shows them")


def _note_role(connection: Connection, name: str, before: str, role: RoleName, actor: Actor) -> None:
    closed = _close_invitations(connection, name, actor) if role == "viewer" else {}
    note(connection, [AuditEntry(actor, "change role", name, {"role": before}, {"role": role, **closed})])


def _close_invitations(connection: Connection, name: str, actor: Actor) -> dict[str, list[int]]:
    """Revoke the open guest links that `name` made. Returns the details for the audit log."""
    links = list(connection.execute(_CLOSE_INVITATIONS, {"name": name, "who": actor.name}).scalars())
    return {"guest links revoked": links} if links else {}


def _close_feeds(connection: Connection, name: str, actor: Actor) -> dict[str, list[int]]:
    """Revoke the calendar feeds that `name` made. Returns the details for the audit log."""
    feeds = list(connection.execute(_CLOSE_FEEDS, {"name": name, "who": actor.name}).scalars())
    return {"calendar feeds revoked": feeds} if feeds else {}
