"""Finds captions that an Instagram account would post twice within a day.

Instagram may treat the second post as spam, and after a lost answer two posts with the same caption cannot be told apart. The
reviewer gets a warning; nothing is refused. Published and started posts are found by the caption's hash in the ledger, approved
posts that have not started by their approved words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from phantoms_dagster.domain.models import Platform

# The platform whose posts are compared.
REPEATS = next(platform for platform in Platform if platform.spec.words.repeats)

_FOUND = text(
    """
    WITH wanted AS MATERIALIZED (
        SELECT v.id, v.key, w.account, w.caption, encode(sha256(convert_to(w.caption, 'UTF8')), 'hex') AS hash,
            GREATEST(clock_timestamp(), v.publish_at) AS due
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS w(key text, account text, caption text)
        JOIN phantoms.videos v ON v.key = w.key
    ), others AS (
        SELECT w.key, w.account, o.key AS other, p.at, true AS begun
        FROM wanted w
        -- The limit prevents a full scan of the ledger: each caption is looked up by an index.
        CROSS JOIN LATERAL (
            SELECT p.video_id, COALESCE(p.published_at, p.attempted_at) AS at FROM phantoms.posts p
            WHERE p.caption_sha256 = w.hash AND p.account = w.account AND p.platform = :platform
                AND p.video_id <> w.id AND p.state NOT IN ('intent', 'failed') AND p.sandbox = :sandbox
                AND COALESCE(p.published_at, p.attempted_at) > w.due - interval '24 hours'
            ORDER BY 2 DESC LIMIT 1
        ) p
        JOIN phantoms.videos o ON o.id = p.video_id
        UNION ALL
        SELECT w.key, w.account, o.key, GREATEST(clock_timestamp(), o.publish_at), false
        FROM wanted w
        -- A day has few decisions, however large the tables are, so they lead to the videos. Only a video's last one counts.
        JOIN phantoms.approvals d ON d.approved AND d.decided_at > statement_timestamp() - interval '24 hours'
            AND NOT EXISTS (SELECT FROM phantoms.approvals l WHERE l.video_id = d.video_id AND l.id > d.id)
        JOIN phantoms.videos o ON o.id = d.video_id AND o.id <> w.id
        JOIN phantoms.channels c ON c.name = o.channel AND c.config->'accounts'->>:platform = w.account
        JOIN phantoms.stages s ON s.video_id = o.id AND s.stage = :platform || '/post'
            AND s.state IN ('blocked', 'ready', 'running', 'deferred')
        WHERE abs(extract(epoch FROM GREATEST(clock_timestamp(), o.publish_at) - w.due)) < 86400
            AND EXISTS (SELECT FROM jsonb_array_elements(d.words) x
                WHERE x->>'platform' = :platform AND x->>'caption' = w.caption)
            AND NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.video_id = o.id AND p.platform = :platform
                AND p.state NOT IN ('intent', 'failed') AND p.sandbox = :sandbox)
    )
    SELECT DISTINCT ON (key) key, account, other, at, begun FROM others ORDER BY key, begun DESC, at DESC
    """
)


@dataclass(frozen=True)
class PlannedCaption:
    """The caption that a video would have on an account."""

    key: str
    account: str
    caption: str


def repeated_captions(connection: Connection, planned: Iterable[PlannedCaption], *, sandbox: bool) -> Mapping[str, str]:
    """A warning for each video whose caption another post of its Instagram account has within 24 hours, by key.

    `sandbox`: whether Instagram's posts go to the sandbox; its posts and the real ones are not compared.
    """
    rows = [{"key": one.key, "account": one.account, "caption": one.caption} for one in planned]
    if not rows:
        return {}
    values = {"rows": json.dumps(rows), "platform": str(REPEATS), "sandbox": sandbox}
    found = connection.execute(_FOUND, values).mappings()
    return {row["key"]: _warning(row["account"], row["other"], row["at"], begun=row["begun"]) for row in found}


def _warning(account: str, other: str, at: datetime, *, begun: bool) -> str:
    when = f"at {at:%Y-%m-%d %H:%M} UTC" if begun else "approved and not posted yet"
    return (
        f"{REPEATS.title}: {other} has the same caption on account {account} within 24 hours ({when}). {REPEATS.title} may "
        "take the second post for spam. To avoid it, regenerate the script or post later (`phantoms edit VIDEO --publish-at`)"
    )
