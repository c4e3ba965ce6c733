"""The ledgers of posts and paid renders: what must never be done twice. Every step is fenced by the stage's claim.

The order of the steps belongs to the adapters, what is legal to `domain.stages`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from phantoms_dagster.domain.errors import IllegalTransition, NotYet, StaleClaim
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.ports import PostRecord
from phantoms_dagster.domain.stages import POST_TRANSITIONS, PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.domain.work import Claim, RenderRecord
from phantoms_dagster.store.group_commit import GroupCommit
from phantoms_dagster.store.rows import as_json
from phantoms_dagster.store.transactions import transaction

ACCOUNT_BUSY_SECONDS = 5.0

_OPEN_POST = text(
    """
    INSERT INTO phantoms.posts (video_id, platform, account, marker, video_sha256, caption_sha256, sandbox)
    VALUES (:video_id, :platform, :account, :marker, :video_sha256, :caption_sha256, :sandbox)
    ON CONFLICT (video_id, platform, account) DO UPDATE
    SET video_sha256 = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.video_sha256 ELSE posts.video_sha256 END,
        caption_sha256 = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.caption_sha256 ELSE posts.caption_sha256 END,
        sandbox = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.sandbox ELSE posts.sandbox END,
        updated_at = clock_timestamp()
    RETURNING id, state, handle, upload_offset, remote_id, url, attempted_at
    """
)

# `before` makes a repeated commit (its first answer lost) find its own row; `generation` refuses a stale runner.
_SAVE_POSTS = text(
    """
    WITH g AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            id bigint, stage text, generation bigint, state text, handle jsonb, upload_offset bigint, remote_id text, url text)
    ), ours AS (
        -- Locked, so that a takeover which is being committed is waited for and then seen.
        SELECT g.id FROM g JOIN phantoms.posts q ON q.id = g.id
        JOIN phantoms.stages s ON s.video_id = q.video_id AND s.stage = g.stage AND s.generation = g.generation
        WHERE s.state = 'running' ORDER BY s.video_id FOR SHARE OF s
    )
    UPDATE phantoms.posts p
    SET state = g.state, handle = COALESCE(g.handle, p.handle), upload_offset = COALESCE(g.upload_offset, p.upload_offset),
        remote_id = COALESCE(g.remote_id, p.remote_id), url = COALESCE(g.url, p.url), updated_at = clock_timestamp(),
        attempted_at = CASE WHEN g.state = 'intent' THEN NULL ELSE COALESCE(p.attempted_at, clock_timestamp()) END,
        published_at = CASE WHEN g.state = 'published' THEN COALESCE(p.published_at, clock_timestamp()) ELSE p.published_at END
    FROM g JOIN ours ON ours.id = g.id
    WHERE p.id = g.id
    RETURNING p.id, p.state, p.handle, p.upload_offset, p.remote_id, p.url, p.attempted_at
    """
)

_LOCK_ACCOUNT = text("SELECT pg_advisory_xact_lock(hashtextextended(:account, 0))")

_BUSY = text(
    """
    SELECT v.key FROM phantoms.posts p
    JOIN phantoms.stages s ON s.video_id = p.video_id AND s.stage = p.platform || '/post'
    JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.platform = :platform AND p.account = :account AND p.id <> :id
        AND p.state IN ('opened', 'uploading', 'committing') AND s.state = 'running' AND s.lease_until > clock_timestamp()
    LIMIT 1
    """
)

_OPEN_RENDER = text(
    """
    INSERT INTO phantoms.renders (video_id, revision) VALUES (:video_id, :revision)
    ON CONFLICT (video_id, revision) DO UPDATE SET updated_at = clock_timestamp()
    RETURNING id, state, render_id, attempt_id, attempted_at
    """
)

_SAVE_RENDER = text(
    """
    WITH ours AS (
        SELECT r.id FROM phantoms.renders r JOIN phantoms.stages s ON s.video_id = r.video_id
        WHERE r.id = :id AND s.stage = :stage AND s.generation = :generation AND s.state = 'running' FOR SHARE OF s
    )
    UPDATE phantoms.renders r
    SET state = :state, updated_at = clock_timestamp(), attempt_id = COALESCE(:attempt_id, r.attempt_id),
        render_id = CASE WHEN :state = 'intent' THEN NULL ELSE COALESCE(:render_id, r.render_id) END,
        attempted_at = CASE WHEN :state IN ('intent', 'sending') THEN clock_timestamp() ELSE r.attempted_at END
    FROM ours WHERE r.id = ours.id
    RETURNING r.state, r.render_id, r.attempt_id, r.attempted_at
    """
)


@dataclass(frozen=True)
class _Step:
    row: dict[str, Any]


class PostgresPostJournal:
    """Implements `ports.PostJournal`."""

    def __init__(self, ledgers: PostgresLedgers, claim: Claim, account: str, row: RowMapping) -> None:
        self._ledgers = ledgers
        self._claim = claim
        self._account = account
        self._id: int = row["id"]
        self._record = _post_record(row)

    @property
    def record(self) -> PostRecord:
        """See the port."""
        return self._record

    async def save(
        self,
        state: PostState,
        *,
        handle: JsonObject | None = None,
        offset: int | None = None,
        remote_id: str | None = None,
        url: str | None = None,
    ) -> PostRecord:
        """See the port."""
        before = self._record.state
        if state not in POST_TRANSITIONS[before]:
            raise IllegalTransition(f"a post that is {before} cannot become {state}")
        step = _Step(
            {
                "id": self._id,
                "stage": self._claim.stage.name,
                "generation": self._claim.generation,
                "state": str(state),
                "handle": handle,
                "upload_offset": offset,
                "remote_id": remote_id,
                "url": url,
            }
        )
        if before is PostState.INTENT and state is PostState.OPENED:
            row = await self._ledgers.open_on_account(step, str(self._claim.stage.platform), self._account)
        else:
            row = await self._ledgers.save_post(step)
        if row is None:
            raise StaleClaim(f"{self._claim.video.key}: another runner has taken over {self._claim.stage.name}")
        self._record = _post_record(row)
        return self._record


class PostgresRenderJournal:
    """Implements `work.RenderJournal`."""

    def __init__(self, engine: AsyncEngine, claim: Claim, row: RowMapping) -> None:
        self._engine = engine
        self._claim = claim
        self._id: int = row["id"]
        self._record = _render_record(row)

    @property
    def record(self) -> RenderRecord:
        """See the port."""
        return self._record

    async def save(self, state: str, *, render_id: str | None = None, attempt_id: str | None = None) -> RenderRecord:
        """See the port."""
        values = {
            "id": self._id,
            "stage": self._claim.stage.name,
            "generation": self._claim.generation,
            "state": state,
            "render_id": render_id,
            "attempt_id": attempt_id,
        }

        async def work(connection: AsyncConnection) -> RowMapping | None:
            return (await connection.execute(_SAVE_RENDER, values)).mappings().first()

        row = await transaction(self._engine, work)
        if row is None:
            raise StaleClaim(f"{self._claim.video.key}: another runner has taken over {self._claim.stage.name}")
        self._record = _render_record(row)
        return self._record


class PostgresLedgers:
    """Implements `work.Ledgers`; belongs to one event loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.save_post: GroupCommit[_Step, RowMapping | None] = GroupCommit(self._write_posts)

    async def post(
        self, claim: Claim, *, account: str, marker: str, video: MediaFile, caption: str, sandbox: bool
    ) -> PostgresPostJournal:
        """See the port."""
        values = {
            "video_id": claim.video_id,
            "platform": str(claim.stage.platform),
            "account": account,
            "marker": marker,
            "video_sha256": video.sha256,
            "caption_sha256": hashlib.sha256(caption.encode()).hexdigest(),
            "sandbox": sandbox,
        }

        async def work(connection: AsyncConnection) -> RowMapping:
            return (await connection.execute(_OPEN_POST, values)).mappings().one()

        return PostgresPostJournal(self, claim, account, await transaction(self._engine, work))

    async def render(self, claim: Claim) -> PostgresRenderJournal:
        """See the port."""

        async def work(connection: AsyncConnection) -> RowMapping:
            values = {"video_id": claim.video_id, "revision": claim.revision}
            return (await connection.execute(_OPEN_RENDER, values)).mappings().one()

        return PostgresRenderJournal(self._engine, claim, await transaction(self._engine, work))

    async def open_on_account(self, step: _Step, platform: str, account: str) -> RowMapping | None:
        """Open a post unless another one is in flight on the same account. Raises NotYet."""

        async def work(connection: AsyncConnection) -> RowMapping | None:
            await connection.execute(_LOCK_ACCOUNT, {"account": f"{platform}:{account}"})
            values = {"platform": platform, "account": account, "id": step.row["id"]}
            busy = (await connection.execute(_BUSY, values)).first()
            if busy is not None:
                raise NotYet(f"{busy.key} is being published on {platform}:{account}", retry_after=ACCOUNT_BUSY_SECONDS)
            saved = await connection.execute(_SAVE_POSTS, {"rows": as_json([step.row])})
            return saved.mappings().first()

        return await transaction(self._engine, work)

    async def _write_posts(self, steps: Sequence[_Step]) -> Sequence[RowMapping | None]:
        # One row may be saved twice in a batch only by two callers, which a claim rules out.
        async def work(connection: AsyncConnection) -> dict[int, RowMapping]:
            saved = await connection.execute(_SAVE_POSTS, {"rows": as_json([step.row for step in steps])})
            return {row["id"]: row for row in saved.mappings()}

        rows = await transaction(self._engine, work)
        return [rows.get(step.row["id"]) for step in steps]


def _post_record(row: RowMapping) -> PostRecord:
    return PostRecord(
        state=PostState(row["state"]),
        handle=dict(row["handle"]),
        offset=row["upload_offset"],
        remote_id=row["remote_id"],
        url=row["url"],
        attempted_at=row["attempted_at"],
    )


def _render_record(row: RowMapping) -> RenderRecord:
    return RenderRecord(
        state=row["state"], render_id=row["render_id"], attempt_id=row["attempt_id"], attempted_at=row["attempted_at"]
    )
