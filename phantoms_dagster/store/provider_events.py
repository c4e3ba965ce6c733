"""Events that platforms and providers sent to the desk. Each makes what it names due at once, and changes no other column.

`take` stores a delivery. `follow` does the rest later, so that the sender gets its answer in milliseconds. Not to be confused with
`webhooks` and `outbox`, which are about the webhooks that Phantoms sends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.provider_events import Delivery, ProviderEvent, digest_of
from phantoms_dagster.registry.spec import LateIdRule
from phantoms_dagster.store.planning import notify
from phantoms_dagster.store.transactions import transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# Longer than TikTok repeats a delivery (72 hours), so that a repeated one is known.
KEPT_DAYS = 30
# A run that holds the post or the render may have looked a moment before the event. So the event waits for its end, for this long.
HELD_MINUTES = 15
BATCH = 500
# An event that names only an account says nothing about a post. A popular account has many, and each look costs a call.
ACCOUNT_SECONDS = 60

_TAKE = text(
    """
    INSERT INTO phantoms.provider_events (provider, digest, kind, handle, subject, attempt_id, remote_id)
    SELECT provider, digest, kind, handle, subject, attempt_id, remote_id
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        provider text, digest text, kind text, handle jsonb, subject text, attempt_id text, remote_id text)
    ON CONFLICT (provider, digest) DO NOTHING RETURNING id
    """
)
# What names one post or render comes first: there are few of them, and an account may get events without end.
PENDING = text(
    f"""
    SELECT id, provider, kind, handle, subject, attempt_id, received_at < now() - make_interval(mins => {HELD_MINUTES}) AS old
    FROM phantoms.provider_events WHERE followed_at IS NULL
    ORDER BY handle = '{{}}' AND attempt_id IS NULL, id LIMIT {BATCH} FOR UPDATE SKIP LOCKED
    """
)
# Both find few rows: the open stages of one platform, and the posts of the videos of these.
_OF_POST = """p.platform = :provider AND NOT p.duplicate AND p.handle <> '{}' AND p.handle @> CAST(:handle AS jsonb)
        AND (CAST(:subject AS text) IS NULL OR p.account IN (
            SELECT a.name FROM phantoms.accounts a WHERE a.platform = :provider AND a.subject = CAST(:subject AS text)))"""
_POSTS = f"""phantoms.posts p WHERE p.video_id = s.video_id AND {_OF_POST}"""
_WAKE_POSTS = text(
    f"""
    UPDATE phantoms.stages s SET retry_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE s.stage = :stage AND s.state = 'deferred' AND s.retry_at > clock_timestamp() AND EXISTS (SELECT FROM {_POSTS})
        AND (CAST(:subject AS text) IS NULL OR (s.error_class IS DISTINCT FROM 'throttled'
            AND s.updated_at < clock_timestamp() - interval '{ACCOUNT_SECONDS} seconds'))
    """
)
_POSTS_HELD = text(
    f"""
    SELECT EXISTS (
        SELECT FROM phantoms.stages s WHERE s.stage = :stage AND s.state = 'running' AND EXISTS (SELECT FROM {_POSTS}))
    """
)
# The index `posts_handles` has the handles of these states.
_PUBLISHED = f"{_OF_POST} AND p.state IN ('published', 'confirmed')"
_READ_AGAIN = text(
    f"""
    UPDATE phantoms.post_reads r SET due_at = clock_timestamp()
    FROM phantoms.posts p WHERE r.post_id = p.id AND r.due_at > clock_timestamp() AND {_PUBLISHED}
    """
)
_ASK_LATE_ID = text(
    f"""
    INSERT INTO phantoms.late_ids (post_id, ask_at)
    SELECT p.id, clock_timestamp() FROM phantoms.posts p
    WHERE {_PUBLISHED} AND p.remote_id !~ :public_id AND p.handle @> ANY(ARRAY(SELECT jsonb_array_elements(CAST(:late AS jsonb))))
    ON CONFLICT (post_id) DO UPDATE SET ask_at = clock_timestamp(), given_up = false
    """
)
_RENDER = """phantoms.renders r WHERE r.video_id = s.video_id AND r.revision = s.revision AND r.attempt_id = :attempt_id
        AND r.state IN ('sending', 'unknown', 'submitted')"""
_OF_ATTEMPT = """s.stage = :stage
        AND s.video_id = (SELECT a.video_id FROM phantoms.attempts a
            WHERE a.id = CAST(substring(:attempt_id FROM '^a([0-9]{1,18})-') AS bigint))"""
_WAKE_RENDER = text(
    f"""
    UPDATE phantoms.stages s SET retry_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE {_OF_ATTEMPT} AND s.state = 'deferred' AND s.retry_at > clock_timestamp() AND EXISTS (SELECT FROM {_RENDER})
    """
)
_RENDER_HELD = text(
    f"SELECT EXISTS (SELECT FROM phantoms.stages s WHERE {_OF_ATTEMPT} AND s.state = 'running' AND EXISTS (SELECT FROM {_RENDER}))"
)
_NOTIFY = text(notify(":stage"))
_FOLLOWED = text("UPDATE phantoms.provider_events SET followed_at = clock_timestamp(), woken = :woken WHERE id = :id")
_NAMED = text(
    """
    SELECT remote_id FROM phantoms.provider_events
    WHERE provider = :provider AND attempt_id = :attempt_id AND remote_id IS NOT NULL GROUP BY remote_id ORDER BY min(id) LIMIT 10
    """
)
FORGET = text(
    """
    DELETE FROM phantoms.provider_events WHERE id IN (
        SELECT id FROM phantoms.provider_events WHERE received_at < now() - make_interval(days => :days)
        ORDER BY received_at LIMIT 1000)
    """
)
RENDERING = "rendered_video"


@dataclass(frozen=True)
class FollowedEvent:
    """An event that was dealt with. `woken`: how many waiting rows it made due."""

    provider: str
    kind: str
    woken: int


class ProviderEvents:
    """Stores events and follows them. `late_ids`: the rules of platforms whose public ids come late, by platform."""

    def __init__(self, engine: Engine, late_ids: Mapping[str, LateIdRule]) -> None:
        self._engine = engine
        self._late_ids = late_ids

    def take(self, provider: str, delivery: Delivery, events: Sequence[ProviderEvent]) -> int:
        """Store the events of a delivery. Returns how many are new: none of a delivery that came before."""
        rows = [
            {
                "provider": event.platform or provider,  # where the post is, also if a gateway tells of it
                "digest": _digest(delivery, number, event),
                "kind": event.kind[:100],
                "handle": dict(event.handle),
                "subject": event.subject,
                "attempt_id": event.attempt_id,
                "remote_id": event.remote_id,
            }
            for number, event in enumerate(events)
        ]
        if not rows:
            return 0
        with self._engine.begin() as connection:
            return len(connection.execute(_TAKE, {"rows": json.dumps(rows)}).all())

    def follow(self) -> Sequence[FollowedEvent]:
        """Make due what the waiting events name. An event whose post or render is in a run waits for the end of that run."""
        followed: list[FollowedEvent] = []
        with self._engine.begin() as connection:
            for event in connection.execute(PENDING).mappings().all():
                woken = self._wake_render(connection, event) if event["attempt_id"] else self._wake_posts(connection, event)
                if woken is None:
                    continue
                connection.execute(_FOLLOWED, {"id": event["id"], "woken": woken})
                followed.append(FollowedEvent(event["provider"], event["kind"], woken))
        return followed

    def forget(self) -> int:
        """Delete events older than KEPT_DAYS, a thousand at a time. Returns how many were deleted."""
        with self._engine.begin() as connection:
            return connection.execute(FORGET, {"days": KEPT_DAYS}).rowcount

    def _wake_posts(self, connection: Connection, event: RowMapping) -> int | None:
        """Make posts due, their results, and their late public ids. None: a run holds a post."""
        stage = f"{event['provider']}/post"
        values = {"provider": event["provider"], "handle": json.dumps(event["handle"]), "subject": event["subject"]}
        if not event["old"] and connection.execute(_POSTS_HELD, {"stage": stage, **values}).scalar():
            return None
        woken = connection.execute(_WAKE_POSTS, {"stage": stage, **values}).rowcount
        if woken:
            connection.execute(_NOTIFY, {"stage": stage})
        if event["handle"]:
            woken += connection.execute(_READ_AGAIN, values).rowcount
            if (rule := self._late_ids.get(event["provider"])) is not None:
                late = {"public_id": rule.public_id, "late": json.dumps([dict(one) for one in rule.handles])}
                woken += connection.execute(_ASK_LATE_ID, {**values, **late}).rowcount
        return woken

    def _wake_render(self, connection: Connection, event: RowMapping) -> int | None:
        """Make the render due. None: a run holds it."""
        values = {"stage": RENDERING, "attempt_id": event["attempt_id"]}
        if not event["old"] and connection.execute(_RENDER_HELD, values).scalar():
            return None
        woken = connection.execute(_WAKE_RENDER, values).rowcount
        if woken:
            connection.execute(_NOTIFY, {"stage": RENDERING})
        return woken


def _digest(delivery: Delivery, number: int, event: ProviderEvent) -> str:
    """The identity of an event. Those that name only an account are one a minute, because each would cause the same look."""
    if event.handle or event.attempt_id or event.subject is None:
        return digest_of(delivery, number)
    minute = int(delivery.at.timestamp() // ACCOUNT_SECONDS)
    return hashlib.sha256(f"{event.subject}\n{minute}".encode()).hexdigest()


class NamedRenders:
    """The renders that a provider's callbacks named for an order."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, provider: str, attempt_id: str) -> Sequence[str]:
        """The service's ids, as the events claim them, the first one first."""

        async def work(connection: AsyncConnection) -> Sequence[str]:
            values = {"provider": provider, "attempt_id": attempt_id}
            return (await connection.execute(_NAMED, values)).scalars().all()

        return await transaction(self._engine, work)
