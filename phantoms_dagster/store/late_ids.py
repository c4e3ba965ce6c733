"""The table of posts whose public id comes late. `domain.late_ids` decides when ids are looked up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine, Text, bindparam, text

from phantoms_dagster.domain.late_ids import LOOKUP_AGES, LatePost
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import FoundPost
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.registry.spec import LateIdRule

_LATE = """
    p.platform = :platform AND p.state IN ('published', 'confirmed') AND p.remote_id !~ :public_id
        AND p.handle @> ANY(ARRAY(SELECT jsonb_array_elements(CAST(:handles AS jsonb))))
"""
# Written into the statement. A plan for all values of parameters could not use the index of such posts.
_PLATFORM = (bindparam("platform", type_=Text, literal_execute=True), bindparam("public_id", type_=Text, literal_execute=True))

_DUE = text(
    f"""
    SELECT post_id, video_key, platform, account, handle, published_at FROM (
        SELECT p.id AS post_id, v.key AS video_key, p.platform, p.account, p.handle, p.published_at, w.due_at,
            row_number() OVER (PARTITION BY p.platform, p.account ORDER BY w.due_at, p.id) AS place
        FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
        LEFT JOIN phantoms.late_ids l ON l.post_id = p.id
        CROSS JOIN LATERAL (SELECT COALESCE(l.ask_at, p.published_at + make_interval(secs => :first)) AS due_at) w
        WHERE {_LATE} AND p.sandbox = :sandbox AND (p.route = '{GATEWAY}') = :gateway
            AND NOT COALESCE(l.given_up, false) AND w.due_at <= clock_timestamp()
    ) d WHERE place <= :most ORDER BY due_at, post_id
    """
).bindparams(*_PLATFORM)

_ASK_AGAIN = text(
    """
    INSERT INTO phantoms.late_ids (post_id, ask_at, given_up, asked) VALUES (:id, :at, :given_up, 1)
    ON CONFLICT (post_id) DO UPDATE SET ask_at = excluded.ask_at, given_up = excluded.given_up, asked = late_ids.asked + 1
    """
)

# An id that another post already has stays with that post. Returning it twice would be a bug of the platform.
_FOUND = text(
    f"""
    UPDATE phantoms.posts p SET remote_id = :remote_id, url = :url, updated_at = clock_timestamp()
    WHERE p.id = :id AND {_LATE}
        AND NOT EXISTS (SELECT FROM phantoms.posts o WHERE o.platform = p.platform AND o.remote_id = :remote_id)
    RETURNING p.video_id, p.platform
    """
).bindparams(*_PLATFORM)

_OUTPUT = text(
    """
    UPDATE phantoms.stages s
    SET output = s.output || jsonb_build_object('remote_id', CAST(:remote_id AS text), 'url', CAST(:url AS text))
    WHERE s.video_id = :video_id AND s.stage = :stage AND s.output->>'kind' = 'post'
    """
)

_DONE = text("DELETE FROM phantoms.late_ids WHERE post_id = :id")


class LateIdTable:
    """Implements `production.late_ids.LatePosts` for one platform. `gateway`: only for posts that its gateway published."""

    def __init__(self, engine: Engine, platform: Platform, rule: LateIdRule, *, gateway: bool = False) -> None:
        self._engine = engine
        self._gateway = gateway
        self._late = {
            "platform": str(platform),
            "public_id": rule.public_id,
            "handles": json.dumps([dict(values) for values in rule.handles]),
        }

    def due(self, *, sandbox: bool, most: int) -> Sequence[LatePost]:
        """See the protocol."""
        values = {**self._late, "sandbox": sandbox, "gateway": self._gateway, "most": most, "first": LOOKUP_AGES[0].total_seconds()}
        with self._engine.connect() as connection:
            rows = connection.execute(_DUE, values).mappings()
            return [LatePost(**{**row, "platform": Platform(row["platform"]), "handle": dict(row["handle"])}) for row in rows]

    def save(self, post: LatePost, public: FoundPost) -> None:
        """See the protocol. It is one transaction, so that the ledger and the stage's output never name different posts."""
        values = {"remote_id": public.remote_id, "url": public.url}
        with self._engine.begin() as connection:
            row = connection.execute(_FOUND, {**self._late, "id": post.post_id, **values}).one_or_none()
            if row is None:
                connection.execute(_ASK_AGAIN, {"id": post.post_id, "at": None, "given_up": True})
                return
            connection.execute(_OUTPUT, {"video_id": row.video_id, "stage": f"{row.platform}/post", **values})
            connection.execute(_DONE, {"id": post.post_id})

    def schedule(self, post: LatePost, at: datetime | None) -> None:
        """See the protocol."""
        with self._engine.begin() as connection:
            connection.execute(_ASK_AGAIN, {"id": post.post_id, "at": at, "given_up": at is None})
