"""Books posts: gives each approved post the next free slot, and says what happens when the slot has passed.

No slot of an account can be given away twice. The code that books holds a lock on the platform, and the index `bookings_once`
refuses a second booking. Every function works in the caller's transaction. `booking_changes` has what people change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, RowMapping, text

from phantoms_dagster.domain.claims import PostTime
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import (
    GRACE,
    HORIZON_DAYS,
    DayLimit,
    MissedPolicy,
    PlannedPost,
    earliest_at_distance,
    next_free,
    slot_times,
)
from phantoms_dagster.store.stored import channel_of

Limits = Mapping[Platform, Sequence[DayLimit]]

# One lock for each platform, because its quotas are shared by its accounts. In a fixed order, so that two callers cannot deadlock.
_LOCK = text(
    """
    SELECT pg_advisory_xact_lock(h.hash) FROM (
        SELECT hashtextextended('bookings:' || p, 0) AS hash FROM unnest(CAST(:platforms AS text[])) AS p ORDER BY 1 OFFSET 0) h
    """
)
BEGUN = """EXISTS (SELECT FROM phantoms.posts o WHERE o.video_id = s.video_id AND o.platform || '/post' = s.stage
            AND NOT o.duplicate AND o.state NOT IN ('intent', 'failed'))"""
# The posts of these videos, with their bookings, in the order of the ids.
_BOOKABLE = text(
    f"""
    SELECT v.id, v.key, v.publish_at, c.config::text AS channel, split_part(s.stage, '/', 1) AS platform,
        b.at, b.kind, b.state, b.note, b.why, clock_timestamp() AS now
    FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS w(id, place)
    JOIN phantoms.videos v ON v.id = w.id
    JOIN phantoms.channels c ON c.name = v.channel
    JOIN phantoms.stages s ON s.video_id = v.id AND right(s.stage, 5) = '/post' AND s.state NOT IN ('done', 'discarded')
    LEFT JOIN phantoms.bookings b ON b.video_id = v.id AND b.platform = split_part(s.stage, '/', 1)
    WHERE (:begun OR NOT {BEGUN}) ORDER BY w.place, s.stage
    """
)
# A post that was given up needs no slot. A replay books another one.
_GIVEN_UP = text(
    """
    DELETE FROM phantoms.bookings b
    WHERE b.platform = ANY(:platforms) AND b.at > :now AND b.state IN ('booked', 'repeat') AND NOT EXISTS (
        SELECT FROM phantoms.stages s WHERE s.video_id = b.video_id AND s.stage = b.platform || '/post' AND s.state <> 'discarded')
    """
)
# Everything that is published or planned on a platform. A fixed time of a brief counts, whether it is approved or not.
_PLANNED = text(
    """
    SELECT b.video_id, b.account, b.at FROM phantoms.bookings b
    WHERE b.platform = :platform AND b.at >= :low AND b.state IN ('booked', 'repeat') AND NOT EXISTS (
        SELECT FROM phantoms.posts p WHERE p.video_id = b.video_id AND p.platform = b.platform AND NOT p.duplicate
            AND p.published_at IS NOT NULL)
    UNION ALL
    SELECT p.video_id, p.account, p.published_at FROM phantoms.posts p
    WHERE p.published_at >= :low AND p.platform = :platform AND NOT p.duplicate
    UNION ALL
    SELECT v.id, c.config->'accounts'->>:platform, v.publish_at
    FROM phantoms.videos v JOIN phantoms.channels c ON c.name = v.channel
    JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = :platform || '/post'
        AND s.state IN ('blocked', 'ready', 'running', 'deferred')
    WHERE v.publish_at >= :low AND v.retired_at IS NULL
        AND NOT EXISTS (SELECT FROM phantoms.bookings b WHERE b.video_id = v.id AND b.platform = :platform)
        AND NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.video_id = v.id AND p.platform = :platform AND NOT p.duplicate
            AND p.published_at IS NOT NULL)
    """
)
_BOOK = text(
    """
    INSERT INTO phantoms.bookings AS b (video_id, platform, account, at, kind, state, note)
    SELECT g.video_id, g.platform, g.account, g.at, g.kind, g.state, g.note
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS g(video_id bigint, platform text, account text, at timestamptz, kind text, state text, note text)
    ON CONFLICT (video_id, platform) DO UPDATE
    SET account = excluded.account, at = excluded.at, kind = excluded.kind, state = excluded.state, note = excluded.note,
        why = NULL, sequence = b.sequence + 1, updated_at = clock_timestamp()
    """
)
_MISS = text(
    """
    INSERT INTO phantoms.missed_slots (video_id, platform, account, at, why, policy)
    VALUES (:video_id, :platform, :account, :at, :why, :policy)
    """
)
# What is known about a post whose time has passed.
_WHY = text(
    """
    SELECT b.why, b.note, s.ready_at,
        (SELECT a.message FROM phantoms.attempts a WHERE a.video_id = s.video_id AND a.stage = s.stage AND a.message IS NOT NULL
            AND a.finished_at >= b.at - interval '1 hour' ORDER BY a.id DESC LIMIT 1) AS failed
    FROM phantoms.bookings b JOIN phantoms.stages s ON s.video_id = b.video_id AND s.stage = b.platform || '/post'
    WHERE b.video_id = :video_id AND b.platform = :platform
    """
)
_GIVE_BACK = text(
    f"""
    DELETE FROM phantoms.bookings b USING phantoms.stages s
    WHERE b.video_id = ANY(:ids) AND s.video_id = b.video_id AND s.stage = b.platform || '/post' AND NOT {BEGUN}
    """
)
# A post that waits for its time or for a person is due at once. One that waits for something else goes on waiting. A run that holds
# the post may have read the old time a moment ago, so the post is due again when the run says that it waits: see `outcomes`.
WAITS_FOR_TIME = "({message} LIKE 'goes out at %' OR {error_class} = 'person')"
_READ_TIME = text(
    f"""
    UPDATE phantoms.stages
    SET ready_at = CASE WHEN state = 'ready' THEN GREATEST(clock_timestamp(), :at) ELSE ready_at END,
        retry_at = CASE WHEN state = 'ready' THEN retry_at ELSE clock_timestamp() END, updated_at = clock_timestamp()
    WHERE video_id = :id AND stage LIKE :stages AND (state IN ('ready', 'running')
        OR (state = 'deferred' AND {WAITS_FOR_TIME.format(message="reason", error_class="error_class")}))
    """
)
_BEFORE_COMMIT = """NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.video_id = b.video_id AND p.platform = b.platform
        AND NOT p.duplicate AND p.state NOT IN ('intent', 'opened', 'uploading', 'failed'))"""
_FOLLOW = text(f"DELETE FROM phantoms.bookings b WHERE b.video_id = :id AND b.state <> 'repeat' AND {_BEFORE_COMMIT}")
_STILL_REPEATS = text(
    f"""
    UPDATE phantoms.bookings b
    SET at = COALESCE(:publish_at, b.at), kind = CASE WHEN :publish_at IS NULL THEN b.kind ELSE 'fixed' END,
        sequence = b.sequence + 1, updated_at = clock_timestamp()
    WHERE b.video_id = :id AND b.state = 'repeat' AND {_BEFORE_COMMIT}
    """
)
_LATE = timedelta(minutes=1)


@dataclass(frozen=True)
class Booked:
    """A booking that was just made. `full`: why earlier slots were passed over, in words. `state`: `booked`, or why it waits."""

    key: str
    platform: Platform
    at: datetime
    timezone: str
    state: str = "booked"
    note: str = ""
    full: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The platform and the time in the channel's time zone, with the note."""
        local = self.at.astimezone(ZoneInfo(self.timezone))
        time = f"{local:%a} {local.day} {local:%b %Y, %H:%M %Z}"
        when = {
            "booked": time,
            "cancelled": "taken out of the calendar until you move it",
            "repeat": f"{time}, but only if `phantoms calendar override {self.key}` allows it",
        }.get(self.state, "waits for your decision")
        return f"{self.platform.title}: {when}{f' ({self.note})' if self.note else ''}"


@dataclass
class BookablePost:
    """A post that can be booked. `at`, `kind`, `state`, `note`: its present booking; `at` is None without one."""

    video_id: int
    key: str
    channel: Channel
    platform: Platform
    publish_at: datetime | None
    now: datetime
    at: datetime | None
    kind: str
    state: str
    note: str

    @property
    def account(self) -> str:
        """The channel's account; empty when it has none."""
        return self.channel.accounts.get(self.platform, "")


class Books:
    """The bookings of some platforms, locked until the transaction ends."""

    def __init__(self, connection: Connection, platforms: Iterable[Platform], limits: Limits, now: datetime) -> None:
        self._connection = connection
        self._limits = limits
        self._now = now
        names = sorted({str(platform) for platform in platforms})
        connection.execute(_LOCK, {"platforms": names})
        connection.execute(_GIVEN_UP, {"platforms": names, "now": now})
        self._planned: dict[Platform, dict[int, list[PlannedPost]]] = {}
        self._times: dict[tuple[str, Platform, datetime], Iterator[datetime]] = {}

    def next_slot(self, post: BookablePost, *, after: datetime | None = None) -> Booked | None:
        """Book the next free slot after `after` (default: now). None when there is none within HORIZON_DAYS, or no account."""
        after = max(after or self._now, self._now)
        channel, platform = post.channel, post.platform
        # Slots are given away in order, so the search for another video of the channel goes on where this one ends.
        times = self._times.setdefault(
            (channel.name, platform, after), slot_times(channel.slots, platform, channel.timezone, after)
        )
        found = next_free(
            times,
            platform,
            post.account,
            others=self._others(post),
            distance=timedelta(minutes=channel.min_distance_minutes),
            limits=self._limits.get(platform, ()),
        )
        if found is None:
            return None
        said = "; ".join((*found.full, "the next day's slot was taken")) if found.full else ""
        self.write(post, found.at, kind="slot", note=said)
        return Booked(post.key, platform, found.at, channel.timezone, note=said, full=found.full)

    def as_soon_as_possible(self, post: BookablePost) -> Booked:
        """Book the first time from now on that has its distance to the account's other posts."""
        distance = timedelta(minutes=post.channel.min_distance_minutes)
        at = earliest_at_distance(post.account, self._now, others=self._others(post), distance=distance)
        self.write(post, at, kind="now")
        return Booked(post.key, post.platform, at, post.channel.timezone)

    def write(self, post: BookablePost, at: datetime, *, kind: str, state: str = "booked", note: str = "") -> None:
        """Save a booking in place of the present one. A post that repeats another one still waits for a person."""
        if post.state == "repeat" and state == "booked":
            state, note = "repeat", post.note
        row = {"video_id": post.video_id, "platform": post.platform, "account": post.account, "at": at.isoformat()}
        self._connection.execute(_BOOK, {"rows": json.dumps([{**row, "kind": kind, "state": state, "note": note}])})
        mine = self._of(post.platform)
        mine[post.video_id] = [PlannedPost(post.account, at)] if state in ("booked", "repeat") else []

    def _others(self, post: BookablePost) -> list[PlannedPost]:
        return [one for video, found in self._of(post.platform).items() if video != post.video_id for one in found]

    def _of(self, platform: Platform) -> dict[int, list[PlannedPost]]:
        """What is published or planned on the platform, by video."""
        if platform not in self._planned:
            self._planned[platform] = planned_posts(self._connection, platform, self._now)
        return self._planned[platform]


def bookable(connection: Connection, ids: Sequence[int]) -> list[BookablePost]:
    """The posts of these videos that have not begun. Raises UnreadableRow."""
    return [_bookable(row) for row in connection.execute(_BOOKABLE, {"ids": list(ids), "begun": False}).mappings()]


def posts_of(connection: Connection, video_id: int) -> list[BookablePost]:
    """The posts of a video that are not done. Raises UnreadableRow."""
    return [_bookable(row) for row in connection.execute(_BOOKABLE, {"ids": [video_id], "begun": True}).mappings()]


def planned_posts(connection: Connection, platform: Platform, now: datetime) -> dict[int, list[PlannedPost]]:
    """What is published since two days ago or planned on the platform, by video."""
    found: dict[int, list[PlannedPost]] = {}
    for row in connection.execute(_PLANNED, {"platform": str(platform), "low": now - timedelta(days=2)}):
        found.setdefault(row.video_id, []).append(PlannedPost(row.account or "", row.at))
    return found


def book_approved(connection: Connection, ids: Sequence[int], limits: Limits) -> list[Booked]:
    """Book the posts of approved videos whose channels have slots and whose briefs have no time. Raises UnreadableRow.

    A post that is booked already keeps its booking, unless its time has passed.
    """
    posts = [post for post in bookable(connection, ids) if _wants_slot(post)]
    if not posts:
        return []
    books = Books(connection, [post.platform for post in posts], limits, posts[0].now)
    # A person may have moved or cancelled one of them before the lock was ours.
    return [book_or_wait(books, post) for post in bookable(connection, ids) if _wants_slot(post)]


def give_back(connection: Connection, ids: Sequence[int]) -> None:
    """Delete the bookings of these videos' posts that have not begun, because the videos were rejected."""
    connection.execute(_GIVE_BACK, {"ids": list(ids)})


def follow_brief(connection: Connection, video_id: int, publish_at: datetime | None, platforms: Iterable[Platform]) -> None:
    """Let the brief's new time apply to all posts that are before their commit. A post that repeats another one still waits.

    `platforms`: where the video is posted. A runner that is booking one of these posts at this moment is waited for, because its
    booking would replace the new time.
    """
    connection.execute(_LOCK, {"platforms": [str(platform) for platform in platforms]})
    values = {"id": video_id, "publish_at": publish_at}
    connection.execute(_FOLLOW, values)
    connection.execute(_STILL_REPEATS, values)


def read_time_again(connection: Connection, video_id: int, at: datetime | None, platform: Platform | None = None) -> None:
    """Let the video's waiting posts read their time again, or only the one on `platform`. `at`: their new time."""
    connection.execute(_READ_TIME, {"id": video_id, "at": at, "stages": f"{platform or '%'}/post"})


def book_or_wait(books: Books, post: BookablePost, *, after: datetime | None = None) -> Booked:
    """Book the next free slot. When there is none, the post waits for a person."""
    booked = books.next_slot(post, after=after)
    if booked is not None:
        return booked
    note = f"no slot is free within {HORIZON_DAYS} days"
    at = post.at or post.now
    books.write(post, at, kind="slot", state="missed", note=note)
    return Booked(post.key, post.platform, at, post.channel.timezone, "missed", note)


def time_of(connection: Connection, video_id: int, platform: Platform, limits: Limits, now: datetime) -> PostTime:
    """When a post may go out. Books it if it should have a slot and has none, and decides what follows from a missed slot."""
    post = next((one for one in bookable(connection, [video_id]) if one.platform is platform), None)
    if post is None:
        return PostTime()
    post.now = now
    books = Books(connection, [platform], limits, now)
    # Another process may have booked it before the lock was ours.
    post = next((one for one in bookable(connection, [video_id]) if one.platform is platform), None)
    if post is None:
        return PostTime()
    post.now = now
    if post.at is None and _wants_slot(post):
        return _time(post, book_or_wait(books, post))
    if post.at is not None and is_missed(post.at, post.kind, post.state, now):
        return _time(post, _missed(connection, books, post))
    return PostTime(post.at or post.publish_at, waits_because(post.key, post.state, post.note) if post.at is not None else "")


def is_missed(at: datetime, kind: str, state: str, now: datetime) -> bool:
    """Whether a booking has passed by so much that the channel's policy decides."""
    return state == "booked" and kind != "now" and now > at + GRACE


def waits_because(key: str, state: str, note: str) -> str:
    """Why a post with a booking in that state waits for a person; empty when it does not."""
    move = f"decide with `phantoms calendar move {key} now`, `next` or a time"
    if state == "missed":
        return f"waits for your decision, because its slot was missed ({note}): {move}"
    if state == "cancelled":
        return f"taken out of the calendar{f' ({note})' if note else ''}: {move.replace('decide', 'put it back')}"
    if state == "repeat":
        return f"waits for your decision, because {note}: allow it with `phantoms calendar override {key}`"
    return ""


def _missed(connection: Connection, books: Books, post: BookablePost) -> Booked:
    """Carry out the channel's policy for a missed slot, and keep why it was missed."""
    assert post.at is not None
    known = connection.execute(_WHY, {"video_id": post.video_id, "platform": str(post.platform)}).mappings().one()
    why = _why(known, post.at)
    policy = post.channel.missed
    miss(connection, post, why, policy=policy)
    if policy == "ask":
        books.write(post, post.at, kind=post.kind, state="missed", note=why)
        return Booked(post.key, post.platform, post.at, post.channel.timezone, "missed", why)
    if policy == "next" and post.channel.has_slots(post.platform):
        return book_or_wait(books, post)
    return books.as_soon_as_possible(post)


def miss(connection: Connection, post: BookablePost, why: str, *, policy: MissedPolicy) -> None:
    """Keep that the slot of a post was missed, why, and what follows."""
    row = {"video_id": post.video_id, "platform": str(post.platform), "account": post.account, "at": post.at}
    connection.execute(_MISS, {**row, "why": why, "policy": policy})


def _why(known: RowMapping, at: datetime) -> str:
    """Why a post did not go out at its time, in words."""
    if known["why"] or known["failed"]:
        return str(known["why"] or known["failed"])
    if known["ready_at"] is not None and known["ready_at"] > at + _LATE:
        return f"the post was ready only at {known['ready_at']:%Y-%m-%d %H:%M} UTC"
    return "no run took it up in time: Phantoms was not running, or all of its workers were busy"


def _wants_slot(post: BookablePost) -> bool:
    kept = post.at is not None and (post.state != "booked" or post.at > post.now)
    return not kept and post.publish_at is None and bool(post.account) and post.channel.has_slots(post.platform)


def _time(post: BookablePost, booked: Booked) -> PostTime:
    return PostTime(booked.at, waits_because(post.key, booked.state, booked.note))


def _bookable(row: RowMapping | Mapping[str, Any]) -> BookablePost:
    return BookablePost(
        video_id=row["id"],
        key=row["key"],
        channel=channel_of(row["key"], row["channel"]),
        platform=Platform(row["platform"]),
        publish_at=row["publish_at"],
        now=row["now"],
        at=row["at"],
        kind=row["kind"] or "",
        state=row["state"] or "",
        note=row["note"] or "",
    )
