"""Endings: how attempts and claims are closed, each batch in one transaction together with everything it entails.

Entailed: the next stages become ready, dead letters are written. Claiming belongs in `claims`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from phantoms_dagster.domain.stages import STAGES, State
from phantoms_dagster.domain.work import Claim, Ending
from phantoms_dagster.store.planning import nudge
from phantoms_dagster.store.rows import as_json

_ROWS = """jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(
    video_id bigint, stage text, generation bigint, owner text, attempt_row bigint, state text, counts int, output jsonb,
    provider text, provider_ref text, cost numeric, retry_at timestamptz, error_class text, code text, message text,
    evidence jsonb)"""

_CLOSE_ATTEMPTS = text(
    f"""
    UPDATE phantoms.attempts a
    SET state = g.state, finished_at = clock_timestamp(), provider = COALESCE(g.provider, a.provider),
        provider_ref = COALESCE(g.provider_ref, a.provider_ref), cost = GREATEST(a.cost, COALESCE(g.cost, 0)),
        error_class = g.error_class, code = g.code, message = g.message, evidence = g.evidence
    FROM {_ROWS} JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
    WHERE a.video_id = g.video_id AND a.stage = g.stage AND (a.id = g.attempt_row OR a.state = 'received')
    """
)

_FINISH = text(
    f"""
    UPDATE phantoms.stages s
    SET state = g.state, output = COALESCE(g.output, s.output), provider_ref = COALESCE(g.provider_ref, s.provider_ref),
        attempts = s.attempts + g.counts, retry_at = g.retry_at, reason = g.message, error_class = g.error_class,
        lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp(),
        cost = (SELECT COALESCE(sum(a.cost), 0) FROM phantoms.attempts a WHERE a.video_id = g.video_id AND a.stage = g.stage),
        finished_at = CASE WHEN g.state = 'deferred' THEN NULL ELSE clock_timestamp() END
    FROM {_ROWS}
    WHERE s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
        AND s.lease_owner = g.owner AND s.state = 'running'
    """
)

# A post is ready when its brief says so; everything else at once.
_UNBLOCK = text(
    f"""
    WITH next AS (
    UPDATE phantoms.stages n
    SET state = 'ready', updated_at = clock_timestamp(),
        ready_at = CASE WHEN n.stage LIKE '%/post' THEN GREATEST(clock_timestamp(), v.publish_at) ELSE clock_timestamp() END
    FROM jsonb_to_recordset(CAST(:next AS jsonb)) AS g(video_id bigint, made text, stage text, generation bigint)
    JOIN phantoms.stages m ON m.video_id = g.video_id AND m.stage = g.made AND m.generation = g.generation AND m.state = 'done'
    JOIN phantoms.videos v ON v.id = g.video_id
    WHERE n.video_id = g.video_id AND n.stage = g.stage AND n.state = 'blocked'
    RETURNING n.stage)
    {nudge("stage")} FROM (SELECT DISTINCT stage FROM next WHERE stage <> 'approval') n
    """
)

_BURY = text(
    f"""
    INSERT INTO phantoms.dead_letters (video_id, stage, revision, provider, error_class, code, message, evidence, attempts, run_id)
    SELECT g.video_id, g.stage, s.revision, g.provider, g.error_class, g.code, g.message, g.evidence,
        (SELECT jsonb_agg(jsonb_build_object('at', a.started_at, 'ended', a.finished_at, 'provider', a.provider, 'class',
            a.error_class, 'code', a.code, 'message', a.message, 'run_id', a.run_id) ORDER BY a.id)
         FROM phantoms.attempts a WHERE a.video_id = g.video_id AND a.stage = g.stage AND a.revision = s.revision), s.run_id
    FROM {_ROWS} JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
    WHERE g.state = 'failed' AND s.state = 'failed'
    ON CONFLICT (video_id, stage) WHERE state = 'open' DO NOTHING
    """
)

_STILL_OURS = text(
    f"""
    SELECT g.video_id, g.stage FROM {_ROWS}
    JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
    """
)

# When the answer of a first commit was lost, the attempt that it opened is there already: it is answered, not opened twice.
_NEXT_ATTEMPT = text(
    f"""
    WITH ours AS (
        SELECT s.video_id, s.stage, s.revision, s.generation, s.run_id, g.counts,
            (SELECT max(n.id) FROM phantoms.attempts n
                WHERE n.video_id = s.video_id AND n.stage = s.stage AND n.generation = s.generation
                    AND n.id > g.attempt_row) AS next
        FROM {_ROWS}
        JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
            AND s.lease_owner = g.owner AND s.state = 'running'
        ORDER BY s.video_id
        FOR UPDATE OF s
    ), counted AS (
        UPDATE phantoms.stages s SET attempts = s.attempts + ours.counts, updated_at = clock_timestamp()
        FROM ours WHERE s.video_id = ours.video_id AND s.stage = ours.stage AND ours.next IS NULL
    ), opened AS (
        INSERT INTO phantoms.attempts (video_id, stage, revision, generation, run_id)
        SELECT video_id, stage, revision, generation, run_id FROM ours WHERE next IS NULL
        RETURNING id, video_id, stage
    )
    SELECT id, video_id, stage FROM opened
    UNION ALL SELECT next, video_id, stage FROM ours WHERE next IS NOT NULL
    """
)


@dataclass(frozen=True)
class Closing:
    """An ending on its way to the table."""

    claim: Claim
    ending: Ending

    @property
    def key(self) -> tuple[int, str]:
        """Which row it is for."""
        return self.claim.video_id, self.claim.stage.name

    def row(self) -> dict[str, Any]:
        """The fields of `_ROWS`, fit for JSON."""
        claim, ending, made = self.claim, self.ending, self.ending.made
        return {
            "video_id": claim.video_id,
            "stage": claim.stage.name,
            "generation": claim.generation,
            "owner": claim.owner,
            "attempt_row": claim.attempt_row,
            "state": str(ending.state),
            "counts": int(ending.counts),
            "output": made.output.model_dump(mode="json") if made else None,
            "provider": ending.provider or (made.provider if made else None),
            "provider_ref": made.provider_ref if made else None,
            "cost": str(made.cost) if made else None,
            "retry_at": ending.retry_at.isoformat() if ending.retry_at else None,
            "error_class": ending.error_class,
            "code": ending.code,
            "message": ending.message,
            "evidence": ending.evidence.model_dump(mode="json", exclude_defaults=True) if ending.evidence else None,
        }


def _json(closings: Sequence[Closing]) -> dict[str, str]:
    return {"rows": as_json([closing.row() for closing in closings])}


async def finish(connection: AsyncConnection, closings: Sequence[Closing]) -> list[bool]:
    """Write endings. False for a claim that somebody else has taken over: nothing of it was written."""
    rows = _json(closings)
    await connection.execute(_CLOSE_ATTEMPTS, rows)
    await connection.execute(_FINISH, rows)
    following = [
        {"video_id": c.claim.video_id, "made": c.claim.stage.name, "stage": s.name, "generation": c.claim.generation}
        for c in closings
        if c.ending.state is State.DONE
        for s in STAGES.values()
        if c.claim.stage.name in s.after
    ]
    if following:
        await connection.execute(_UNBLOCK, {"next": json.dumps(following)})
    if any(c.ending.state is State.FAILED for c in closings):
        await connection.execute(_BURY, rows)
    ours = {(row.video_id, row.stage) for row in await connection.execute(_STILL_OURS, rows)}
    return [closing.key in ours for closing in closings]


async def next_attempts(connection: AsyncConnection, closings: Sequence[Closing]) -> list[int | None]:
    """Close attempts and open the next ones. None for a claim that somebody else has taken over."""
    rows = _json(closings)
    await connection.execute(_CLOSE_ATTEMPTS, rows)
    opened = {(row.video_id, row.stage): row.id for row in await connection.execute(_NEXT_ATTEMPT, rows)}
    return [opened.get(closing.key) for closing in closings]
