"""Reviewers' decisions. A decision is bound to the hash of exactly what was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform, PostWords, RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, changes, post_words
from phantoms_dagster.store.planning import nudge
from phantoms_dagster.store.repeated_captions import PlannedCaption, repeated_captions
from phantoms_dagster.store.stored import WORDS, Unreadable, channel_of, output_of

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
    """A decision that was recorded, or that was recorded before. `warnings`: what the reviewer should know of it."""

    key: str
    approved: bool
    new: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """What there is to decide on. `words`: what the posts would say now; `content`: the hash of all of it.

    `changed`: what is not as it was when the film was rendered and its words were shown, in words; empty when all is.
    `warnings`: what speaks against it and refuses nothing.
    """

    words: tuple[PostWords, ...]
    content: str
    changed: str = ""
    warnings: tuple[str, ...] = ()


class Decisions:
    """What reviewers decide. `privacy`: as the settings want it, by platform; `sandbox`: Instagram's posts go to the sandbox."""

    def __init__(self, engine: Engine, privacy: Mapping[Platform, str] = DEFAULT_PRIVACY, *, sandbox: bool = False) -> None:
        self._engine = engine
        self._privacy = privacy
        self._sandbox = sandbox

    def undecided(self, *, limit: int = 1000) -> list[str]:
        """Videos that are ready for review, most urgent first."""
        with self._engine.connect() as connection:
            return list(connection.execute(_UNDECIDED, {"limit": limit}).scalars())

    def review(self, key: str) -> Review | None:
        """What would be decided on now; None when there is nothing to review yet. Raises Unreadable."""
        with self._engine.begin() as connection:
            row = connection.execute(_CONTENT, {"keys": [key]}).mappings().first()
            if row is None or row["script"] is None or row["rendered"] is None:
                return None
            review = self._review(row)
            return replace(review, warnings=tuple(self._warnings(connection, {key: row}, {key: review}).values()))

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
            reviews, unreadable = self._reviews(rows)
            found = [
                unreadable.get(key) or _judged(key, rows.get(key), reviews.get(key), approved=approved, looked_at=contents.get(key))
                for key in keys
            ]
            new = [one.key for one in found if isinstance(one, Decided) and one.new]
            if new:
                ids = [rows[key]["id"] for key in new]
                values = {"approved": approved, "reviewer": reviewer, "note": note, "via": via, "ids": ids}
                words = [WORDS.dump_json(reviews[key].words).decode() for key in new]
                connection.execute(_RECORD, {**values, "contents": [reviews[key].content for key in new], "words": words})
                connection.execute(_DUE, {"ids": ids})
                connection.execute(text(nudge("'approval'")))
            # Afterwards: two that are approved together are each other's repetition.
            if approved and new:
                said = self._warnings(connection, rows, {key: reviews[key] for key in new})
                return [
                    replace(one, warnings=(said[one.key],)) if isinstance(one, Decided) and one.key in said else one
                    for one in found
                ]
        return found

    def _warnings(self, connection: Connection, rows: Mapping[str, RowMapping], reviews: Mapping[str, Review]) -> Mapping[str, str]:
        """A warning for each of these videos that repeats a caption of its account, by key."""
        accounts = {key: rows[key]["channel"].get("accounts", {}).get(Platform.INSTAGRAM) for key in reviews}
        planned = [
            PlannedCaption(key, accounts[key], post.caption)
            for key, review in reviews.items()
            for post in review.words
            if post.platform is Platform.INSTAGRAM and accounts[key]
        ]
        return repeated_captions(connection, planned, sandbox=self._sandbox)

    def _reviews(self, rows: Mapping[str, RowMapping]) -> tuple[dict[str, Review], dict[str, Unreadable]]:
        """What there is to decide on, and what cannot be read, both by key."""
        reviews: dict[str, Review] = {}
        unreadable: dict[str, Unreadable] = {}
        for key, row in rows.items():
            if row["script"] and row["rendered"]:
                try:
                    reviews[key] = self._review(row)
                except Unreadable as error:
                    unreadable[key] = error
        return reviews, unreadable

    def _review(self, row: RowMapping) -> Review:
        made, rendered = (output_of(row["key"], *one) for one in (("script", row["script"]), ("rendered_video", row["rendered"])))
        assert isinstance(made, ScriptOutput)
        assert isinstance(rendered, RenderedVideoOutput)
        script = made.script
        platforms = [Platform(name) for name in row["platforms"]]
        words = post_words(script, channel_of(row["key"], row["channel"]), platforms, self._privacy)
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
