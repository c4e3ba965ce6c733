"""The calendar: what is scheduled and what was published when. Indexes find videos by publish time and by the times of posts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import booking_stamp
from phantoms_dagster.store.stored import channel_of

MOST = 2_000
# The limit for videos planned in a period, and for those published in it.
MOST_SLOTS = 1_000
# How long posts of past days are cached, and for how many periods.
OVER_SECONDS, MOST_KEPT = 300.0, 16

_ENTRY = """v.key, v.title, v.channel, v.platforms, v.publish_at,
        (SELECT jsonb_object_agg(s.stage, jsonb_build_object('state', s.state, 'reason', s.reason))
            FROM phantoms.stages s
            WHERE s.video_id = v.id AND (s.stage LIKE '%/post' OR s.state IN ('failed', 'rejected'))) AS stages,
        (SELECT jsonb_object_agg(p.platform, jsonb_build_object('at', p.published_at, 'url', p.url, 'account', p.account, 'after',
                (SELECT h.state FROM phantoms.post_changes h WHERE h.post_id = p.id ORDER BY h.id DESC LIMIT 1)))
            FROM phantoms.posts p WHERE p.video_id = v.id AND NOT p.duplicate AND p.published_at IS NOT NULL) AS posts,
        (SELECT jsonb_object_agg(b.platform, jsonb_build_object('at', b.at, 'state', b.state, 'note', b.note))
            FROM phantoms.bookings b WHERE b.video_id = v.id) AS bookings"""
_BETWEEN = text(
    f"""
    WITH found AS (
        (SELECT id FROM phantoms.videos WHERE publish_at >= :low AND publish_at < :high ORDER BY publish_at LIMIT :most)
        UNION
        (SELECT video_id FROM phantoms.bookings WHERE at >= :low AND at < :high ORDER BY at LIMIT :most)
        UNION
        (SELECT video_id FROM phantoms.posts WHERE published_at >= :low AND published_at < :high ORDER BY published_at LIMIT :most)
    )
    SELECT {_ENTRY} FROM found f JOIN phantoms.videos v ON v.id = f.id
    WHERE v.retired_at IS NULL AND (:channel = '' OR v.channel = :channel)
    """
)
# Only the times of videos. A video is at each time for which posts of it are booked, and at its first published post.
_MINE = "v.retired_at IS NULL AND (:channel = '' OR v.channel = :channel)"
# A video is at the time of its brief while a post that is not out has no booking. A booking counts, whatever the brief says.
_PLANNED = text(
    f"""
    SELECT v.id, v.key, v.channel, v.publish_at, CASE WHEN NOT EXISTS (SELECT FROM phantoms.bookings b WHERE b.video_id = v.id)
        THEN (SELECT min(p.published_at) FROM phantoms.posts p WHERE p.video_id = v.id AND NOT p.duplicate) END AS out_at
    FROM phantoms.videos v WHERE v.publish_at >= :low AND v.publish_at < :high AND {_MINE}
        AND (NOT EXISTS (SELECT FROM phantoms.bookings b WHERE b.video_id = v.id)
            OR EXISTS (SELECT FROM unnest(v.platforms) AS w(name)
                WHERE NOT EXISTS (SELECT FROM phantoms.bookings b WHERE b.video_id = v.id AND b.platform = w.name)
                AND NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.video_id = v.id AND p.platform = w.name
                    AND NOT p.duplicate AND p.published_at IS NOT NULL)))
    ORDER BY v.publish_at LIMIT :most
    """
)
_BOOKED = text(
    f"""
    SELECT DISTINCT v.id, v.key, v.channel, b.at AS publish_at, NULL::timestamptz AS out_at
    FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
    WHERE b.at >= :low AND b.at < :high AND {_MINE} AND NOT EXISTS (SELECT FROM phantoms.posts p
        WHERE p.video_id = b.video_id AND p.platform = b.platform AND NOT p.duplicate AND p.published_at IS NOT NULL)
    ORDER BY b.at LIMIT :most
    """
)
_POSTED = text(
    f"""
    SELECT v.id, v.key, v.channel, v.publish_at, p.published_at AS out_at
    FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.published_at >= :low AND p.published_at < :high AND NOT p.duplicate AND {_MINE}
        AND NOT EXISTS (SELECT FROM phantoms.posts e
            WHERE e.video_id = p.video_id AND NOT e.duplicate AND (e.published_at, e.id) < (p.published_at, p.id))
    ORDER BY p.published_at LIMIT :most
    """
)
_THESE = text(f"SELECT v.id, {_ENTRY} FROM phantoms.videos v WHERE v.id = ANY(:ids)")
_ONE = text(f"SELECT {_ENTRY} FROM phantoms.videos v WHERE v.key = :key")
_CHANNELS = text("SELECT name, config FROM phantoms.channels ORDER BY name")


@dataclass(frozen=True)
class CalendarPost:
    """The state of a video's post on one platform. `at`, `url` and `account`: when, where and on which account it was published.

    `after`: what happened to it since (see `domain.post_changes`); empty when nothing did.

    `booked_at` and `waits`: the time of its booking, and why it waits for a person (`missed`, `cancelled`, `repeat`; else empty).
    """

    platform: Platform
    state: str
    cause: str
    at: datetime | None = None
    url: str | None = None
    account: str | None = None
    booked_at: datetime | None = None
    waits: str = ""
    note: str = ""
    after: str = ""

    @property
    def booking(self) -> str:
        """What identifies its present booking. Forms send it back, so that nobody changes a booking that they have not seen."""
        return booking_stamp(self.booked_at, self.waits)


@dataclass(frozen=True)
class Scheduled:
    """A video with the publish time in its brief. `stopped`: why it cannot go out at all, from a stage before its posts."""

    key: str
    title: str
    channel: str
    publish_at: datetime | None
    outings: tuple[CalendarPost, ...]
    stopped: str

    @property
    def cause(self) -> str:
        """Why the video or one of its posts failed; empty when nothing failed."""
        return self.stopped or next((one.cause or one.state for one in self.outings if one.state in ("failed", "rejected")), "")

    @property
    def out_at(self) -> datetime | None:
        """When the first of its posts was published, or None."""
        return min((one.at for one in self.outings if one.at is not None), default=None)

    @property
    def planned_at(self) -> datetime | None:
        """When its next post goes out by its bookings, or by its brief; None when it has no time.

        Posts that wait for a person count only when all do.
        """
        waiting = [one for one in self.outings if one.platform in self.waits]
        waiting = [one for one in waiting if not one.waits] or waiting
        return min((at for one in waiting if (at := one.booked_at or self.publish_at) is not None), default=self.publish_at)

    @property
    def parts(self) -> tuple[Scheduled, ...]:
        """The video once for each time in the calendar, with the posts of that time. Posts that are out share the first one's time.

        A post without a booking has the time of the brief, or else that of the first booked post. A video without bookings has one
        part.
        """
        if all(one.booked_at is None for one in self.outings):
            return (self,)
        waiting = set(self.waits)
        first = self.planned_at
        times: dict[datetime | None, list[CalendarPost]] = {}
        for one in self.outings:
            times.setdefault((one.booked_at or self.publish_at or first) if one.platform in waiting else None, []).append(one)
        return tuple(replace(self, outings=tuple(posts)) for posts in times.values())

    @property
    def person(self) -> str:
        """Why its posts wait for a person, or were taken out; empty when none does. Names the platforms unless all of them wait."""
        why: dict[str, list[str]] = {}
        for one in self.outings:
            if one.waits:
                why.setdefault(f"{_WAITS[one.waits]}{f': {one.note}' if one.note else ''}", []).append(one.platform.title)
        if len(why) == 1 and all(one.waits for one in self.outings):
            return next(iter(why))
        return "; ".join(f"{', '.join(titles)}: {reason}" for reason, titles in why.items())

    @property
    def since(self) -> str:
        """What happened to its posts since they were published, such as "taken down (TikTok)"; empty when nothing did."""
        found: dict[str, list[str]] = {}
        for one in self.outings:
            if one.after:
                found.setdefault(one.after.replace("_", " "), []).append(one.platform.title)
        return ", ".join(f"{state} ({', '.join(titles)})" for state, titles in found.items())

    @property
    def held(self) -> bool:
        """Whether all of its posts that are not out wait for a person, or were taken out."""
        waiting = [one for one in self.outings if one.platform in self.waits]
        return bool(waiting) and all(one.waits for one in waiting)

    @property
    def left(self) -> str:
        """The platforms on which it is not out, although it is out on others; else empty."""
        return ", ".join(platform.title for platform in self.waits) if any(one.at for one in self.outings) else ""

    @property
    def waits(self) -> tuple[Platform, ...]:
        """The platforms on which it is not published yet."""
        return tuple(one.platform for one in self.outings if one.at is None and one.state != "done")


_WAITS = {
    "missed": "its slot was missed",
    "repeat": "it may repeat an earlier post",
    "cancelled": "it was taken out of the calendar",
}


class CalendarSlot(NamedTuple):
    """A time of a video by a booking or its brief, or, with `out_at`, when the first of its posts was published."""

    id: int
    key: str
    channel: str
    publish_at: datetime | None
    out_at: datetime | None


class Calendar:
    """Reads the calendar. Posts of past days are cached for some minutes, because a month has thousands of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._over: dict[tuple[datetime, datetime, str], tuple[float, list[CalendarSlot]]] = {}

    def channels(self) -> dict[str, Channel]:
        """The stored channels by name. Raises UnreadableRow."""
        with self._engine.connect() as connection:
            return {row.name: channel_of(f"videos of {row.name}", row.config) for row in connection.execute(_CHANNELS)}

    def between(self, low: datetime, high: datetime, *, channel: str = "") -> list[Scheduled]:
        """The videos scheduled for, or published in, `[low, high)`. Unordered, at most MOST."""
        values = {"low": low, "high": high, "channel": channel, "most": MOST}
        with self._engine.connect() as connection:
            return [_scheduled(row) for row in connection.execute(_BETWEEN, values).mappings()]

    def slots(self, low: datetime, high: datetime, *, channel: str = "") -> tuple[list[CalendarSlot], bool]:
        """The times of the videos in `[low, high)`, unordered, and whether there are more than were returned."""
        with self._engine.connect() as connection:
            values = {"low": low, "high": high, "channel": channel, "most": MOST_SLOTS}
            planned = [CalendarSlot(*row) for statement in (_PLANNED, _BOOKED) for row in connection.execute(statement, values)]
            today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            over = self._posted_before(connection, low, min(high, today), channel) if low < today else []
            left = {**values, "low": max(low, today), "most": MOST_SLOTS - len(over)}
            posted = over + [CalendarSlot(*row) for row in connection.execute(_POSTED, left)] if high > today else over
        found = {(slot.id, None if slot.out_at else slot.publish_at): slot for slot in (*planned, *posted)}
        return list(found.values()), max(len(planned), len(posted)) >= MOST_SLOTS

    def _posted_before(self, connection: Connection, low: datetime, until: datetime, channel: str) -> list[CalendarSlot]:
        """The first posts of videos in the past period `[low, until)`, from a cache of at most OVER_SECONDS."""
        key = (low, until, channel)
        kept = self._over.get(key)
        if kept is not None and monotonic() - kept[0] < OVER_SECONDS:
            return kept[1]
        values = {"low": low, "high": until, "channel": channel, "most": MOST_SLOTS}
        found = [CalendarSlot(*row) for row in connection.execute(_POSTED, values)]
        self._over = dict([*self._over.items(), (key, (monotonic(), found))][-MOST_KEPT:])
        return found

    def these(self, ids: Sequence[int]) -> dict[int, Scheduled]:
        """Videos with the states of their posts, by id."""
        if not ids:
            return {}
        with self._engine.connect() as connection:
            return {row["id"]: _scheduled(row) for row in connection.execute(_THESE, {"ids": list(ids)}).mappings()}

    def one(self, key: str) -> Scheduled | None:
        """One video, whether it has a publish time or not; None when there is none with that key."""
        with self._engine.connect() as connection:
            row = connection.execute(_ONE, {"key": key}).mappings().one_or_none()
        return _scheduled(row) if row is not None else None


def _scheduled(row: RowMapping) -> Scheduled:
    stages: Mapping[str, Any] = row["stages"] or {}
    posts: Mapping[str, Any] = row["posts"] or {}
    bookings: Mapping[str, Any] = row["bookings"] or {}
    outings = []
    for name in row["platforms"]:
        booked = bookings.get(name)
        post, stage = posts.get(name), stages.get(f"{name}/post", {})
        variant = stages.get(f"{name}/variant", {})
        failed = stage if stage.get("state") in ("failed", "rejected") or not variant else variant
        state = failed.get("state", "blocked")
        outings.append(
            CalendarPost(
                platform=Platform(name),
                state=state,
                cause=(failed.get("reason") or "") if state in ("failed", "rejected") else "",
                at=datetime.fromisoformat(post["at"]) if post else None,
                url=post["url"] if post else None,
                account=post["account"] if post else None,
                after=(post["after"] or "") if post and post["after"] != "public" else "",
                booked_at=datetime.fromisoformat(booked["at"]) if booked else None,
                waits=booked["state"] if booked and booked["state"] != "booked" and not post else "",
                note=booked["note"] if booked else "",
            )
        )
    before = [(n, s) for n, s in stages.items() if "/" not in n and s["state"] in ("failed", "rejected")]
    stopped = f"{before[0][0]} {before[0][1]['state']}: {before[0][1]['reason'] or 'no reason is known'}" if before else ""
    return Scheduled(row["key"], row["title"], row["channel"], row["publish_at"], tuple(outings), stopped)
