"""Finds posts that repeat an earlier or planned one of their account, and keeps them until a person allows it.

The same file, or words that are nearly the same (`domain.near_duplicates`), within the days that the channel says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, RowMapping, text

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.near_duplicates import alike, bare_words
from phantoms_dagster.store.bookings import BookablePost, Books, bookable

MOST = 5_000
# The posts of an account that are published, booked, or approved and about to go out. Posts to the sandbox and real ones are not
# compared.
_OTHERS = text(
    """
    WITH found AS (
        SELECT p.video_id AS id, p.published_at AS at FROM phantoms.posts p
        WHERE p.published_at >= :low AND p.platform = :platform AND p.account = :account AND p.sandbox = :sandbox
            AND NOT p.duplicate
        UNION ALL
        SELECT b.video_id, b.at FROM phantoms.bookings b
        WHERE b.at >= :low AND b.platform = :platform AND b.account = :account AND b.state IN ('booked', 'repeat')
        UNION ALL
        SELECT v.id, v.publish_at FROM phantoms.videos v
        JOIN phantoms.channels c ON c.name = v.channel AND c.config->'accounts'->>:platform = :account
        JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = :platform || '/post'
            AND s.state IN ('blocked', 'ready', 'running', 'deferred')
        WHERE v.publish_at BETWEEN :low AND :high
        UNION ALL
        SELECT d.video_id, clock_timestamp() FROM phantoms.approvals d
        JOIN phantoms.videos v ON v.id = d.video_id AND v.publish_at IS NULL
        JOIN phantoms.channels c ON c.name = v.channel AND c.config->'accounts'->>:platform = :account
        JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = :platform || '/post'
            AND s.state IN ('blocked', 'ready', 'running', 'deferred')
        WHERE d.decided_at >= :since AND d.approved
            AND NOT EXISTS (SELECT FROM phantoms.bookings b WHERE b.video_id = v.id AND b.platform = :platform)
    ), near AS (
        SELECT id, min(at) AS at FROM found WHERE id <> ALL(CAST(:without AS bigint[])) AND at BETWEEN :low AND :high
        GROUP BY id ORDER BY 2 LIMIT :most
    )
    SELECT v.key, n.at, d.words, r.output->'video'->>'sha256' AS file
    FROM near n JOIN phantoms.videos v ON v.id = n.id
    JOIN LATERAL (SELECT a.approved, a.words FROM phantoms.approvals a WHERE a.video_id = n.id ORDER BY a.id DESC LIMIT 1) d
        ON d.approved
    LEFT JOIN phantoms.stages r ON r.video_id = n.id AND r.stage = 'rendered_video'
    ORDER BY n.at, v.id
    """
)
_MINE = text(
    """
    SELECT d.words, r.output->'video'->>'sha256' AS file
    FROM phantoms.stages r
    JOIN LATERAL (SELECT a.words FROM phantoms.approvals a WHERE a.video_id = r.video_id ORDER BY a.id DESC LIMIT 1) d ON true
    WHERE r.video_id = :id AND r.stage = 'rendered_video'
    """
)
_ALLOWED = text(
    """
    UPDATE phantoms.bookings SET state = 'booked', note = '', sequence = sequence + 1, updated_at = clock_timestamp()
    WHERE video_id = :id AND platform = :platform AND state = 'repeat'
    """
)


@dataclass(frozen=True)
class Repetition:
    """A post that waits because it repeats another one. `note` says which one, and what is the same."""

    key: str
    platform: Platform
    note: str


def repetition_warnings(found: Iterable[Repetition]) -> dict[str, tuple[str, ...]]:
    """The warnings for the reviewer, by key. Posts of a video that have the same note share a warning."""
    platforms: dict[tuple[str, str], list[str]] = {}
    for one in found:
        platforms.setdefault((one.key, one.note), []).append(one.platform.title)
    warnings: dict[str, tuple[str, ...]] = {}
    for (key, note), titles in platforms.items():
        waits = "It waits" if len(titles) == 1 else "These posts wait"
        warning = f"{', '.join(titles)}: {note}. {waits} until you allow it with `phantoms calendar override {key}`"
        warnings[key] = (*warnings.get(key, ()), warning)
    return warnings


def hold_repetitions(connection: Connection, ids: Sequence[int], sandboxed: Callable[[Platform], bool]) -> list[Repetition]:
    """Compare the posts of these approved videos with the others of their accounts, and keep those that repeat one.

    Two videos of `ids` that repeat each other: the later one waits. `sandboxed`: whether a platform's posts go to the sandbox.
    Raises UnreadableRow.
    """
    posts = _compared(connection, ids)
    if not posts:
        return []
    books = Books(connection, [post.platform for post in posts], {}, posts[0].now)
    posts = _compared(connection, ids)  # a person may have moved or cancelled one of them before the lock was ours
    found = []
    for post in posts:
        later = ids[ids.index(post.video_id) :]
        note = _repeats(connection, post, sandbox=sandboxed(post.platform), without=later)
        if note is not None:
            at, kind = (post.at, post.kind) if post.at is not None else _time(post)
            if post.state != "cancelled":
                books.write(post, at, kind=kind, state="repeat", note=note)
            found.append(Repetition(post.key, post.platform, note))
        elif post.state == "repeat":  # approved again, with other words
            connection.execute(_ALLOWED, {"id": post.video_id, "platform": str(post.platform)})
    return found


def _compared(connection: Connection, ids: Sequence[int]) -> list[BookablePost]:
    """The posts of these videos that are compared with others."""
    return [post for post in bookable(connection, ids) if post.channel.repeats.days and post.account]


def _repeats(connection: Connection, post: BookablePost, *, sandbox: bool, without: Sequence[int]) -> str | None:
    """Which post this one repeats, in words; None when it repeats none."""
    mine = connection.execute(_MINE, {"id": post.video_id}).mappings().one_or_none()
    if mine is None:
        return None
    rule, at = post.channel.repeats, post.at or _time(post)[0]
    span = timedelta(days=rule.days)
    values = {
        "platform": str(post.platform),
        "account": post.account,
        "sandbox": sandbox,
        "low": at - span,
        "since": post.now - span,
        "high": at + span,
        "without": list(without),
        "most": MOST,
    }
    words = bare_words(_text(mine["words"], post.platform))
    nearest: tuple[int, RowMapping] | None = None
    for other in connection.execute(_OTHERS, values).mappings():
        if mine["file"] is not None and other["file"] == mine["file"]:
            return f"it has the same file as {other['key']}{_where(other['at'], post.channel.timezone)}"
        percent = alike(words, bare_words(_text(other["words"], post.platform)))
        if percent >= rule.percent and (nearest is None or percent > nearest[0]):
            nearest = percent, other
    if nearest is None:
        return None
    percent, other = nearest
    return f"{percent} % of its words are those of {other['key']}{_where(other['at'], post.channel.timezone)}"


def _where(at: datetime, timezone: str) -> str:
    local = at.astimezone(ZoneInfo(timezone))
    return f" on the same account, whose time is {local.day} {local:%b %Y, %H:%M %Z}"


def _text(words: Sequence[Mapping[str, Any]] | None, platform: Platform) -> str:
    """The title and caption of the platform's post in approved words."""
    mine = next((post for post in words or () if post["platform"] == platform), None)
    return f"{mine['title']} {mine['caption']}" if mine is not None else ""


def _time(post: BookablePost) -> tuple[datetime, str]:
    """When a post without a booking goes out, and the kind of its booking."""
    return (post.publish_at, "fixed") if post.publish_at is not None and post.publish_at > post.now else (post.now, "now")
