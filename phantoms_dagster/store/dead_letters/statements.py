"""The SQL statements of `letters`, which explains their use and their order."""

from __future__ import annotations

from sqlalchemy import text

from phantoms_dagster.store.earlier import keep
from phantoms_dagster.store.stage_store import VOID

__all__ = [
    "CLOSE",
    "COUNT",
    "COUNT_UP_TO",
    "DETAILS",
    "DISCARD",
    "LIST",
    "LIST_BEFORE",
    "LOCK",
    "LOCK_WHOLE_VIDEOS",
    "MAY_START_OVER",
    "NEW_REVISION",
    "NOW",
    "OPEN_BY_STAGE",
    "OPEN_LETTERS",
    "REPLAY",
    "STATES",
    "VOID",
]

_MATCHES = """
    (CAST(:state AS text) IS NULL OR d.state = :state)
    AND (CAST(:stages AS text[]) IS NULL OR d.stage = ANY(:stages))
    AND (CAST(:provider AS text) IS NULL OR COALESCE(d.provider, 'none') = :provider)
    AND (CAST(:error_class AS text) IS NULL OR d.error_class = :error_class)
    AND (CAST(:since AS timestamptz) IS NULL OR d.created_at >= :since)
    AND (CAST(:ids AS bigint[]) IS NULL OR d.id = ANY(:ids))
    AND (CAST(:keys AS text[]) IS NULL OR v.key = ANY(:keys))"""

_FIELDS = """d.id, v.key, d.video_id, d.stage, d.revision, d.provider, d.error_class, d.code, d.message, d.created_at,
    COALESCE(d.tries, jsonb_array_length(d.attempts)) AS tries, d.counted, d.failing_since, d.run_id, d.state, d.closed_at,
    d.closed_by, d.closed_reason"""

_LETTERS = "phantoms.dead_letters d JOIN phantoms.videos v ON v.id = d.video_id"

LIST = text(f"SELECT {_FIELDS} FROM {_LETTERS} WHERE {_MATCHES} ORDER BY d.id DESC LIMIT :limit")
LIST_BEFORE = text(f"SELECT {_FIELDS} FROM {_LETTERS} WHERE d.id < :before AND {_MATCHES} ORDER BY d.id DESC LIMIT :limit")
COUNT = text(f"SELECT count(*) FROM {_LETTERS} WHERE {_MATCHES}")
COUNT_UP_TO = text(f"SELECT count(*) FROM (SELECT FROM {_LETTERS} WHERE {_MATCHES} LIMIT :most) found")
_WITH_STAGES = f"{_LETTERS} JOIN phantoms.stages s ON s.video_id = d.video_id AND s.stage = d.stage"
STATES = text(f"SELECT {_FIELDS}, s.state AS stage_state FROM {_WITH_STAGES} WHERE {_MATCHES} ORDER BY d.id DESC")
DETAILS = text(
    f"""
    SELECT {_FIELDS}, d.evidence, d.attempts AS history, s.state AS stage_state
    FROM {_WITH_STAGES} WHERE {_MATCHES} ORDER BY d.id DESC
    """
)
OPEN_BY_STAGE = text(
    "SELECT stage, count(*) AS n, max(id) AS newest FROM phantoms.dead_letters WHERE state = 'open' GROUP BY stage"
)
OPEN_LETTERS = text(
    f"SELECT {_FIELDS} FROM {_LETTERS} WHERE d.video_id = ANY(:ids) AND d.stage = ANY(:stages) AND d.state = 'open' ORDER BY d.id"
)
NOW = text("SELECT clock_timestamp()")

# Locks rows in the same order as claims.
LOCK = text(
    f"""
    SELECT FROM {_WITH_STAGES} WHERE {_MATCHES}
    ORDER BY s.video_id, s.stage FOR UPDATE OF s
    """
)
LOCK_WHOLE_VIDEOS = text(
    f"""
    SELECT FROM phantoms.stages s WHERE s.video_id IN (SELECT d.video_id FROM {_LETTERS} WHERE {_MATCHES})
    ORDER BY s.video_id, s.stage FOR UPDATE
    """
)

_FRESH = """state = :to, generation = s.generation + 1, lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()"""
_OF_LETTERS = """FROM unnest(CAST(:videos AS bigint[]), CAST(:stages AS text[])) AS g(video_id, stage)
    WHERE s.video_id = g.video_id AND s.stage = g.stage AND s.state = ANY(:before)
    RETURNING s.video_id, s.stage"""

REPLAY = text(
    f"""
    UPDATE phantoms.stages s
    SET {_FRESH}, attempts = 0, failing_since = NULL, waits = 0, ready_at = clock_timestamp(), retry_at = NULL,
    reason = 'replayed', error_class = NULL,
        finished_at = NULL
    {_OF_LETTERS}
    """
)
# Reason and class stay, because they say what was given up.
DISCARD = text(f"UPDATE phantoms.stages s SET {_FRESH}, retry_at = NULL {_OF_LETTERS}")

# The reason of an earlier discard is kept within the new reason.
CLOSE = text(
    """
    UPDATE phantoms.dead_letters d
    SET state = :to, closed_at = clock_timestamp(), closed_by = :by,
        closed_reason = CAST(:reason AS text) || CASE WHEN d.state = 'discarded' THEN
            format(' (discarded before by %s at %s: %s)', d.closed_by,
                to_char(d.closed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), d.closed_reason) ELSE '' END
    WHERE d.id = ANY(:ids) AND d.state IN ('open', 'discarded')
    RETURNING d.id
    """
)

# An open post, or one that a runner works on, must not have its file replaced. Published posts do not matter here.
MAY_START_OVER = text(
    """
    SELECT s.video_id, s.state,
        (SELECT min(p.platform) FROM (
            SELECT o.platform FROM phantoms.posts o
                WHERE o.video_id = s.video_id AND o.state IN ('opened', 'uploading', 'committing', 'unknown', 'handed_over')
            UNION ALL SELECT split_part(r.stage, '/', 1) FROM phantoms.stages r
                WHERE r.video_id = s.video_id AND r.stage LIKE '%/post' AND r.state = 'running') p
         WHERE p.platform = ANY(:platforms)) AS busy
    FROM phantoms.stages s WHERE s.video_id = ANY(:ids) AND s.stage = :start
    """
)

NEW_REVISION = text(
    f"""
    WITH kept AS ({keep("r.video_id = ANY(:ids)")})
    UPDATE phantoms.stages s
    SET state = 'ready', revision = s.revision + 1, attempts = 0, failing_since = NULL, waits = 0,
        generation = s.generation + 1, ready_at = clock_timestamp(), retry_at = NULL, reason = 'started over',
        error_class = NULL, started_at = NULL, finished_at = NULL,
        updated_at = clock_timestamp()
    WHERE s.video_id = ANY(:ids) AND s.stage = :stage AND s.state = ANY(:before)
    RETURNING s.video_id
    """
)
