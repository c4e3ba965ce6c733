"""`PostgresStageStore` implements the runner's port with `claims` and `outcomes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import text

from phantoms_dagster.domain.claims import AttemptOutcome, Claim, Claims, Failing, RunContext
from phantoms_dagster.domain.errors import LOOK_UP_FAILED, InvalidInput, StaleClaim, Unknown
from phantoms_dagster.domain.stages import Stage, downstream
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.store import claims, outcomes, schema_version
from phantoms_dagster.store.earlier import keep
from phantoms_dagster.store.group_commit import GroupCommit
from phantoms_dagster.store.outcomes import Closing
from phantoms_dagster.store.rows import as_json
from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_HEARTBEAT = text(
    """
    UPDATE phantoms.stages SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE lease_owner = :owner AND state = 'running'
    """
)

# The new generation makes the store refuse late outcomes of cancelled videos.
_RELEASE = text(
    """
    WITH ours AS (
        UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp(), reason = 'the run was stopped',
            generation = generation + 1, lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()
        WHERE lease_owner = :owner AND state = 'running'
        RETURNING video_id, stage
    )
    UPDATE phantoms.attempts a SET state = 'abandoned', finished_at = clock_timestamp(), message = 'the run was stopped'
    FROM ours WHERE a.video_id = ours.video_id AND a.stage = ours.stage AND a.state = 'intent'
    """
)

# In the same order as claims lock them. A post that begins meanwhile waits, and then finds that its stage was voided.
_LOCK_VIDEOS = text(
    """
    SELECT FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id WHERE v.key = ANY(:keys)
    ORDER BY s.video_id, s.stage FOR UPDATE OF s
    """
)
_IN_FLIGHT = text(
    """
    SELECT v.key, p.platform FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE v.key = ANY(:keys) AND p.state IN ('opened', 'uploading', 'committing', 'unknown', 'handed_over') LIMIT 1
    """
)

_NEW_REVISION = text(
    f"""
    WITH kept AS ({keep("r.video_id IN (SELECT id FROM phantoms.videos WHERE key = ANY(:keys))")})
    UPDATE phantoms.stages s
    SET state = 'ready', revision = s.revision + 1, attempts = 0, failing_since = NULL, waits = 0,
        generation = s.generation + 1, ready_at = clock_timestamp(), reason = 'regenerated', error_class = NULL,
        started_at = NULL, finished_at = NULL, updated_at = clock_timestamp()
    FROM phantoms.videos v
    WHERE v.id = s.video_id AND v.key = ANY(:keys) AND s.stage = :stage AND s.state = 'done'
        AND s.run_id IS DISTINCT FROM :run_id -- a run that was resumed does not make again what it made already
    RETURNING s.video_id
    """
)

# Published posts and their variants stay. Everything else downstream is made again.
VOID = text(
    """
    UPDATE phantoms.stages s
    SET state = 'blocked', revision = s.revision + 1, attempts = 0, failing_since = NULL, waits = 0,
        generation = s.generation + 1, output = NULL, ready_at = NULL, retry_at = NULL, lease_owner = NULL, lease_until = NULL,
        reason = 'an earlier stage was regenerated', error_class = NULL,
        started_at = NULL, finished_at = NULL, updated_at = clock_timestamp()
    WHERE s.video_id = ANY(:ids) AND s.stage = ANY(:stages) AND NOT EXISTS (
        SELECT FROM phantoms.stages p
        WHERE p.video_id = s.video_id AND p.stage LIKE '%/post' AND p.state = 'done'
            AND split_part(p.stage, '/', 1) = split_part(s.stage, '/', 1))
    """
)

_CLOSE_LETTERS = text(
    """
    UPDATE phantoms.dead_letters
    SET state = 'replayed', closed_at = clock_timestamp(), closed_by = :run_id, closed_reason = 'an earlier stage was regenerated'
    WHERE video_id = ANY(:ids) AND stage = ANY(:stages) AND state = 'open'
    """
)

_RECEIVED = text(
    """
    UPDATE phantoms.attempts a
    SET state = 'received', response = g.response, provider_ref = g.provider_ref, cost = COALESCE(g.cost, a.cost)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(id bigint, response jsonb, provider_ref text, cost numeric)
    WHERE a.id = g.id
    """
)

_FAILING = text(
    """
    SELECT extract(epoch FROM clock_timestamp() - s.failing_since)::float8 AS seconds,
        NOT EXISTS (SELECT FROM phantoms.stages o WHERE o.stage = s.stage AND o.state = 'done' AND o.video_id <> s.video_id
            AND o.finished_at >= s.failing_since) AS alone
    FROM phantoms.stages s WHERE s.video_id = :video_id AND s.stage = :stage
    """
)

# Posts are never made twice, and a decision is revoked by changing the content that it was about.
REGENERATED = ("script", "voiceover", "rendered_video")

_Received = tuple[int, JsonObject, str | None, Decimal | None]


class PostgresAttempt:
    """Implements `ports.Attempt`."""

    def __init__(self, claim: Claim, received: GroupCommit[_Received, None]) -> None:
        self._claim = claim
        self._received = received

    @property
    def id(self) -> str:
        """`a<row>-<video key>`, at most 64 characters."""
        return self._id_of(self._claim.attempt_row)

    @property
    def in_doubt(self) -> tuple[str, ...]:
        """See the port."""
        return tuple(self._id_of(row) for row in self._claim.in_doubt)

    def _id_of(self, row: int) -> str:
        return f"a{row}-{self._claim.video.key}"[:64]

    @property
    def reads(self) -> int:
        """See the port."""
        return self._claim.reads

    @property
    def stored_response(self) -> JsonObject | None:
        """See the port."""
        return self._claim.stored_response

    async def received(self, response: JsonObject, *, provider_ref: str | None = None, cost: Decimal | None = None) -> None:
        """See the port. It is written even when the claim is lost, because the answer was paid for."""
        await self._received((self._claim.attempt_row, response, provider_ref, cost))


class PostgresStageStore:
    """The table of stages for any number of concurrent runs on one event loop. Each claim knows its owner."""

    def __init__(self, engine: AsyncEngine, *, lease_seconds: float) -> None:
        self._engine = engine
        self._statements = statements(engine)
        self._lease_seconds = lease_seconds
        self._finish: GroupCommit[Closing, bool] = GroupCommit(self._write_outcomes)
        self._next: GroupCommit[Closing, int | None] = GroupCommit(self._write_next_attempts)
        self._received: GroupCommit[_Received, None] = GroupCommit(self._write_received)

    async def claim(self, stage: Stage, keys: Sequence[str], *, owner: str, context: RunContext) -> Claims:
        """See the port."""

        async def work(connection: AsyncConnection) -> Claims:
            await connection.run_sync(schema_version.check)  # start no work on tables of another version
            return await claims.claim(connection, stage, keys, owner=owner, context=context, lease_seconds=self._lease_seconds)

        return await transaction(self._engine, work)

    async def heartbeat(self, owner: str) -> None:
        """See the port."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_HEARTBEAT, {"owner": owner, "lease": self._lease_seconds})

        await transaction(self._statements, work, max_wait=self._lease_seconds)

    async def release(self, owner: str) -> None:
        """See the port."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_RELEASE, {"owner": owner})

        await transaction(self._statements, work, max_wait=5)

    async def regenerate(self, stage: Stage, keys: Sequence[str], *, run_id: str = "") -> None:
        """See the port."""

        if stage.kind not in REGENERATED:
            raise InvalidInput(f"{stage.name} cannot be regenerated; {', '.join(REGENERATED)} can")

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_LOCK_VIDEOS, {"keys": list(keys)})
            busy = (await connection.execute(_IN_FLIGHT, {"keys": list(keys)})).first()
            if busy is not None:
                raise InvalidInput(f"{busy.key} is being published on {busy.platform}; regenerate it when that has ended")
            values = {"keys": list(keys), "stage": stage.name, "run_id": run_id}
            made = await connection.execute(_NEW_REVISION, values)
            ids = [row.video_id for row in made]
            if ids:
                after = [s.name for s in downstream(stage.name)]
                await connection.execute(VOID, {"ids": ids, "stages": after})
                await connection.execute(_CLOSE_LETTERS, {"ids": ids, "stages": after, "run_id": run_id})

        await transaction(self._engine, work)

    async def attempt(self, claim: Claim) -> PostgresAttempt:
        """See the port."""
        return PostgresAttempt(claim, self._received)

    async def try_again(self, claim: Claim, outcome: AttemptOutcome) -> Claim:
        """See the port."""
        row = await self._next(Closing(claim, outcome))
        if row is None:
            raise StaleClaim(f"{claim.video.key}: another runner has taken over {claim.stage.name}")
        unknown = outcome.error_class == Unknown.error_class
        return replace(
            claim,
            attempt_row=row,
            attempts_used=claim.attempts_used + int(outcome.counts),
            stored_response=None,
            in_doubt=_doubts(claim, outcome) if unknown else (),
            reads=claim.reads + 1 if unknown else 0,
        )

    async def failing(self, claim: Claim) -> Failing:
        """See the port."""

        async def work(connection: AsyncConnection) -> Failing:
            row = (await connection.execute(_FAILING, {"video_id": claim.video_id, "stage": claim.stage.name})).one_or_none()
            return Failing() if row is None else Failing(row.seconds, row.alone)

        return await transaction(self._statements, work)

    async def finish(self, claim: Claim, outcome: AttemptOutcome) -> bool:
        """See the port."""
        return await self._finish(Closing(claim, outcome))

    async def _write_outcomes(self, closings: Sequence[Closing]) -> Sequence[bool]:
        engine = self._engine if any(closing.fails for closing in closings) else self._statements
        return await transaction(engine, lambda connection: outcomes.finish(connection, closings))

    async def _write_next_attempts(self, closings: Sequence[Closing]) -> Sequence[int | None]:
        return await transaction(self._engine, lambda connection: outcomes.next_attempts(connection, closings))

    async def _write_received(self, items: Sequence[_Received]) -> Sequence[None]:
        rows = [
            {"id": row, "response": response, "provider_ref": ref, "cost": None if cost is None else str(cost)}
            for row, response, ref, cost in items
        ]

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_RECEIVED, {"rows": as_json(rows)})

        await transaction(self._statements, work)
        return [None] * len(items)


def _doubts(claim: Claim, outcome: AttemptOutcome) -> tuple[int, ...]:
    """The attempts that may have taken effect, after one that ended `unknown`."""
    return claim.in_doubt if outcome.code == LOOK_UP_FAILED else (*claim.in_doubt, claim.attempt_row)
