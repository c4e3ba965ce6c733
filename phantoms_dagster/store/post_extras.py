"""The table of what is added to posts after their publication. `domain.post_extras` decides when a try follows.

`posts.extras` has the names of those that are still to be added, and an index finds such posts. `post_extras` has their tries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.models import MediaFile, Platform, Sentence
from phantoms_dagster.domain.post_extras import TRY_LASTS, ExtraOutcome, PendingExtra

MOST_DETAIL = 500  # characters

# Nothing is added to a post that is no longer there.
_THERE = "NOT EXISTS (SELECT FROM phantoms.post_changes g WHERE g.post_id = p.id AND g.state IN ('taken_down', 'gone'))"
_DUE = text(
    f"""
    SELECT p.id AS post_id, e.name, v.key AS video_key, p.platform, p.account, p.remote_id, p.marker, p.published_at,
        COALESCE(x.tries, 0) AS tries, COALESCE(c.config->>'language', 'en') AS language,
        t.output->'video'->>'sha256' IS NOT DISTINCT FROM p.video_sha256 AND o.output IS NOT NULL
            AND r.output IS NOT NULL AS current,
        o.output->'sentences' AS sentences, r.output->'thumbnail' AS picture
    FROM phantoms.posts p
    JOIN phantoms.videos v ON v.id = p.video_id
    CROSS JOIN LATERAL unnest(p.extras) AS e(name)
    LEFT JOIN phantoms.post_extras x ON x.post_id = p.id AND x.name = e.name
    LEFT JOIN phantoms.channels c ON c.name = v.channel
    LEFT JOIN phantoms.stages t ON t.video_id = p.video_id AND t.stage = p.platform || '/variant'
    LEFT JOIN phantoms.stages o ON o.video_id = p.video_id AND o.stage = 'voiceover'
    LEFT JOIN phantoms.stages r ON r.video_id = p.video_id AND r.stage = 'rendered_video'
    WHERE p.extras <> '{{}}' AND p.state = 'confirmed' AND p.remote_id IS NOT NULL AND NOT p.duplicate
        AND p.sandbox = (p.platform = ANY(CAST(:sandboxed AS text[])))
        AND (x.due_at IS NULL OR x.due_at <= clock_timestamp())
        AND {_THERE}
    ORDER BY COALESCE(x.due_at, p.published_at), p.id, e.name LIMIT :most
    """
)

# A round may be long, so what it read at its beginning may not be true any more.
_BEGIN = text(
    f"""
    INSERT INTO phantoms.post_extras AS x (post_id, name, state, tries, due_at)
    SELECT p.id, :name, 'waiting', 1, clock_timestamp() + make_interval(secs => :lasts)
    FROM phantoms.posts p WHERE p.id = :post_id AND {_THERE}
    ON CONFLICT (post_id, name) DO UPDATE SET tries = x.tries + 1, due_at = excluded.due_at, updated_at = clock_timestamp()
    WHERE x.state = 'waiting' AND x.due_at <= clock_timestamp() AND x.tries = :tries
    RETURNING x.due_at
    """
)

# Each try has its own `lasts_until`. If another process has taken over, this one changes nothing.
_FINISH = text(
    """
    UPDATE phantoms.post_extras
    SET state = :state, detail = :detail, tries = :tries, due_at = :due_at, updated_at = clock_timestamp()
    WHERE post_id = :post_id AND name = :name AND state = 'waiting' AND due_at = :lasts_until
    RETURNING post_id
    """
)
_SETTLED = text("UPDATE phantoms.posts SET extras = array_remove(extras, :name) WHERE id = :post_id")

_OF_POST = text(
    """
    SELECT e.name, COALESCE(x.state, 'waiting') AS state, COALESCE(x.detail, '') AS detail, COALESCE(x.tries, 0) AS tries, x.due_at
    FROM phantoms.posts p
    CROSS JOIN LATERAL (SELECT unnest(p.extras) AS name UNION SELECT y.name FROM phantoms.post_extras y WHERE y.post_id = p.id) e
    LEFT JOIN phantoms.post_extras x ON x.post_id = p.id AND x.name = e.name
    WHERE p.id = :post_id ORDER BY e.name
    """
)


class PostExtrasTable:
    """Implements `production.post_extras.PendingExtras`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def due(self, sandboxed: Collection[str], *, most: int) -> Sequence[PendingExtra]:
        """See the protocol."""
        with self._engine.connect() as connection:
            rows = connection.execute(_DUE, {"sandboxed": list(sandboxed), "most": most}).mappings().all()
        return [_pending(row) for row in rows if row["platform"] in Platform]

    def begin(self, extra: PendingExtra) -> datetime | None:
        """See the protocol."""
        values = {"post_id": extra.post_id, "name": extra.name, "tries": extra.tries, "lasts": TRY_LASTS.total_seconds()}
        with self._engine.begin() as connection:
            return connection.execute(_BEGIN, values).scalar_one_or_none()

    def finish(self, extra: PendingExtra, outcome: ExtraOutcome, lasts_until: datetime) -> bool:
        """See the protocol. It is one transaction, so that no settled extra is tried again."""
        values = {"state": outcome.state, "detail": outcome.detail[:MOST_DETAIL], "tries": outcome.tries, "due_at": outcome.due_at}
        of_post = {"post_id": extra.post_id, "name": extra.name}
        with self._engine.begin() as connection:
            if connection.execute(_FINISH, {**values, **of_post, "lasts_until": lasts_until}).one_or_none() is None:
                return False
            if outcome.state != "waiting":
                connection.execute(_SETTLED, of_post)
            return True


def extras_of(connection: Connection, post_id: int) -> dict[str, ExtraOutcome]:
    """What was or will be added to a post, by name."""
    rows = connection.execute(_OF_POST, {"post_id": post_id}).mappings()
    return {row["name"]: ExtraOutcome(row["state"], row["detail"], row["tries"], row["due_at"]) for row in rows}


def _pending(row: RowMapping) -> PendingExtra:
    current = bool(row["current"])
    return PendingExtra(
        **{
            **row,
            "platform": Platform(row["platform"]),
            "current": current,
            "sentences": tuple(map(Sentence.model_validate, row["sentences"] or ())) if current else (),
            "picture": MediaFile.model_validate(row["picture"]) if current and row["picture"] else None,
        }
    )
