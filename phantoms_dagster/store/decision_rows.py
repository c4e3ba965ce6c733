"""Reads and locks the rows that a decision needs. `judgement` judges them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, MappingResult, text

from phantoms_dagster.store.two_reviewers import FIRST

CONTENT = text(
    f"""
    SELECT v.key, v.id, a.state,
        (SELECT jsonb_agg(DISTINCT p.platform) FROM phantoms.posts p
            WHERE p.video_id = v.id AND p.state NOT IN ('intent', 'failed') AND NOT p.duplicate) AS out,
        sc.output AS script, r.output AS rendered, v.brief->'platforms' AS platforms, c.config AS channel,
        (SELECT to_jsonb(h) FROM phantoms.holds h WHERE h.video_id = v.id) AS held,
        (SELECT to_jsonb(p) FROM phantoms.pending_decisions p WHERE p.video_id = v.id AND p.state = 'pending') AS pending,
        (SELECT to_jsonb(d) - 'words' FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= a.ready_at
            AND a.state IN ('ready', 'deferred', 'running') ORDER BY d.id DESC LIMIT 1) AS decided,
        v.added_by, {FIRST} AS first
    FROM phantoms.videos v
    JOIN phantoms.channels c ON c.name = v.channel
    JOIN phantoms.stages a ON a.video_id = v.id AND a.stage = 'approval'
    LEFT JOIN phantoms.stages sc ON sc.video_id = v.id AND sc.stage = 'script' AND sc.state = 'done'
    LEFT JOIN phantoms.stages r ON r.video_id = v.id AND r.stage = 'rendered_video' AND r.state = 'done'
    WHERE v.key = ANY(:keys) ORDER BY v.id FOR UPDATE OF a
    """
)

# A statement sees the data from when it began, even after it waited for a lock. It would miss the decision that it waited for. So
# one statement locks and the next one reads. The video is locked before its approval, as everywhere, because later writes refer to
# its row. Runners only refer to the row and need not wait.
LOCK_APPROVALS = text(
    """
    SELECT v.id FROM phantoms.videos v JOIN phantoms.stages a ON a.video_id = v.id AND a.stage = 'approval'
    WHERE v.key = ANY(:keys) ORDER BY v.id FOR NO KEY UPDATE OF v FOR UPDATE OF a
    """
)

# For reading only: a page that is read must not make anyone wait.
LOOK = text(CONTENT.text.replace("FOR UPDATE OF a", ""))

FIRSTS = text(
    """
    SELECT v.key, f.reviewer FROM phantoms.first_approvals f JOIN phantoms.videos v ON v.id = f.video_id
    JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = 'approval'
    WHERE v.key = ANY(:keys) AND f.given_at >= s.ready_at ORDER BY f.given_at
    """
)
UNDECIDED = text(
    """
    SELECT v.key FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage = 'approval' AND s.state IN ('ready', 'deferred')
        AND NOT EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at)
        AND NOT EXISTS (SELECT FROM phantoms.holds h WHERE h.video_id = v.id)
        AND NOT EXISTS (SELECT FROM phantoms.pending_decisions p WHERE p.video_id = v.id AND p.state = 'pending')
    ORDER BY v.publish_at NULLS LAST, v.priority, v.id LIMIT :limit
    """
)


def locked(connection: Connection, keys: Sequence[str]) -> MappingResult:
    """Lock the approvals until the transaction ends, and read what the decisions are about."""
    connection.execute(LOCK_APPROVALS, {"keys": list(keys)})
    return connection.execute(CONTENT, {"keys": list(keys)}).mappings()
