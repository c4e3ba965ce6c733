"""The ledgers of posts and paid renders, which must never happen twice. Every step is fenced by the stage's claim.

`production.publication` decides the order of steps. `domain.publication` and `domain.paid_job` define the legal ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import RowMapping, TextClause, text

from phantoms_dagster.domain.claims import Claim
from phantoms_dagster.domain.errors import InvalidInput, NotYet, Rejected, StaleClaim
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.paid_job import NotBilled, PaidRecord, PaidState, WrittenOff, check_paid_step
from phantoms_dagster.domain.publication import NotPublished, PostRecord, check_step
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.store.group_commit import GroupCommit
from phantoms_dagster.store.rows import as_json
from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from phantoms_dagster.store.sealed_urls import SealedUrls

ACCOUNT_BUSY_SECONDS = 5.0
BEGUN_FOR_REAL_SECONDS = 600.0
UNREADABLE_SECONDS = 600.0  # until a handle is read again that no key decrypts
MOST_EVIDENCE = 500  # characters of a proof, which is one line

_OPEN_POST = text(
    """
    INSERT INTO phantoms.posts (
        video_id, platform, account, route, marker, video_sha256, caption_sha256, sandbox, set_apart, extras)
    SELECT video_id, platform, account, route, marker, video_sha256, caption_sha256, sandbox, set_apart, extras
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        video_id bigint, platform text, account text, route text, marker text, video_sha256 text, caption_sha256 text,
        sandbox boolean, set_apart text, extras text[])
    ORDER BY video_id, platform
    ON CONFLICT (video_id, platform, sandbox) WHERE NOT duplicate DO UPDATE
    -- A post that was started on an account and a route is finished there, even if the channel names others now.
    SET account = CASE WHEN posts.state IN ('intent', 'failed') AND posts.handle = '{}' AND posts.remote_id IS NULL
            THEN excluded.account ELSE posts.account END,
        route = CASE WHEN posts.state IN ('intent', 'failed') AND posts.handle = '{}' AND posts.remote_id IS NULL
            THEN excluded.route ELSE posts.route END,
        video_sha256 = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.video_sha256 ELSE posts.video_sha256 END,
        caption_sha256 = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.caption_sha256 ELSE posts.caption_sha256 END,
        set_apart = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.set_apart ELSE posts.set_apart END,
        extras = CASE WHEN posts.state IN ('intent', 'failed') THEN excluded.extras ELSE posts.extras END,
        updated_at = clock_timestamp()
    RETURNING id, video_id, platform, account, route, state, handle, upload_offset, remote_id, url, attempted_at,
        -- Only posts of other runs: posts of the same run wait for each other inside it.
        (SELECT v.key FROM phantoms.posts o
            JOIN phantoms.stages s ON s.video_id = o.video_id AND s.stage = o.platform || '/post'
                AND s.state IS NOT DISTINCT FROM 'running' AND s.lease_until > clock_timestamp()
            JOIN phantoms.stages m ON m.video_id = posts.video_id AND m.stage = s.stage AND m.run_id IS DISTINCT FROM s.run_id
            JOIN phantoms.videos v ON v.id = o.video_id
            WHERE o.platform = posts.platform AND o.account = posts.account AND o.id <> posts.id
                AND o.state IN ('opened', 'uploading', 'committing') LIMIT 1) AS busy,
        (SELECT r.account FROM phantoms.posts r WHERE posts.sandbox AND r.video_id = posts.video_id
            AND r.platform = posts.platform AND NOT r.sandbox AND NOT r.duplicate AND r.state NOT IN ('intent', 'failed') LIMIT 1
        ) AS begun_for_real
    """
)

# The same condition as in `_OPEN_POST`. In the sandbox, a real post also counts, because only its own account may finish it.
_BOUND = text(
    """
    SELECT account FROM phantoms.posts
    WHERE video_id = :video_id AND platform = :platform AND NOT duplicate AND (sandbox = :sandbox OR NOT sandbox)
        AND NOT (state IN ('intent', 'failed') AND handle = '{}' AND remote_id IS NULL)
    ORDER BY sandbox = :sandbox DESC LIMIT 1
    """
)

# A post that was started in the sandbox starts over for real, because the real platform has nothing of it.
_LEAVE_SANDBOX = text(
    """
    UPDATE phantoms.posts p SET state = 'failed', updated_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(video_id bigint, platform text, sandbox boolean)
    WHERE p.video_id = r.video_id AND p.platform = r.platform AND p.sandbox AND NOT r.sandbox
        AND p.state IN ('opened', 'uploading', 'committing', 'unknown', 'handed_over')
    """
)

_TAKEN = text(
    """
    SELECT v.key FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.platform = :platform AND p.remote_id = :remote_id AND p.id <> :id AND NOT p.sandbox AND NOT p.duplicate LIMIT 1
    """
)

# With `before`, a commit that is repeated after a lost answer finds its own row. `generation` refuses a stale runner. The stage is
# found by its primary key. `outcomes` explains `IS NOT DISTINCT FROM`.
_SAVE_POSTS = text(
    """
    WITH g AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id bigint, video_id bigint, stage text, generation bigint,
            state text, handle jsonb, upload_offset bigint, remote_id text, url text, proof text)
    ), ours AS MATERIALIZED (
        -- Locked, so that this waits for a takeover that is being committed and then sees it.
        SELECT g.* FROM g
        JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
        WHERE s.state IS NOT DISTINCT FROM 'running' ORDER BY s.video_id FOR SHARE OF s
    )
    UPDATE phantoms.posts p
    SET state = g.state, handle = COALESCE(g.handle, p.handle), upload_offset = COALESCE(g.upload_offset, p.upload_offset),
        remote_id = COALESCE(g.remote_id, p.remote_id), url = COALESCE(g.url, p.url), updated_at = clock_timestamp(),
        -- A person's word that a post is public stays with it.
        proof = CASE WHEN g.state = 'confirmed' THEN p.proof ELSE g.proof END,
        proved_at = CASE WHEN g.state = 'confirmed' THEN p.proved_at WHEN g.proof IS NOT NULL THEN clock_timestamp() END,
        attempted_at = CASE WHEN g.state = 'intent' THEN NULL ELSE COALESCE(p.attempted_at, clock_timestamp()) END,
        published_at = CASE WHEN g.state = 'published' THEN COALESCE(p.published_at, clock_timestamp()) ELSE p.published_at END
    FROM ours g
    WHERE p.id = g.id AND p.video_id = g.video_id AND NOT (
        g.remote_id IS NOT NULL AND NOT p.sandbox AND NOT p.duplicate AND EXISTS (
            SELECT FROM phantoms.posts o WHERE o.platform = p.platform AND o.remote_id = g.remote_id AND o.id <> p.id
                AND NOT o.sandbox AND NOT o.duplicate))
    RETURNING p.id, p.account, p.route, p.state, p.handle, p.upload_offset, p.remote_id, p.url, p.attempted_at
    """
)

# In a fixed order, so that two batches cannot deadlock.
_LOCK_ACCOUNTS = text(
    """
    SELECT pg_advisory_xact_lock(h.hash)
    FROM (SELECT DISTINCT hashtextextended(a, 0) AS hash FROM unnest(CAST(:accounts AS text[])) AS a ORDER BY 1 OFFSET 0) h
    """
)

_BUSY = text(
    """
    SELECT DISTINCT ON (g.id) g.id, v.key
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(id bigint, platform text, account text)
    JOIN phantoms.posts p ON p.platform = g.platform AND p.account = g.account AND p.id <> g.id
        AND p.state IN ('opened', 'uploading', 'committing')
    JOIN phantoms.stages s ON s.video_id = p.video_id AND s.stage = p.platform || '/post'
        AND s.state IS NOT DISTINCT FROM 'running' AND s.lease_until > clock_timestamp()
    JOIN phantoms.videos v ON v.id = p.video_id
    """
)

_OPEN_RENDER = text(
    """
    INSERT INTO phantoms.renders (video_id, revision, sandbox)
    SELECT video_id, revision, sandbox
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(video_id bigint, revision int, sandbox boolean) ORDER BY video_id
    ON CONFLICT (video_id, revision) DO UPDATE
    -- A render that was started in the sandbox starts over for real: the real service has nothing of it, and nothing was paid.
    SET state = CASE WHEN renders.sandbox AND NOT excluded.sandbox THEN 'intent' ELSE renders.state END,
        render_id = CASE WHEN renders.sandbox AND NOT excluded.sandbox THEN NULL ELSE renders.render_id END,
        attempt_id = CASE WHEN renders.sandbox AND NOT excluded.sandbox THEN NULL ELSE renders.attempt_id END,
        sandbox = excluded.sandbox AND (renders.state = 'intent' OR renders.sandbox IS NOT FALSE),
        updated_at = clock_timestamp()
    RETURNING id, video_id, revision, state, render_id, attempt_id, attempted_at, sandbox,
        (SELECT COALESCE(sum(a.cost), 0) FROM phantoms.attempts a WHERE a.video_id = renders.video_id) AS spent
    """
)

# A write-off is booked once, on the attempt that sent the order. A repeated commit finds the row already in `intent`.
_SAVE_RENDERS = text(
    """
    WITH g AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            id bigint, video_id bigint, stage text, generation bigint, state text, render_id text, attempt_id text,
            proof text, written_off numeric)
    ), ours AS MATERIALIZED (
        SELECT g.* FROM g
        JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage AND s.generation = g.generation
        WHERE s.state IS NOT DISTINCT FROM 'running' ORDER BY s.video_id FOR SHARE OF s
    ), booked AS (
        UPDATE phantoms.attempts a SET cost = a.cost + g.written_off
        FROM ours g JOIN phantoms.renders r ON r.id = g.id AND r.video_id = g.video_id AND r.state <> 'intent'
        WHERE g.written_off > 0 AND a.video_id = g.video_id AND a.id = CAST(substring(r.attempt_id FROM '^a([0-9]+)-') AS bigint)
    )
    UPDATE phantoms.renders r
    SET state = g.state, updated_at = clock_timestamp(), attempt_id = COALESCE(g.attempt_id, r.attempt_id),
        render_id = CASE WHEN g.state = 'intent' THEN NULL ELSE COALESCE(g.render_id, r.render_id) END,
        attempted_at = CASE g.state WHEN 'intent' THEN NULL WHEN 'sending' THEN clock_timestamp() ELSE r.attempted_at END,
        proof = g.proof, proved_at = CASE WHEN g.proof IS NOT NULL THEN clock_timestamp() END, written_off = g.written_off
    FROM ours g WHERE r.id = g.id AND r.video_id = g.video_id
    RETURNING r.id, r.state, r.render_id, r.attempt_id, r.attempted_at
    """
)


@dataclass(frozen=True)
class _Step:
    row: dict[str, Any]


@dataclass(frozen=True)
class _Opening:
    """The step that opens a post on its account."""

    step: _Step
    platform: str
    account: str
    key: str


@dataclass(frozen=True)
class _AccountBusy:
    """Another video is being published on the account."""

    key: str


class PostgresPostJournal:
    """Implements `publication.PostJournal`."""

    def __init__(self, ledgers: PostgresLedgers, claim: Claim, row: RowMapping) -> None:
        self._ledgers = ledgers
        self._claim = claim
        self._account: str = row["account"]
        self._id: int = row["id"]
        self._record = self._read(row)

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
        proof: NotPublished | None = None,
    ) -> PostRecord:
        """See the port."""
        before = self._record.state
        check_step(before, state, proof)
        step = _Step(
            {
                "id": self._id,
                "video_id": self._claim.video_id,
                "stage": self._claim.stage.name,
                "generation": self._claim.generation,
                "state": str(state),
                "handle": handle if handle is None or self._ledgers.urls is None else self._ledgers.urls.seal(handle),
                "upload_offset": offset,
                "remote_id": remote_id,
                "url": url,
                "proof": None if proof is None else proof.evidence[:MOST_EVIDENCE],
            }
        )
        if before is PostState.INTENT and state is PostState.OPENED:
            opening = _Opening(step, str(self._claim.stage.platform), self._account, self._claim.video.key)
            opened = await self._ledgers.open_on_account(opening)
            if isinstance(opened, _AccountBusy):
                raise _busy(opened.key, opening.platform, self._account)
            row = opened
        else:
            row = await self._ledgers.save_post(step)
        if row is None:
            platform = str(self._claim.stage.platform)
            if remote_id is not None and (other := await self._ledgers.owner_of(platform, remote_id, self._id)) is not None:
                message = f"{platform} names {remote_id} as this post, but it belongs to {other}: look at the account"
                raise Rejected(message, provider=platform, code="remote_id_taken")
            raise StaleClaim(f"{self._claim.video.key}: another runner has taken over {self._claim.stage.name}")
        self._record = self._read(row)
        return self._record

    def _read(self, row: RowMapping) -> PostRecord:
        record = _post_record(row)
        return record if self._ledgers.urls is None else replace(record, handle=self._ledgers.urls.open(record.handle))


class PostgresRenderJournal:
    """Implements `paid_job.PaidJournal` for renders."""

    def __init__(self, ledgers: PostgresLedgers, claim: Claim, row: RowMapping) -> None:
        self._ledgers = ledgers
        self._claim = claim
        self._id: int = row["id"]
        self._record = _render_record(row)

    @property
    def record(self) -> PaidRecord:
        """See the port."""
        return self._record

    async def save(
        self,
        state: PaidState,
        *,
        attempt_id: str | None = None,
        remote_id: str | None = None,
        proof: NotBilled | WrittenOff | None = None,
    ) -> PaidRecord:
        """See the port."""
        check_paid_step(self._record.state, state, proof)
        values = {
            "id": self._id,
            "video_id": self._claim.video_id,
            "stage": self._claim.stage.name,
            "generation": self._claim.generation,
            "state": str(state),
            "render_id": remote_id,
            "attempt_id": attempt_id,
            "proof": None if proof is None else proof.evidence[:MOST_EVIDENCE],
            "written_off": str(proof.usd) if isinstance(proof, WrittenOff) else None,
        }
        row = await self._ledgers.save_render(_Step(values))
        if row is None:
            raise StaleClaim(f"{self._claim.video.key}: another runner has taken over {self._claim.stage.name}")
        self._record = replace(_render_record(row), spent=self._record.spent)
        return self._record


class PostgresLedgers:
    """Implements `claims.Ledgers`. Each event loop has its own instance. `urls` encrypts the URLs of posts."""

    def __init__(self, engine: AsyncEngine, urls: SealedUrls | None = None) -> None:
        self._engine = engine
        self.urls = urls
        self._statements = statements(engine)
        self.save_post: GroupCommit[_Step, RowMapping | None] = GroupCommit(self._write_posts)
        self.save_render: GroupCommit[_Step, RowMapping | None] = GroupCommit(self._write_renders)
        self.open_on_account: GroupCommit[_Opening, RowMapping | _AccountBusy | None] = GroupCommit(self._write_openings)
        self._open_post: GroupCommit[_Step, RowMapping] = GroupCommit(self._write_new_posts)
        self._open_render: GroupCommit[_Step, RowMapping] = GroupCommit(self._write_new_renders)

    async def post(
        self,
        claim: Claim,
        *,
        account: str,
        marker: str,
        video: MediaFile,
        caption: str,
        sandbox: bool,
        set_apart: str | None = None,
        route: str = "",
        extras: Sequence[str] = (),
    ) -> PostgresPostJournal:
        """See the port."""
        values = {
            "video_id": claim.video_id,
            "platform": str(claim.stage.platform),
            "account": account,
            "route": route,
            "marker": marker,
            "video_sha256": video.sha256,
            "caption_sha256": hashlib.sha256(caption.encode()).hexdigest(),
            "sandbox": sandbox,
            "set_apart": set_apart,
            "extras": list(extras),
        }
        row = await self._open_post(_Step(values))
        if row["begun_for_real"] is not None:
            platform = claim.stage.platform
            assert platform is not None
            message = (
                f"the post was started at the real {platform.title} and the sandbox cannot finish it: "
                f"give the {platform.title} account {row['begun_for_real']} its token again (`phantoms accounts` lists them)"
            )
            raise NotYet(message, retry_after=BEGUN_FOR_REAL_SECONDS)
        if row["busy"] is not None and row["state"] == PostState.INTENT:
            # Only a hint that saves useless requests. Opening the post on its account checks again, under a lock.
            raise _busy(row["busy"], row["platform"], row["account"])
        try:
            return PostgresPostJournal(self, claim, row)
        except InvalidInput as error:
            # The post may be under way, so it neither fails nor starts over. It goes on when the key is back.
            message = f"the upload of {claim.video.key} cannot be continued: {error}"
            raise NotYet(message, retry_after=UNREADABLE_SECONDS) from error

    async def bound_account(self, claim: Claim, *, sandbox: bool) -> str | None:
        """See the port."""

        async def work(connection: AsyncConnection) -> str | None:
            values = {"video_id": claim.video_id, "platform": str(claim.stage.platform), "sandbox": sandbox}
            return (await connection.execute(_BOUND, values)).scalar()

        return await transaction(self._statements, work)

    async def owner_of(self, platform: str, remote_id: str, post_id: int) -> str | None:
        """The video that already has that real post, other than post `post_id`; None when there is none."""

        async def work(connection: AsyncConnection) -> str | None:
            values = {"platform": platform, "remote_id": remote_id, "id": post_id}
            return (await connection.execute(_TAKEN, values)).scalar()

        return await transaction(self._statements, work)

    async def render(self, claim: Claim, *, sandbox: bool) -> PostgresRenderJournal:
        """See the port."""
        row = await self._open_render(_Step({"video_id": claim.video_id, "revision": claim.revision, "sandbox": sandbox}))
        if sandbox and not row["sandbox"]:
            message = (
                "the render was started at the real service and the sandbox cannot finish it: give the service its key again "
                f"(`phantoms doctor` says where it is missing), or give the render up: "
                f"`phantoms retry {claim.video.key} --from rendered_video`"
            )
            raise NotYet(message, retry_after=BEGUN_FOR_REAL_SECONDS)
        return PostgresRenderJournal(self, claim, row)

    # --- batches. A row could be in a batch twice only if two callers held it, which claims rule out.

    async def _write_new_posts(self, steps: Sequence[_Step]) -> Sequence[RowMapping]:
        rows = await self._rows(_OPEN_POST, steps, ("video_id", "platform"))
        if real := [step.row for step in steps if not step.row["sandbox"]]:

            async def work(connection: AsyncConnection) -> None:
                await connection.execute(_LEAVE_SANDBOX, {"rows": as_json(real)})

            await transaction(self._statements, work)
        return rows

    async def _write_new_renders(self, steps: Sequence[_Step]) -> Sequence[RowMapping]:
        return await self._rows(_OPEN_RENDER, steps, ("video_id", "revision"))

    async def _write_posts(self, steps: Sequence[_Step]) -> Sequence[RowMapping | None]:
        return await self._found(_SAVE_POSTS, steps)

    async def _write_renders(self, steps: Sequence[_Step]) -> Sequence[RowMapping | None]:
        return await self._found(_SAVE_RENDERS, steps)

    async def _write_openings(self, openings: Sequence[_Opening]) -> Sequence[RowMapping | _AccountBusy | None]:
        """Open each post unless another post is in flight on its account, in the table or earlier in this batch."""
        first = {(o.platform, o.account): o for o in reversed(openings)}
        wanted = [{"id": o.step.row["id"], "platform": o.platform, "account": o.account} for o in first.values()]

        async def work(connection: AsyncConnection) -> dict[int, RowMapping | _AccountBusy]:
            await connection.execute(_LOCK_ACCOUNTS, {"accounts": [f"{platform}:{account}" for platform, account in first]})
            busy = {row.id: _AccountBusy(row.key) for row in await connection.execute(_BUSY, {"rows": as_json(wanted)})}
            free = [o.step.row for o in first.values() if o.step.row["id"] not in busy]
            saved = await connection.execute(_SAVE_POSTS, {"rows": as_json(free)})
            return {**busy, **{row["id"]: row for row in saved.mappings()}}

        rows = await transaction(self._engine, work)
        return [
            rows.get(o.step.row["id"]) if ahead is o else _AccountBusy(ahead.key)
            for o in openings
            for ahead in (first[o.platform, o.account],)
        ]

    async def _found(self, statement: TextClause, steps: Sequence[_Step]) -> Sequence[RowMapping | None]:
        async def work(connection: AsyncConnection) -> dict[int, RowMapping]:
            saved = await connection.execute(statement, {"rows": as_json([step.row for step in steps])})
            return {row["id"]: row for row in saved.mappings()}

        rows = await transaction(self._statements, work)
        return [rows.get(step.row["id"]) for step in steps]

    async def _rows(self, statement: TextClause, steps: Sequence[_Step], names: Sequence[str]) -> Sequence[RowMapping]:
        """One row for each step, identified by the columns `names`. A row that is requested twice is created once."""
        asked = {tuple(step.row[name] for name in names): step.row for step in steps}

        async def work(connection: AsyncConnection) -> dict[tuple[Any, ...], RowMapping]:
            made = await connection.execute(statement, {"rows": as_json(list(asked.values()))})
            return {tuple(row[name] for name in names): row for row in made.mappings()}

        rows = await transaction(self._statements, work)
        return [rows[tuple(step.row[name] for name in names)] for step in steps]


def _busy(key: str, platform: str, account: str) -> NotYet:
    return NotYet(f"{key} is being published on {platform}:{account}", retry_after=ACCOUNT_BUSY_SECONDS, held=True)


def _post_record(row: RowMapping) -> PostRecord:
    return PostRecord(
        state=PostState(row["state"]),
        handle=dict(row["handle"]),
        offset=row["upload_offset"],
        remote_id=row["remote_id"],
        url=row["url"],
        attempted_at=row["attempted_at"],
        account=row["account"],
        route=row["route"],
    )


def _render_record(row: RowMapping) -> PaidRecord:
    return PaidRecord(
        state=PaidState(row["state"]),
        remote_id=row["render_id"],
        attempt_id=row["attempt_id"],
        attempted_at=row["attempted_at"],
        spent=row.get("spent", Decimal(0)),
    )
