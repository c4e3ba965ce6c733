"""Reviewers' decisions. A decision is bound to the hash of exactly what was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel, Platform, PostWords, RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, changes, post_words
from phantoms_dagster.store.claims import WORDS
from phantoms_dagster.store.planning import nudge

_CONTENT = text(
    """
    SELECT v.key, v.id, a.state, sc.output AS script, r.output AS rendered, v.brief->'platforms' AS platforms, c.config AS channel
    FROM phantoms.videos v
    JOIN phantoms.channels c ON c.name = v.channel
    JOIN phantoms.stages a ON a.video_id = v.id AND a.stage = 'approval'
    LEFT JOIN phantoms.stages sc ON sc.video_id = v.id AND sc.stage = 'script' AND sc.state = 'done'
    LEFT JOIN phantoms.stages r ON r.video_id = v.id AND r.stage = 'rendered_video' AND r.state = 'done'
    WHERE v.key = ANY(:keys) ORDER BY v.id FOR UPDATE OF a
    """
)

_RECORD = text(
    """
    INSERT INTO phantoms.approvals (video_id, approved, reviewer, note, content_sha256, words, via, decided_at)
    SELECT d.id, :approved, :reviewer, :note, d.content, CAST(d.words AS jsonb), :via, clock_timestamp()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:contents AS text[]), CAST(:words AS text[])) AS d(id, content, words)
    """
)

# A stage that waited for a person is due now; one that was rejected may be decided again. A runner that is at it read the
# table before this decision: it would put the stage off until the next one, so its claim is taken away.
_DUE = text(
    """
    UPDATE phantoms.stages
    SET state = CASE state WHEN 'rejected' THEN 'ready' WHEN 'running' THEN 'deferred' ELSE state END,
        generation = generation + CASE state WHEN 'running' THEN 1 ELSE 0 END, lease_owner = NULL, lease_until = NULL,
        retry_at = clock_timestamp(), ready_at = LEAST(ready_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE video_id = ANY(:ids) AND stage = 'approval' AND state IN ('ready', 'deferred', 'rejected', 'running')
    """
)

_UNDECIDED = text(
    """
    SELECT v.key FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage = 'approval' AND s.state IN ('ready', 'deferred')
        AND NOT EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at)
    ORDER BY v.publish_at NULLS LAST, v.priority, v.id LIMIT :limit
    """
)


@dataclass(frozen=True)
class Decided:
    """A decision that was recorded, or that was recorded before."""

    key: str
    approved: bool
    new: bool


@dataclass(frozen=True)
class Review:
    """What there is to decide on. `words`: what the posts would say now; `content`: the hash of all of it.

    `changed`: what is not as it was when the film was rendered and its words were shown, in words; empty when all is.
    """

    words: tuple[PostWords, ...]
    content: str
    changed: str = ""


class Decisions:
    """What reviewers decide. `privacy`: as the settings want it, by platform."""

    def __init__(self, engine: Engine, privacy: Mapping[Platform, str] = DEFAULT_PRIVACY) -> None:
        self._engine = engine
        self._privacy = privacy

    def undecided(self, *, limit: int = 1000) -> list[str]:
        """Videos that are ready for review, most urgent first."""
        with self._engine.connect() as connection:
            return list(connection.execute(_UNDECIDED, {"limit": limit}).scalars())

    def review(self, key: str) -> Review | None:
        """What would be decided on now; None when there is nothing to review yet."""
        with self._engine.begin() as connection:
            row = connection.execute(_CONTENT, {"keys": [key]}).mappings().first()
            return None if row is None or row["script"] is None or row["rendered"] is None else self._review(row)

    def decide(
        self, key: str, *, approved: bool, reviewer: str, note: str = "", via: str, content_sha256: str | None = None
    ) -> Decided:
        """Record a decision on what the video is now. `via`: cli, desk, dagster, demo.

        `content_sha256`: the hash that was looked at, or its beginning; without it, what was shown when the film was rendered.
        Raises InvalidInput when there is nothing to review yet, when it is approved already, or when what would be approved is
        not what was looked at.
        """
        contents = {key: content_sha256} if content_sha256 else {}
        [decided] = self.decide_all([key], approved=approved, reviewer=reviewer, note=note, via=via, contents=contents)
        if isinstance(decided, InvalidInput):
            raise decided
        return decided

    def decide_all(
        self,
        keys: Sequence[str],
        *,
        approved: bool,
        reviewer: str,
        note: str = "",
        via: str,
        contents: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Decided | InvalidInput]:
        """`decide` for many videos in one transaction; for each of `keys` (no two alike) what became of it.

        What is decided together becomes ready together: one by one, the first of them would be on their way in runs of their own.
        `contents`: the hashes that were looked at, by key.
        """
        with self._engine.begin() as connection:
            rows = {row["key"]: row for row in connection.execute(_CONTENT, {"keys": list(keys)}).mappings()}
            reviews = {key: self._review(row) for key, row in rows.items() if row["script"] and row["rendered"]}
            found = [_judged(key, rows.get(key), reviews.get(key), approved=approved, looked_at=contents.get(key)) for key in keys]
            new = [one.key for one in found if isinstance(one, Decided) and one.new]
            if new:
                ids = [rows[key]["id"] for key in new]
                values = {"approved": approved, "reviewer": reviewer, "note": note, "via": via, "ids": ids}
                words = [WORDS.dump_json(reviews[key].words).decode() for key in new]
                connection.execute(_RECORD, {**values, "contents": [reviews[key].content for key in new], "words": words})
                connection.execute(_DUE, {"ids": ids})
                connection.execute(text(nudge("'approval'")))
        return found

    def _review(self, row: RowMapping) -> Review:
        script = ScriptOutput.model_validate(row["script"]).script
        rendered = RenderedVideoOutput.model_validate(row["rendered"])
        platforms = [Platform(name) for name in row["platforms"]]
        words = post_words(script, Channel.model_validate(row["channel"]), platforms, self._privacy)
        changed = changes(rendered.words, words) if rendered.words else ""
        return Review(words, content_hash(script, rendered.video, words), changed)


def _judged(
    key: str, row: RowMapping | None, review: Review | None, *, approved: bool, looked_at: str | None
) -> Decided | InvalidInput:
    """What a decision on the video comes to, as it stands."""
    if row is None or review is None or row["state"] == "blocked":
        return InvalidInput(f"{key} is not rendered yet: there is nothing to review (see `phantoms show {key}`)")
    if row["state"] == "done":
        if approved:
            return Decided(key, approved=True, new=False)
        return InvalidInput(f"{key} is approved already; regenerate its script or render to take it back")
    if approved and any(post.platform is Platform.TIKTOK and post.tiktok is None for post in review.words):
        return InvalidInput(
            f"{key} goes to TikTok, and its channel does not say who may see its posts there: set `tiktok: {{privacy: ...}}` in "
            f"channels.yaml, run `phantoms doctor`, then look again with `phantoms show {key}`"
        )
    if approved and looked_at is not None and not review.content.startswith(looked_at):
        return InvalidInput(
            f"{key} is not what was looked at: its film or the words of its posts have changed since (now {review.content[:12]}); "
            f"look again with `phantoms show {key}`"
        )
    if approved and looked_at is None and review.changed:
        return InvalidInput(
            f"{key} would post other words than were shown when it was rendered ({review.changed}); "
            f"look with `phantoms show {key}`, then `phantoms approve {key} --content {review.content[:12]}`"
        )
    return Decided(key, approved=approved, new=True)
