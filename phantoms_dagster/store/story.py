"""The story of one video: everything that happened to it, in order. Each statement reads one video's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from phantoms_dagster.domain.pacing import describe_waits
from phantoms_dagster.domain.readable import readable

MOST_EVENTS = 300

VIDEO = text(
    """
    SELECT v.id, v.key, v.title, v.channel, v.brief, v.platforms, v.publish_at, v.priority, v.source, v.created_at, v.retired_at,
        (SELECT COALESCE(sum(a.cost), 0) FROM phantoms.attempts a WHERE a.video_id = v.id) AS cost
    FROM phantoms.videos v WHERE v.key = :key
    """
)
STAGES = text(
    """
    SELECT s.stage, s.state, s.revision, s.attempts, s.ready_at, s.retry_at, s.started_at, s.finished_at, s.updated_at, s.reason,
        s.error_class, s.run_id, s.cost, s.output
    FROM phantoms.stages s WHERE s.video_id = :id
    """
)
ATTEMPTS = text(
    """
    SELECT a.id, a.stage, a.revision, a.state, a.provider, a.provider_ref, a.cost, a.error_class, a.code, a.message, a.evidence,
        a.run_id, a.started_at, a.finished_at, a.paced
    FROM phantoms.attempts a WHERE a.video_id = :id ORDER BY a.id DESC LIMIT :limit
    """
)
POSTS = text(
    """
    SELECT p.id, p.platform, p.account, p.state, p.handle, p.upload_offset, p.remote_id, p.url, p.sandbox, p.duplicate,
        p.attempted_at, p.published_at, p.created_at, p.updated_at
    FROM phantoms.posts p WHERE p.video_id = :id ORDER BY p.id
    """
)
POST_CHANGES = text(
    """
    SELECT c.post_id, p.platform, p.account, p.url, c.at, c.state, c.evidence, c.who FROM phantoms.post_changes c
    JOIN phantoms.posts p ON p.id = c.post_id WHERE p.video_id = :id ORDER BY c.id
    """
)
RENDERS = text(
    """
    SELECT r.revision, r.state, r.render_id, r.attempted_at, r.updated_at, r.sandbox FROM phantoms.renders r
    WHERE r.video_id = :id ORDER BY r.revision
    """
)
APPROVALS = text(
    """
    SELECT d.approved, d.reviewer, d.first_reviewer, d.note, d.via, d.decided_at FROM phantoms.approvals d
    WHERE d.video_id = :id ORDER BY d.id
    """
)
LETTERS = text(
    """
    SELECT d.id, d.stage, d.error_class, d.provider, d.code, d.message, d.evidence, d.created_at, d.state, d.closed_at,
        d.closed_by, d.closed_reason
    FROM phantoms.dead_letters d WHERE d.video_id = :id ORDER BY d.id DESC LIMIT :limit
    """
)
DEEDS = text(
    """
    SELECT l.at, l.who, l.via, l.action, l.before, l.after FROM phantoms.audit_log l WHERE l.subject = :key
    ORDER BY l.id DESC LIMIT :limit
    """
)


@dataclass(frozen=True)
class StoryEvent:
    """One line of the timeline. `kind`: brief, attempt, letter, decision, deed, post, render, stage. `tone`: good, bad or none."""

    at: datetime
    kind: str
    title: str
    detail: str = ""
    tone: str = ""
    run_id: str | None = None
    ended_at: datetime | None = None
    cost: Decimal | None = None
    evidence: Mapping[str, Any] | None = None
    url: str | None = None


@dataclass(frozen=True)
class Story:
    """Everything known about a video, as rows and as a timeline, oldest first."""

    video: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    posts: tuple[Mapping[str, Any], ...]
    renders: tuple[Mapping[str, Any], ...]
    happenings: tuple[StoryEvent, ...]
    cut: bool
    raw: Mapping[str, Any]


class Stories:
    """Reads stories."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, key: str) -> Story | None:
        """The story of a video; None when there is no such video."""
        with self._engine.connect() as connection:
            video = connection.execute(VIDEO, {"key": key}).mappings().one_or_none()
            if video is None:
                return None
            values = {"id": video["id"], "key": key, "limit": MOST_EVENTS}
            read = {
                "stages": STAGES,
                "attempts": ATTEMPTS,
                "posts": POSTS,
                "post_changes": POST_CHANGES,
                "renders": RENDERS,
                "approvals": APPROVALS,
                "dead_letters": LETTERS,
                "audit_log": DEEDS,
            }
            rows = {name: [dict(row) for row in connection.execute(sql, values).mappings()] for name, sql in read.items()}
        return Story(
            video=dict(video),
            stages={row["stage"]: row for row in rows["stages"]},
            posts=tuple(rows["posts"]),
            renders=tuple(rows["renders"]),
            happenings=tuple(sorted(_happenings(dict(video), rows), key=lambda one: one.at)),
            cut=len(rows["attempts"]) == MOST_EVENTS,
            raw={"video": dict(video), **rows},
        )


def _happenings(video: Mapping[str, Any], rows: Mapping[str, list[dict[str, Any]]]) -> list[StoryEvent]:
    found = [StoryEvent(video["created_at"], "brief", f"Added from {video['source']}", video["title"])]
    if video["retired_at"]:
        found.append(StoryEvent(video["retired_at"], "brief", "Retired"))
    found += [_attempt(row) for row in rows["attempts"]]
    for row in rows["dead_letters"]:
        detail = _cause(row)
        found.append(
            StoryEvent(row["created_at"], "letter", f"{row['stage']} failed for good", detail, "bad", evidence=row["evidence"])
        )
        if row["closed_at"]:
            said = f"by {row['closed_by']}: {row['closed_reason']}"
            found.append(StoryEvent(row["closed_at"], "letter", f"Dead letter of {row['stage']} {row['state']}", said))
    for row in rows["approvals"]:
        word, tone = ("Approved", "good") if row["approved"] else ("Rejected", "bad")
        both = f"{row['first_reviewer']} and {row['reviewer']}" if row["first_reviewer"] else row["reviewer"]
        found.append(StoryEvent(row["decided_at"], "decision", f"{word} by {both}", row["note"], tone))
    for row in rows["audit_log"]:
        if row["action"] not in ("approve", "reject"):  # those are decisions above
            found.append(StoryEvent(row["at"], "deed", f"{row['action']} by {row['who']}", _said(row["after"])))
    for row in rows["post_changes"]:
        if row["state"] != "taken_down":  # that is in the audit log
            title = f"{row['platform']} says: the post is {row['state']}"
            tone = "good" if row["state"] == "public" else "bad"
            found.append(StoryEvent(row["at"], "post", title, row["evidence"], tone, url=row["url"]))
    for row in rows["posts"]:
        if row["published_at"]:
            where = f"{row['account']}, id {row['remote_id']}" + (", sandbox" if row["sandbox"] else "")
            found.append(StoryEvent(row["published_at"], "post", f"Posted on {row['platform']}", where, "good", url=row["url"]))
    return found


def _attempt(row: Mapping[str, Any]) -> StoryEvent:
    outcome = _cause(row)
    reference = f"handle {row['provider_ref']}" if row["provider_ref"] else ""
    return StoryEvent(
        at=row["started_at"],
        kind="attempt",
        title=f"{row['stage']} {row['state']}" + (f" at {row['provider']}" if row["provider"] else ""),
        detail=" · ".join(part for part in (outcome, describe_waits(row["paced"] or {}), reference) if part),
        tone="bad" if row["error_class"] else "",
        run_id=row["run_id"],
        ended_at=row["finished_at"],
        cost=row["cost"] or None,
        evidence=row["evidence"],
    )


def _cause(row: Mapping[str, Any]) -> str:
    """The class, code and message of an error."""
    cause = " ".join(str(part) for part in (row["error_class"], row["code"]) if part)
    return ": ".join(part for part in (cause, row["message"]) if part)


def _said(after: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {readable(value)}" for name, value in (after or {}).items())[:300]
