"""Claims the videos of a run, and explains why the others cannot be claimed. Implements `StageStore.claim`.

`outcomes` ends claims.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import RowMapping, text

from phantoms_dagster.domain.claims import (
    DISCARDED,
    NOT_WANTED,
    REJECTED,
    UNKNOWN_VIDEO,
    WAITS_FOR_PERSON,
    AttemptOutcome,
    Claim,
    Claims,
    ReviewDecision,
    RunContext,
    Unclaimed,
)
from phantoms_dagster.domain.errors import LOOK_UP_FAILED, Permanent
from phantoms_dagster.domain.models import Video
from phantoms_dagster.domain.stages import Stage, StageState, upstream
from phantoms_dagster.store.outcomes import Closing, finish
from phantoms_dagster.store.stored import UnreadableRow, brief_of, channel_of, output_of, outputs_of, words_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# Rows are locked in one order, so that two runners with overlapping ranges cannot deadlock. A row that we hold already is
# claimed again: that happens when the answer of a first commit was lost. So is one that our run holds: it was resumed after its
# process died, and whatever of that process is still alive is fenced off by the generation.
_CLAIM = text(
    """
    WITH due AS (
        SELECT s.video_id, s.stage
        FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = :stage
        WHERE v.key = ANY(:keys) AND (
            (s.state = 'ready' AND (:person OR s.ready_at IS NULL OR s.ready_at <= clock_timestamp()))
            OR (s.state = 'deferred' AND (:person OR s.retry_at <= clock_timestamp()))
            OR (s.state = 'running' AND (s.lease_until < clock_timestamp() OR s.lease_owner = :owner OR s.run_id = :run_id))
            OR (:person AND s.state = 'failed')
            OR (:decides AND s.state = 'rejected'))
        ORDER BY s.video_id
        FOR UPDATE OF s
    ), mine AS (
        UPDATE phantoms.stages s
        SET state = 'running', generation = s.generation + 1, lease_owner = :owner,
            lease_until = clock_timestamp() + make_interval(secs => :lease), run_id = :run_id,
            attempts = CASE WHEN s.state IN ('failed', 'rejected') THEN 0 ELSE s.attempts END,
            failing_since = CASE WHEN s.state IN ('failed', 'rejected') THEN NULL ELSE s.failing_since END,
            retry_at = NULL, reason = NULL, error_class = NULL, finished_at = NULL,
            started_at = COALESCE(s.started_at, clock_timestamp()), updated_at = clock_timestamp()
        FROM due WHERE s.video_id = due.video_id AND s.stage = due.stage
        RETURNING s.video_id, s.stage, s.revision, s.generation
    ), abandoned AS (
        UPDATE phantoms.attempts a SET state = 'abandoned', finished_at = clock_timestamp()
        FROM mine WHERE a.video_id = mine.video_id AND a.stage = mine.stage AND a.state = 'intent'
    ), letters AS (
        UPDATE phantoms.dead_letters d
        SET state = 'replayed', closed_at = clock_timestamp(), closed_by = :run_id, closed_reason = 'materialized again'
        FROM mine WHERE d.video_id = mine.video_id AND d.stage = mine.stage AND d.state = 'open'
    )
    INSERT INTO phantoms.attempts (video_id, stage, revision, generation, run_id)
    SELECT video_id, stage, revision, generation, :run_id FROM mine
    RETURNING id, video_id
    """
)

# Everything about a video is found by its id. No condition here may use the indexes by state, see `outcomes`.
_LOOK = text(
    f"""
    SELECT w.key, v.id AS video_id, v.brief::text, v.created_at, c.config::text AS channel,
        s.state, s.revision, s.generation, s.attempts, s.waits, s.ready_at, s.retry_at, s.lease_until, s.output::text, s.reason,
        s.error_class,
        (SELECT json_object_agg(n.stage, n.output) FROM phantoms.stages n
            WHERE n.video_id = v.id AND n.stage = ANY(:needs) AND n.state IS NOT DISTINCT FROM 'done')::text AS inputs,
        CASE WHEN s.state = 'blocked' THEN (SELECT json_object_agg(b.stage, b.state) FROM phantoms.stages b
            WHERE b.video_id = v.id AND b.stage = ANY(:before)) END AS before,
        (SELECT COALESCE(sum(a.cost), 0) FROM phantoms.attempts a WHERE a.video_id = v.id) AS spent,
        (SELECT a.response FROM phantoms.attempts a
            WHERE a.video_id = v.id AND a.stage = :stage AND a.revision = s.revision AND a.state = 'received'
            ORDER BY a.id DESC LIMIT 1) AS stored_response,
        doubts.in_doubt, doubts.reads,
        CASE WHEN :stage = 'approval' THEN
            (SELECT to_jsonb(d) FROM phantoms.approvals d WHERE d.video_id = v.id ORDER BY d.id DESC LIMIT 1) END AS decision
    FROM unnest(CAST(:keys AS text[])) WITH ORDINALITY AS w(key, place)
    LEFT JOIN phantoms.videos v ON v.key = w.key
    LEFT JOIN phantoms.channels c ON c.name = v.channel
    LEFT JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = :stage
    -- Any other outcome settles earlier doubts, because that attempt looked first. Each unknown outcome is one read-back.
    LEFT JOIN LATERAL (
        SELECT array_agg(a.id ORDER BY a.id) FILTER (WHERE a.code IS DISTINCT FROM '{LOOK_UP_FAILED}') AS in_doubt,
            count(*) FILTER (WHERE a.error_class = 'unknown') AS reads
        FROM phantoms.attempts a
        WHERE a.video_id = v.id AND a.stage = :stage AND a.revision = s.revision
            AND (a.state = 'abandoned' OR a.error_class = 'unknown') AND NOT EXISTS (
                SELECT FROM phantoms.attempts l WHERE l.video_id = v.id AND l.stage = :stage AND l.revision = s.revision
                    AND l.id > a.id AND l.state NOT IN ('intent', 'abandoned')
                    AND l.error_class IS DISTINCT FROM 'unknown')) doubts ON true
    ORDER BY w.place
    """
)


async def claim(
    connection: AsyncConnection, stage: Stage, keys: Sequence[str], *, owner: str, context: RunContext, lease_seconds: float
) -> Claims:
    """Claim the videos of `keys` that can be claimed, in this transaction, and explain the others.

    A video with unreadable stored data gets its dead letter here. The other videos are still claimed.
    """
    person = context.by == "person"
    keys = list(dict.fromkeys(keys))  # a repeated key counts once
    values = {
        "stage": stage.name,
        "keys": keys,
        "owner": owner,
        "run_id": context.run_id,
        "lease": lease_seconds,
        "person": person,
        "decides": person and context.decision is not None,
    }
    opened = {row.video_id: row.id for row in await connection.execute(_CLAIM, values)}
    rows = await connection.execute(_LOOK, {**_names(stage), "keys": keys})
    claimed: list[Claim] = []
    unclaimed: list[Unclaimed] = []
    broken: list[Closing] = []
    for row in rows.mappings():
        attempt_row = opened.get(row["video_id"])
        try:
            if attempt_row is None:
                unclaimed.append(_unclaimed(row, stage))
            else:
                claimed.append(_claimed(row, stage, attempt_row, context, owner))
        except UnreadableRow as error:
            unclaimed.append(Unclaimed(row["key"], "failed", str(error), error_class=UNREADABLE.error_class))
            if attempt_row is not None:
                held = _UnreadableClaim(row["video_id"], stage, row["generation"], attempt_row, owner)
                broken.append(Closing(held, replace(UNREADABLE, message=str(error))))
    if broken:
        await finish(connection, broken)
    return Claims(claimed, unclaimed)


# Nothing was sent, so the attempt's row is deleted. What an earlier attempt received stays for the retry.
UNREADABLE = AttemptOutcome(StageState.FAILED, counts=False, error_class=Permanent.error_class, code="unreadable", unsent=True)


@dataclass(frozen=True)
class _UnreadableClaim:
    """A claim whose video cannot be read, as far as an outcome needs it."""

    video_id: int
    stage: Stage
    generation: int
    attempt_row: int
    owner: str


def video_of(row: RowMapping) -> Video:
    """The video of a row with `key`, `created_at`, and as JSON `brief` and `channel` (the channel's configuration).

    Raises Unreadable.
    """
    return Video(
        key=row["key"],
        brief=brief_of(row["key"], row["brief"]),
        channel=channel_of(row["key"], row["channel"]),
        created_at=row["created_at"],
    )


def _claimed(row: RowMapping, stage: Stage, attempt_row: int, context: RunContext, owner: str) -> Claim:
    return Claim(
        video_id=row["video_id"],
        video=video_of(row),
        stage=stage,
        revision=row["revision"],
        generation=row["generation"],
        attempt_row=attempt_row,
        attempts_used=row["attempts"],
        inputs=outputs_of(row["key"], row["inputs"]),
        spent=Decimal(row["spent"]),
        run_id=context.run_id,
        stored_response=row["stored_response"],
        decision=_decision(context.decision, decision_of(row["key"], row["decision"])),
        owner=owner,
        in_doubt=tuple(row["in_doubt"] or ()),
        reads=row["reads"],
        waits=row["waits"],
    )


def _decision(given: ReviewDecision | None, recorded: ReviewDecision | None) -> ReviewDecision | None:
    """The run's decision, or the recorded one if it is the same, because the record has the words that were looked at."""
    if given is None or recorded is None:
        return given or recorded
    same = (given.approved, given.reviewer, given.note) == (recorded.approved, recorded.reviewer, recorded.note)
    return recorded if same else given


def decision_of(key: str, row: Mapping[str, Any] | None) -> ReviewDecision | None:
    """The decision in a row of `approvals` (JSON or a mapping), or None. Raises UnreadableRow."""
    if row is None:
        return None
    decided_at = row["decided_at"]
    return ReviewDecision(
        approved=row["approved"],
        reviewer=row["reviewer"],
        note=row["note"],
        content_sha256=row["content_sha256"],
        decided_at=datetime.fromisoformat(decided_at) if isinstance(decided_at, str) else decided_at,
        words=words_of(key, row["words"]),
    )


def _names(stage: Stage) -> dict[str, Any]:
    return {"stage": stage.name, "needs": list(stage.needs), "before": [earlier.name for earlier in upstream(stage.name)]}


def _unclaimed(row: RowMapping, stage: Stage) -> Unclaimed:
    key = row["key"]
    if row["video_id"] is None:
        return Unclaimed(key, "failed", "there is no brief with this key; add one with `phantoms add`", error_class=UNKNOWN_VIDEO)
    if row["state"] is None:
        return Unclaimed(key, "skipped", f"not wanted on {stage.platform}", error_class=NOT_WANTED)
    state = StageState(row["state"])
    if state is StageState.DONE:
        return Unclaimed(key, "done", "", output=output_of(key, stage.name, row["output"] or "null"))
    if state is StageState.BLOCKED:
        if nothing_is_wrong := _waits(key, stage, row["before"] or {}):
            return nothing_is_wrong
        made = json.loads(row["inputs"] or "{}")
        missing = [name for name in stage.needs if name not in made]
        return Unclaimed(key, "failed", f"waits for {', '.join(missing) or 'an earlier stage'}", error_class="missing_input")
    if state is StageState.RUNNING:
        return Unclaimed(key, "deferred", "another run is working on it", retry_at=row["lease_until"])
    if state is StageState.DEFERRED:
        return Unclaimed(key, "deferred", row["reason"] or "deferred", retry_at=row["retry_at"], error_class=row["error_class"])
    if state is StageState.READY:
        return Unclaimed(key, "deferred", "not before its time", retry_at=row["ready_at"])
    if state is StageState.FAILED:
        return Unclaimed(key, "failed", row["reason"] or "failed before", error_class=row["error_class"])
    if state is StageState.REJECTED:
        return Unclaimed(key, "skipped", row["reason"] or "rejected by a person", error_class=REJECTED)
    return Unclaimed(key, "skipped", f"given up; it failed with: {row['reason'] or 'no reason given'}", error_class=DISCARDED)


def _waits(key: str, stage: Stage, states: Mapping[str, str]) -> Unclaimed | None:
    """Why the stage is blocked, if a person must decide or has decided; None when an earlier stage still has to be made."""
    first = next((earlier.name for earlier in upstream(stage.name) if states.get(earlier.name) != StageState.DONE), None)
    state = states.get(first or "")
    if state == StageState.DISCARDED:
        return Unclaimed(key, "skipped", f"{first} was given up: its dead letter is discarded", error_class=DISCARDED)
    if state == StageState.REJECTED:
        return Unclaimed(key, "skipped", f"rejected by a person: `phantoms show {key}`", error_class=REJECTED)
    if first == "approval" and state in (StageState.READY, StageState.DEFERRED):
        reason = f"waits for a person to decide: `phantoms approve {key}`"
        return Unclaimed(key, "deferred", reason, error_class=WAITS_FOR_PERSON)
    return None
