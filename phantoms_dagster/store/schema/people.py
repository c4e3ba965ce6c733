"""Tables of the people and programs that use the desk, and of what they did."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, SmallInteger, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column

users = Table(
    "users",
    metadata,
    id_column(),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text),
    Column("issuer", Text),
    Column("subject", Text),
    time_column("created_at", now=True),
    time_column("updated_at", now=True),
    UniqueConstraint("name", name="users_once"),
    UniqueConstraint("issuer", "subject", name="users_identity"),
)

oidc_states = Table(
    "oidc_states",
    metadata,
    Column("state_sha256", Text, primary_key=True),
    time_column("expires_at", nullable=False),
    Index("oidc_states_ended", "expires_at"),
)

desk_sessions = Table(
    "desk_sessions",
    metadata,
    Column("id_sha256", Text, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("phantoms.users.id", ondelete="CASCADE"), nullable=False),
    Column("address", Text, nullable=False),
    time_column("created_at", now=True),
    time_column("seen_at", now=True),
    time_column("expires_at", nullable=False),
    Index("desk_sessions_of_user", "user_id"),
    Index("desk_sessions_ended", "expires_at"),
)

api_answers = Table(
    "api_answers",
    metadata,
    Column("who", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    Column("status", SmallInteger),
    Column("answer", JSONB),
    time_column("made_at", now=True),
    Index("api_answers_oldest", "made_at"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    id_column(),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("token_sha256", Text, nullable=False),
    time_column("created_at", now=True),
    time_column("used_at"),
    UniqueConstraint("name", name="api_tokens_once"),
    UniqueConstraint("token_sha256", name="api_tokens_secret"),
)

audit_log = Table(
    "audit_log",
    metadata,
    id_column(),
    time_column("at", now=True),
    Column("who", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False, server_default=text("''")),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Index("audit_log_of_subject", "subject", "id"),
    Index("audit_log_of_person", "who", "id"),
)
