"""The ledger of posts, as people read it: lists, one post with what was tried, and the posts whose outcome is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.post_changes import StateAfter
from phantoms_dagster.domain.post_extras import ExtraOutcome
from phantoms_dagster.domain.reconciliation import UnknownPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.store.post_extras import extras_of

MOST_TRIES = 50

_COLUMNS = """p.id, v.key, p.platform, p.account, p.route, p.state, p.remote_id, p.url, p.sandbox, p.attempted_at, p.published_at,
        p.updated_at, p.set_apart, n.state AS after, n.at AS after_at, n.evidence AS after_evidence, n.who AS after_by"""
# The last change after publication, if there is one.
_AFTER = """LEFT JOIN LATERAL (SELECT c.state, c.at, c.evidence, c.who FROM phantoms.post_changes c WHERE c.post_id = p.id
        ORDER BY c.id DESC LIMIT 1) n ON true"""
_LIST = text(
    f"""
    SELECT {_COLUMNS} FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id {_AFTER}
    WHERE NOT p.duplicate AND (CAST(:platform AS text) IS NULL OR p.platform = :platform)
        AND (CAST(:account AS text) IS NULL OR p.account = :account)
        AND (CAST(:state AS text) IS NULL OR COALESCE(NULLIF(n.state, 'public'), p.state) = :state)
        AND (CAST(:since AS timestamptz) IS NULL OR COALESCE(p.published_at, p.updated_at) >= :since)
    ORDER BY p.id DESC LIMIT :limit
    """
)
_SHOW = text(
    f"""
    SELECT {_COLUMNS}, p.video_id, p.marker, p.video_sha256, p.caption_sha256, p.proof, p.proved_at, p.created_at, p.upload_offset,
        s.state AS stage_state, s.retry_at, s.reason, s.generation, p.handle->>'handed_over_at' AS handed_over_at,
        p.handle->'warnings' AS warnings,
        (SELECT w.output->>'caption' FROM phantoms.stages w
            WHERE w.video_id = p.video_id AND w.stage = p.platform || '/variant') AS caption
    FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id {_AFTER}
    LEFT JOIN phantoms.stages s ON s.video_id = p.video_id AND s.stage = p.platform || '/post'
    WHERE v.key = :key AND p.platform = :platform AND NOT p.duplicate
    -- A video may have a post of the sandbox and a real one. The real one counts, unless only the other one must be settled.
    ORDER BY p.state IN ('unknown', 'handed_over') DESC, p.sandbox LIMIT 1
    """
)
_TRIES = text(
    """
    SELECT * FROM (
        SELECT a.id, a.started_at, a.finished_at, a.state, a.error_class, a.code, a.message FROM phantoms.attempts a
        WHERE a.video_id = :video_id AND a.stage = :stage AND (CAST(:since AS timestamptz) IS NULL OR a.finished_at >= :since)
        ORDER BY a.id DESC LIMIT :limit
    ) t ORDER BY id
    """
)
# The attempt that lost the answer is not a read. It ended after the post was first sent, as every read did.
_UNKNOWN = text(
    """
    SELECT v.key, p.platform, p.account, COALESCE(p.attempted_at, p.updated_at) AS since,
        GREATEST((SELECT count(*) FROM phantoms.attempts a WHERE a.video_id = p.video_id AND a.stage = p.platform || '/post'
            AND a.finished_at >= p.attempted_at) - 1, 0) AS reads,
        CASE WHEN s.state IN ('ready', 'running', 'deferred') THEN COALESCE(s.retry_at, clock_timestamp()) END AS next_read,
        clock_timestamp() AS now
    FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    LEFT JOIN phantoms.stages s ON s.video_id = p.video_id AND s.stage = p.platform || '/post'
    WHERE p.state = 'unknown' AND NOT p.duplicate ORDER BY since, p.id
    """
)


@dataclass(frozen=True)
class LedgerPost:
    """A post of the ledger. `published_at`: None until it is public.

    `set_apart`: why its results are not compared with those of other posts. `after`: what happened to it since, with the time, the
    evidence and the person who did it, if one did; None when nothing happened (see `domain.post_changes`).
    """

    id: int
    key: str
    platform: Platform
    account: str
    route: str
    state: PostState
    remote_id: str | None
    url: str | None
    sandbox: bool
    attempted_at: datetime | None
    published_at: datetime | None
    updated_at: datetime
    set_apart: str | None = None
    after: StateAfter | None = None
    after_at: datetime | None = None
    after_evidence: str | None = None
    after_by: str | None = None

    @property
    def now(self) -> str:
        """What it is now, in one word: the ledger's state, unless something happened to the post since."""
        return self.after if self.after not in (None, "public") else str(self.state)


@dataclass(frozen=True)
class Try:
    """One attempt at a post or one read of it, and the answer."""

    at: datetime
    ended: datetime | None
    outcome: str
    answer: str


@dataclass(frozen=True)
class PostDetail:
    """A post with everything that the ledger knows. `next_read`: when its stage runs again, None when it does not.

    `caption`: the words for a draft that the creator has since `handed_over_at`.
    `extras`: what was or will be added to it after its publication, by name. `warnings`: what the platform ignored of it, as the
    gateway that published it says.
    """

    post: LedgerPost
    stage_state: str | None
    next_read: datetime | None
    reason: str | None
    marker: str
    video_sha256: str
    caption_sha256: str
    proof: str | None
    proved_at: datetime | None
    tries: tuple[Try, ...]
    extras: Mapping[str, ExtraOutcome]
    caption: str | None = None
    handed_over_at: datetime | None = None
    warnings: tuple[str, ...] = ()


class Posts:
    """Reads the ledger of posts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(
        self,
        *,
        platform: Platform | None = None,
        account: str | None = None,
        state: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[LedgerPost]:
        """The newest posts that match.

        `state`: see `LedgerPost.now`. `since`: published, or else last changed, at or after this time.
        """
        values = {
            "platform": None if platform is None else str(platform),
            "account": account,
            "state": state,
            "since": since,
            "limit": limit,
        }
        with self._engine.connect() as connection:
            return [_post(row) for row in connection.execute(_LIST, values).mappings()]

    def show(self, key: str, platform: Platform) -> PostDetail:
        """One post, with what was tried since it was first sent. Raises NotFound."""
        with self._engine.connect() as connection:
            row = connection.execute(_SHOW, {"key": key, "platform": str(platform)}).mappings().one_or_none()
            if row is None:
                raise NotFound(f"{key} has no post on {platform.title} yet; see `phantoms show {key}`")
            tried = {
                "video_id": row["video_id"],
                "stage": f"{platform}/post",
                "since": row["attempted_at"],
                "limit": MOST_TRIES,
            }
            tries = connection.execute(_TRIES, tried).mappings().all()
            extras = extras_of(connection, row["id"])
        runs = row["stage_state"] in ("ready", "running", "deferred")
        return PostDetail(
            post=_post(row),
            stage_state=row["stage_state"],
            next_read=row["retry_at"] if runs else None,
            reason=row["reason"],
            marker=row["marker"],
            video_sha256=row["video_sha256"],
            caption_sha256=row["caption_sha256"],
            proof=row["proof"],
            proved_at=row["proved_at"],
            tries=tuple(_try(one) for one in tries),
            caption=row["caption"],
            handed_over_at=datetime.fromisoformat(row["handed_over_at"]) if row["handed_over_at"] else None,
            extras=extras,
            warnings=tuple(row["warnings"] or ()),
        )


def unknown_posts(connection: Connection) -> Sequence[tuple[UnknownPost, bool]]:
    """Every post whose outcome is unknown, the longest first, and whether it needs a person."""
    rows = connection.execute(_UNKNOWN).mappings().all()
    found = []
    for row in rows:
        if row["platform"] in Platform:
            post = UnknownPost(row["key"], Platform(row["platform"]), row["account"], row["since"], row["reads"], row["next_read"])
            found.append((post, post.needs_person(row["now"])))
    return found


def _post(row: RowMapping) -> LedgerPost:
    values = {name: row[name] for name in LedgerPost.__dataclass_fields__}
    return LedgerPost(**{**values, "platform": Platform(row["platform"]), "state": PostState(row["state"])})


def _try(row: RowMapping) -> Try:
    cause = " ".join(str(row[name]) for name in ("error_class", "code") if row[name])
    answer = ": ".join(part for part in (cause, row["message"]) if part)
    return Try(row["started_at"], row["finished_at"], row["state"], answer)
