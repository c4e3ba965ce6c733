"""Reads what reviewers see: the queue, and everything about one video. `decisions` and `pending` record decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, RowMapping, text

from phantoms_dagster.domain.models import (
    Brief,
    Channel,
    MediaFile,
    RenderedVideoOutput,
    ScriptOutput,
    VoiceoverOutput,
)
from phantoms_dagster.store.stored import brief_of, channel_of, output_of

_WAITS = """s.stage = 'approval' AND s.state IN ('ready', 'deferred')
        AND NOT EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at)
        AND NOT EXISTS (SELECT FROM phantoms.pending_decisions p WHERE p.video_id = v.id AND p.state = 'pending')"""

# A first approval that a second person may complete.
_FIRST = """(SELECT f.reviewer FROM phantoms.first_approvals f WHERE f.video_id = v.id AND f.given_at >= s.ready_at)"""
_CARD = f"""v.id, v.key, v.title, v.channel, v.platforms, v.publish_at, v.priority, s.ready_at AS since, {_FIRST} AS first_by"""
# Render outputs are read only for the videos on the page, not for all waiting ones.
_SHOWN = """q.key, q.title, q.channel, q.platforms, q.publish_at, q.priority, q.since, r.output->'thumbnail' AS thumbnail,
        (r.output->'probe'->>'seconds')::float AS seconds, q.first_by, q.held_by"""
_RENDERED = "LEFT JOIN phantoms.stages r ON r.video_id = q.id AND r.stage = 'rendered_video'"

_QUEUE = text(
    f"""
    SELECT {_SHOWN} FROM (
        SELECT {_CARD}, NULL AS held_by
        FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
        WHERE {_WAITS} AND NOT EXISTS (SELECT FROM phantoms.holds h WHERE h.video_id = v.id)
            AND (:channel = '' OR v.channel = :channel)
        ORDER BY v.publish_at NULLS LAST, v.priority, v.id LIMIT :limit
    ) q {_RENDERED} ORDER BY q.publish_at NULLS LAST, q.priority, q.id
    """
)
_HELD = text(
    f"""
    SELECT {_SHOWN} FROM (
        SELECT {_CARD}, h.reviewer AS held_by, h.held_at
        FROM phantoms.holds h JOIN phantoms.videos v ON v.id = h.video_id
        JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = 'approval'
        WHERE (:channel = '' OR v.channel = :channel)
        ORDER BY h.held_at LIMIT :limit
    ) q {_RENDERED} ORDER BY q.held_at, q.id
    """
)
_COUNTS = text(
    f"""
    SELECT v.channel, count(*) FILTER (WHERE NOT h) AS waiting, count(*) FILTER (WHERE h) AS held
    FROM (
        SELECT v.channel, false AS h FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
        WHERE {_WAITS} AND NOT EXISTS (SELECT FROM phantoms.holds h WHERE h.video_id = v.id)
        UNION ALL
        SELECT v.channel, true FROM phantoms.holds h JOIN phantoms.videos v ON v.id = h.video_id
    ) v GROUP BY v.channel
    """
)
_SCREEN = text(
    """
    SELECT v.key, v.brief, v.added_by, v.created_at, v.retired_at, c.config AS channel,
        (SELECT COALESCE(sum(a.cost), 0) FROM phantoms.attempts a WHERE a.video_id = v.id) AS cost,
        (SELECT jsonb_object_agg(s.stage, s.state) FROM phantoms.stages s WHERE s.video_id = v.id) AS states,
        (SELECT jsonb_object_agg(s.stage, s.revision) FROM phantoms.stages s WHERE s.video_id = v.id) AS revisions,
        (SELECT jsonb_object_agg(s.stage, s.output) FROM phantoms.stages s
            WHERE s.video_id = v.id AND s.stage IN ('script', 'voiceover', 'rendered_video') AND s.state = 'done') AS outputs,
        (SELECT jsonb_agg(to_jsonb(d) - 'words' ORDER BY d.id DESC) FROM (
            SELECT * FROM phantoms.approvals d WHERE d.video_id = v.id ORDER BY d.id DESC LIMIT 10) d) AS decisions,
        (SELECT to_jsonb(h) FROM phantoms.holds h WHERE h.video_id = v.id) AS held,
        (SELECT to_jsonb(p) FROM phantoms.pending_decisions p WHERE p.video_id = v.id AND p.state = 'pending') AS pending,
        (SELECT jsonb_object_agg(p.platform, p.url) FROM phantoms.posts p WHERE p.video_id = v.id AND NOT p.duplicate) AS posts
    FROM phantoms.videos v JOIN phantoms.channels c ON c.name = v.channel WHERE v.key = :key
    """
)


@dataclass(frozen=True)
class ReviewCard:
    """A video in the queue. `seconds`: its length; `since`: when it began to wait; `held_by`: who put it on hold.

    `first_by`: who approved it first, if two people must approve.
    """

    key: str
    title: str
    channel: str
    platforms: tuple[str, ...]
    publish_at: datetime | None
    priority: int
    since: datetime | None
    thumbnail: MediaFile | None
    seconds: float | None
    held_by: str | None
    first_by: str | None = None


@dataclass(frozen=True)
class ChannelCount:
    """How many videos of a channel wait for a decision, and how many are on hold."""

    channel: str
    waiting: int
    held: int


@dataclass(frozen=True)
class ReviewAnswer:
    """A decision, a hold, or a pending decision. `at`: when it was made. `first`: who approved first."""

    answer: str
    reviewer: str
    note: str
    via: str
    at: datetime
    first: str | None = None


@dataclass(frozen=True)
class Screen:
    """Everything that a reviewer sees of one video. Outputs that do not exist yet are None. `states`: by stage."""

    key: str
    brief: Brief
    channel: Channel
    added_by: str | None
    created_at: datetime
    cost: Decimal
    states: Mapping[str, str]
    revisions: Mapping[str, int]
    script: ScriptOutput | None
    voiceover: VoiceoverOutput | None
    master: RenderedVideoOutput | None
    decisions: tuple[ReviewAnswer, ...]
    held: ReviewAnswer | None
    pending: ReviewAnswer | None
    posts: Mapping[str, str | None]

    @property
    def approval(self) -> str:
        """The state of its approval."""
        return self.states.get("approval", "blocked")


class ReviewQueue:
    """Reads the review queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cards(self, *, channel: str = "", held: bool = False, limit: int = 200) -> list[ReviewCard]:
        """The waiting videos, by publish time and priority; with `held`, those on hold, the longest first."""
        with self._engine.connect() as connection:
            return [_card(row) for row in connection.execute(_HELD if held else _QUEUE, {"channel": channel, "limit": limit})]

    def counts(self) -> list[ChannelCount]:
        """How many wait and how many are on hold, by channel."""
        with self._engine.connect() as connection:
            found = [ChannelCount(*row) for row in connection.execute(_COUNTS)]
        return sorted(found, key=lambda one: one.channel)

    def screen(self, key: str) -> Screen | None:
        """One video; None when there is none with that key. Raises UnreadableRow."""
        with self._engine.connect() as connection:
            row = connection.execute(_SCREEN, {"key": key}).mappings().one_or_none()
        return _screen(row) if row is not None else None


def _card(row: Row[Any]) -> ReviewCard:
    """A card from the columns of `_SHOWN`, in their order."""
    key, title, channel, platforms, publish_at, priority, since, file, seconds, first_by, held_by = tuple(row)
    still = MediaFile.model_validate(file) if file else None
    return ReviewCard(key, title, channel, tuple(platforms), publish_at, priority, since, still, seconds, held_by, first_by)


def _screen(row: RowMapping) -> Screen:
    key, outputs = row["key"], row["outputs"] or {}
    made = {stage: output_of(key, stage, output) for stage, output in outputs.items()}
    script, voiceover, master = made.get("script"), made.get("voiceover"), made.get("rendered_video")
    assert script is None or isinstance(script, ScriptOutput)
    assert voiceover is None or isinstance(voiceover, VoiceoverOutput)
    assert master is None or isinstance(master, RenderedVideoOutput)
    held, pending = row["held"], row["pending"]
    return Screen(
        key=key,
        brief=brief_of(key, row["brief"]),
        channel=channel_of(key, row["channel"]),
        added_by=row["added_by"],
        created_at=row["created_at"],
        cost=Decimal(row["cost"]),
        states=row["states"] or {},
        revisions=row["revisions"] or {},
        script=script,
        voiceover=voiceover,
        master=master,
        decisions=tuple(_said(d, "approve" if d["approved"] else "reject", "decided_at") for d in row["decisions"] or ()),
        held=_said(held, "hold", "held_at") if held else None,
        pending=_said(pending, pending["answer"], "made_at") if pending else None,
        posts=row["posts"] or {},
    )


def _said(row: Mapping[str, Any], answer: str, time: str) -> ReviewAnswer:
    return ReviewAnswer(
        answer, row["reviewer"], row["note"], row["via"], datetime.fromisoformat(row[time]), row.get("first_reviewer")
    )
