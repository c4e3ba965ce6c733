"""Outcomes: closes attempts and claims. Each batch is one transaction, together with all consequences.

The consequences: the next stages become ready, and dead letters are written. `claims` makes claims.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import text

from phantoms_dagster.domain.claims import HELD, AttemptOutcome
from phantoms_dagster.domain.stages import STAGES, Stage, StageState
from phantoms_dagster.store.bookings import WAITS_FOR_TIME
from phantoms_dagster.store.planning import notify
from phantoms_dagster.store.rows import as_json

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_ROWS = """jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(
    video_id bigint, stage text, generation bigint, owner text, attempt_row bigint, state text, counts int, output jsonb,
    provider text, provider_ref text, cost numeric, retry_at timestamptz, error_class text, code text, message text,
    evidence jsonb, unsent boolean, outage boolean, paced jsonb, waits_for text)"""

# An attempt's waits for pools and breakers, in seconds by name: the waits of earlier attempts that sent nothing, the stage's wait
# in the table since then, and its own waits. There are nearly always none, and then nothing is looked up.
_PACED = """CASE WHEN COALESCE(g.paced, s.paced) IS NOT NULL OR s.waits_since IS NOT NULL THEN (
        SELECT jsonb_object_agg(w.name, round(w.seconds, 1)) FROM (
            SELECT p.key AS name, sum(CAST(p.value AS numeric)) AS seconds FROM (
                SELECT key, value FROM jsonb_each_text(COALESCE(g.paced, '{}'))
                UNION ALL SELECT key, value FROM jsonb_each_text(COALESCE(s.paced, '{}'))
                UNION ALL SELECT s.waits_for, CAST(extract(epoch FROM GREATEST(t.started_at - s.waits_since, '0')) AS text)
                    FROM phantoms.attempts t WHERE t.id = g.attempt_row AND s.waits_since IS NOT NULL
            ) p GROUP BY p.key
        ) w) END"""

# How an outcome changes a stage's budget. The age of its failures starts with the first one that costs an attempt, and starts again
# after an outage, because a failure while a provider is down says nothing about the video.
_BUDGET = """attempts = s.attempts + g.counts,
            failing_since = CASE WHEN g.outage THEN NULL WHEN g.counts = 1 THEN COALESCE(s.failing_since, clock_timestamp())
                ELSE s.failing_since END,
            waits = CASE WHEN g.counts = 0 AND g.state = 'deferred' THEN s.waits + 1 ELSE 0 END"""

# Each row of a batch finds its stage by the primary key. `IS NOT DISTINCT FROM` keeps the planner from using the indexes by state
# and by owner. Its statistics on them may date from a time when few stages were running, and then it scanned all running stages per
# row.
_CLOSE_ATTEMPTS = text(
    f"""
    UPDATE phantoms.attempts a
    SET state = g.state, finished_at = clock_timestamp(), provider = COALESCE(g.provider, a.provider),
        provider_ref = COALESCE(g.provider_ref, a.provider_ref), cost = GREATEST(a.cost, COALESCE(g.cost, 0)),
        error_class = g.error_class, code = g.code, message = g.message, evidence = g.evidence,
        paced = CASE WHEN a.id = g.attempt_row THEN {_PACED} ELSE a.paced END
    FROM {_ROWS} JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
    WHERE a.video_id = g.video_id AND a.stage = g.stage AND (a.id = g.attempt_row OR a.state IS NOT DISTINCT FROM 'received')
    """
)

_WAITS_FOR_TIME = WAITS_FOR_TIME.format(message="g.message", error_class="g.error_class")

# One statement, so that it needs no transaction around it. Consequences apply only to rows that `ended` was able to end. All parts
# see the table as it was before, so a stage's cost counts the attempts as `closed` leaves them. A post is ready when it is
# booked, or else at its publish time, every other stage at once.
_FINISH = text(
    f"""
    WITH g AS MATERIALIZED (SELECT * FROM {_ROWS}),
    ended AS (
        UPDATE phantoms.stages s
        SET state = g.state, output = COALESCE(g.output, s.output), provider_ref = COALESCE(g.provider_ref, s.provider_ref),
            {_BUDGET}, reason = g.message,
            -- A claim has no `retry_at`, unless a person has changed the post's time since.
            retry_at = CASE WHEN s.retry_at IS NOT NULL AND g.state = 'deferred' AND {_WAITS_FOR_TIME} THEN s.retry_at
                ELSE g.retry_at END, error_class = g.error_class,
            lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp(),
            paced = CASE WHEN g.unsent AND g.state = 'deferred' THEN {_PACED} END, waits_for = g.waits_for,
            waits_since = CASE WHEN g.waits_for IS NOT NULL THEN clock_timestamp() END,
            cost = (SELECT COALESCE(sum(CASE WHEN a.id = g.attempt_row OR a.state = 'received'
                        THEN GREATEST(a.cost, COALESCE(g.cost, 0)) ELSE a.cost END), 0)
                    FROM phantoms.attempts a WHERE a.video_id = g.video_id AND a.stage = g.stage),
            finished_at = CASE WHEN g.state = 'deferred' THEN NULL ELSE clock_timestamp() END
        FROM g
        WHERE s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
            AND s.lease_owner IS NOT DISTINCT FROM g.owner AND s.state IS NOT DISTINCT FROM 'running'
        RETURNING s.video_id, s.stage, s.state
    ), closed AS (
        UPDATE phantoms.attempts a
        SET state = g.state, finished_at = clock_timestamp(), provider = COALESCE(g.provider, a.provider),
            provider_ref = COALESCE(g.provider_ref, a.provider_ref), cost = GREATEST(a.cost, COALESCE(g.cost, 0)),
            error_class = g.error_class, code = g.code, message = g.message, evidence = g.evidence,
            paced = CASE WHEN a.id = g.attempt_row THEN {_PACED} ELSE a.paced END
        FROM g JOIN ended e ON e.video_id = g.video_id AND e.stage = g.stage
        JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage
        WHERE a.video_id = g.video_id AND a.stage = g.stage AND NOT g.unsent
            AND (a.id = g.attempt_row OR a.state IS NOT DISTINCT FROM 'received')
    ), never AS (
        DELETE FROM phantoms.attempts a USING g JOIN ended e ON e.video_id = g.video_id AND e.stage = g.stage
        WHERE g.unsent AND a.video_id = g.video_id AND a.id = g.attempt_row AND a.state IS NOT DISTINCT FROM 'intent'
    ), next AS (
        UPDATE phantoms.stages n
        SET state = 'ready', updated_at = clock_timestamp(),
            ready_at = CASE WHEN n.stage LIKE '%/post' THEN GREATEST(clock_timestamp(), COALESCE(
                (SELECT b.at FROM phantoms.bookings b
                    WHERE b.video_id = n.video_id AND b.platform = split_part(n.stage, '/', 1) AND b.state = 'booked'),
                v.publish_at)) ELSE clock_timestamp() END
        FROM ended e
        JOIN jsonb_to_recordset(CAST(:next AS jsonb)) AS f(made text, stage text) ON f.made = e.stage
        JOIN phantoms.videos v ON v.id = e.video_id
        WHERE e.state = 'done' AND n.video_id = e.video_id AND n.stage = f.stage AND n.state IS NOT DISTINCT FROM 'blocked'
        RETURNING n.stage
    ), notified AS ({notify("stage")} FROM (SELECT DISTINCT stage FROM next WHERE stage <> 'approval') n)
    SELECT video_id, stage, (SELECT count(*) FROM notified) FROM ended
    """
)

# A statement sees bookings as they were when it began, even if it then waited for a person who was moving the post. So this one
# follows, and makes a post ready earlier if its time is earlier now. A post that is ready too early asks for its time anyway.
_READY_EARLIER = text(
    """
    UPDATE phantoms.stages s SET ready_at = GREATEST(clock_timestamp(), w.at), updated_at = clock_timestamp()
    FROM (
        SELECT g.video_id, split_part(g.stage, '/', 1) || '/post' AS stage, COALESCE(b.at, v.publish_at) AS at
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(video_id bigint, stage text)
        JOIN phantoms.videos v ON v.id = g.video_id
        LEFT JOIN phantoms.bookings b ON b.video_id = g.video_id AND b.platform = split_part(g.stage, '/', 1) AND b.state = 'booked'
    ) w
    WHERE s.video_id = w.video_id AND s.stage = w.stage AND s.state IS NOT DISTINCT FROM 'ready'
        AND s.ready_at > GREATEST(clock_timestamp(), w.at)
    """
)

# Shorter waits are not shown in a video's story.
PACED_SECONDS = 0.5

# A letter with a long history keeps the first attempts, the last ones, and the number of those between.
FIRST_TRIES, LAST_TRIES, MESSAGE_CHARACTERS = 5, 15, 500
_BURY = text(
    f"""
    INSERT INTO phantoms.dead_letters (video_id, stage, revision, provider, error_class, code, message, evidence, attempts, tries,
        counted, failing_since, run_id)
    SELECT g.video_id, g.stage, s.revision, g.provider, g.error_class, g.code, g.message, g.evidence, COALESCE(h.items, '[]'),
        h.tries, s.attempts, s.failing_since, s.run_id
    FROM {_ROWS} JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
    CROSS JOIN LATERAL (
        WITH numbered AS (
            SELECT a.*, row_number() OVER (ORDER BY a.id) AS place, count(*) OVER () AS total FROM phantoms.attempts a
            WHERE a.video_id = g.video_id AND a.stage = g.stage AND a.revision = s.revision
        ), kept AS (
            SELECT place, jsonb_build_object('at', started_at, 'ended', finished_at, 'provider', provider, 'class', error_class,
                'code', code, 'message', left(message, {MESSAGE_CHARACTERS}), 'run_id', run_id) AS item
            FROM numbered WHERE place <= {FIRST_TRIES} OR place > total - {LAST_TRIES}
        ), gap AS (
            SELECT COALESCE(error_class, state) AS class, count(*) AS n, min(started_at) AS at, max(finished_at) AS ended
            FROM numbered WHERE place > {FIRST_TRIES} AND place <= total - {LAST_TRIES} GROUP BY 1
        )
        SELECT (SELECT jsonb_agg(i.item ORDER BY i.place) FROM (
                SELECT place::float8 AS place, item FROM kept
                UNION ALL
                SELECT {FIRST_TRIES}.5, jsonb_build_object('at', min(at), 'ended', max(ended), 'omitted', sum(n),
                    'message', sum(n) || ' more: ' || string_agg(n || ' ' || class, ', ' ORDER BY n DESC, class))
                FROM gap HAVING count(*) > 0) i) AS items,
            (SELECT count(*) FROM numbered) AS tries
    ) h
    WHERE s.state IS NOT DISTINCT FROM 'failed'
    ON CONFLICT (video_id, stage) WHERE state = 'open' DO NOTHING
    """
)

_STILL_OURS = text(
    """
    SELECT g.video_id, g.stage
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(video_id bigint, stage text, generation bigint)
    JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
    """
)

# If the answer of a first commit was lost, the attempt that it opened already exists. It is returned, not opened twice.
_NEXT_ATTEMPT = text(
    f"""
    WITH ours AS (
        SELECT s.video_id, s.stage, s.revision, s.generation, s.run_id, g.counts, g.outage, g.state,
            (SELECT max(n.id) FROM phantoms.attempts n
                WHERE n.video_id = s.video_id AND n.stage = s.stage AND n.generation = s.generation
                    AND n.id > g.attempt_row) AS next
        FROM {_ROWS}
        JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
            AND s.lease_owner IS NOT DISTINCT FROM g.owner AND s.state IS NOT DISTINCT FROM 'running'
        ORDER BY s.video_id
        FOR UPDATE OF s
    ), counted AS (
        UPDATE phantoms.stages s SET {_BUDGET}, paced = NULL, waits_for = NULL, waits_since = NULL, updated_at = clock_timestamp()
        FROM ours g WHERE s.video_id = g.video_id AND s.stage = g.stage AND g.next IS NULL
    ), opened AS (
        INSERT INTO phantoms.attempts (video_id, stage, revision, generation, run_id)
        SELECT video_id, stage, revision, generation, run_id FROM ours WHERE next IS NULL
        RETURNING id, video_id, stage
    )
    SELECT id, video_id, stage FROM opened
    UNION ALL SELECT next, video_id, stage FROM ours WHERE next IS NOT NULL
    """
)

# An account is free when no run works on one of its posts. Then a few of the posts that wait for it become due at once. They run
# one after the other in one run, whose end wakes the next few. A row that is being claimed at this moment needs no waking.
WOKEN = 10
_OF_POST = "s.video_id = o.video_id AND s.stage = o.platform || '/post' AND s.state IS NOT DISTINCT FROM"
_AT_WORK = f"""SELECT FROM phantoms.posts o
            JOIN phantoms.stages s ON {_OF_POST} 'running' AND s.lease_until > clock_timestamp()
            WHERE o.platform = f.platform AND o.account = f.account"""
_WAKE = text(
    f"""
    WITH freed AS (
        SELECT DISTINCT p.platform, p.account
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(video_id bigint, stage text)
        JOIN phantoms.posts p ON p.video_id = g.video_id AND p.platform || '/post' = g.stage
    ), woken AS (
        UPDATE phantoms.stages w SET retry_at = clock_timestamp(), updated_at = clock_timestamp()
        FROM freed f CROSS JOIN LATERAL (
            SELECT s.video_id, s.stage FROM phantoms.posts o
            JOIN phantoms.stages s ON {_OF_POST} 'deferred' AND s.error_class = '{HELD}' AND s.retry_at > clock_timestamp()
            JOIN phantoms.videos v ON v.id = s.video_id
            WHERE o.platform = f.platform AND o.account = f.account AND o.state = 'intent'
            ORDER BY v.publish_at NULLS LAST, v.priority, v.place LIMIT {WOKEN}
            FOR UPDATE OF s SKIP LOCKED
        ) n
        WHERE w.video_id = n.video_id AND w.stage = n.stage
            AND NOT EXISTS ({_AT_WORK} AND o.state = 'intent')
            AND NOT EXISTS ({_AT_WORK} AND o.state IN ('opened', 'uploading', 'committing'))
        RETURNING w.stage
    )
    {notify("stage")} FROM (SELECT DISTINCT stage FROM woken) n
    """
)


class HeldClaim(Protocol):
    """The part of a claim that an outcome needs."""

    @property
    def video_id(self) -> int:
        """The id of the video."""
        ...

    @property
    def stage(self) -> Stage:
        """The stage."""
        ...

    @property
    def generation(self) -> int:
        """The generation that fences every write."""
        ...

    @property
    def attempt_row(self) -> int:
        """The id of the open attempt."""
        ...

    @property
    def owner(self) -> str:
        """The owner of the claim."""
        ...


@dataclass(frozen=True)
class Closing:
    """An outcome to write, with its claim."""

    claim: HeldClaim
    outcome: AttemptOutcome

    @property
    def key(self) -> tuple[int, str]:
        """The video id and stage name of its row."""
        return self.claim.video_id, self.claim.stage.name

    @property
    def fails(self) -> bool:
        """Whether a dead letter is also written."""
        return self.outcome.state is StageState.FAILED

    def row(self) -> dict[str, Any]:
        """The non-empty fields of `_ROWS`, ready for JSON."""
        claim, outcome, made = self.claim, self.outcome, self.outcome.result
        fields = {
            "video_id": claim.video_id,
            "stage": claim.stage.name,
            "generation": claim.generation,
            "owner": claim.owner,
            "attempt_row": claim.attempt_row,
            "state": str(outcome.state),
            "counts": int(outcome.counts),
            "output": made.output.model_dump(mode="json") if made else None,
            "provider": outcome.provider or (made.provider if made else None),
            "provider_ref": made.provider_ref if made else None,
            "cost": str(made.cost) if made else None,
            "retry_at": outcome.retry_at.isoformat() if outcome.retry_at else None,
            "error_class": outcome.error_class,
            "code": outcome.code,
            "message": outcome.message,
            "evidence": outcome.evidence.model_dump(mode="json", exclude_defaults=True) if outcome.evidence else None,
            "unsent": outcome.unsent,
            "outage": outcome.outage,
            "paced": {name: seconds for name, seconds in outcome.paced.items() if seconds >= PACED_SECONDS} or None,
            "waits_for": outcome.waits_for or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _json(closings: Iterable[Closing]) -> dict[str, str]:
    # In a fixed order, so that two batches cannot deadlock.
    return {"rows": as_json([closing.row() for closing in sorted(closings, key=lambda c: c.key)])}


async def finish(connection: AsyncConnection, closings: Sequence[Closing]) -> list[bool]:
    """Write outcomes. Returns False for a claim that another runner has taken over; nothing of it was written.

    Without a failed one among them (`Closing.fails`), one statement writes everything and no transaction is needed. Posts that wait
    for an account that is now free are woken afterwards, and posts that were moved meanwhile get their new time. If that is lost,
    they are retried at their own time.
    """
    following = [
        {"made": m.name, "stage": s.name} for m in {c.claim.stage for c in closings} for s in STAGES.values() if m.name in s.after
    ]
    ended = await connection.execute(_FINISH, {**_json(closings), "next": json.dumps(following)})
    ours = {(row.video_id, row.stage) for row in ended}
    variants = [c for c in closings if c.claim.stage.kind == "variant" and c.outcome.state is StageState.DONE]
    if variants:
        await connection.execute(_READY_EARLIER, _json(variants))
    posts = [c for c in closings if c.claim.stage.kind == "post"]
    if posts:
        await connection.execute(_WAKE, _json(posts))
    failed = [c for c in closings if c.fails]
    if failed:
        await connection.execute(_BURY, _json(failed))
    # Either the answer of a first commit was lost, or they were taken over.
    left = [c for c in closings if c.key not in ours]
    if left:
        ours |= {(row.video_id, row.stage) for row in await connection.execute(_STILL_OURS, _json(left))}
    return [closing.key in ours for closing in closings]


async def next_attempts(connection: AsyncConnection, closings: Sequence[Closing]) -> list[int | None]:
    """Close attempts and open the next ones. Returns their ids, and None for a claim that another runner has taken over."""
    rows = _json(closings)
    await connection.execute(_CLOSE_ATTEMPTS, rows)
    opened = {(row.video_id, row.stage): row.id for row in await connection.execute(_NEXT_ATTEMPT, rows)}
    return [opened.get(closing.key) for closing in closings]
