"""Reads what is booked, missed and free: the list of `phantoms calendar`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import PlannedPost, next_free, slot_times
from phantoms_dagster.store.bookings import BEGUN, Limits, is_missed, planned_posts, waits_because
from phantoms_dagster.store.stored import channel_of

MOST = 2_000
# How long a missed slot is listed after it.
MISSED_SHOWN = timedelta(days=7)

_NOW = text("SELECT clock_timestamp()")
_CHANNELS = text("SELECT name, config::text FROM phantoms.channels ORDER BY name")
_OUT = """(SELECT p.published_at FROM phantoms.posts p
        WHERE p.video_id = v.id AND p.platform || '/post' = s.stage AND NOT p.duplicate AND p.published_at IS NOT NULL LIMIT 1)"""
# Since when a draft waits for its creator, and what happened to a post after it was published.
_DRAFT = """(SELECT p.updated_at FROM phantoms.posts p
        WHERE p.video_id = v.id AND p.platform || '/post' = s.stage AND NOT p.duplicate AND p.state = 'handed_over' LIMIT 1)"""
_AFTER = """(SELECT h.state FROM phantoms.posts p JOIN phantoms.post_changes h ON h.post_id = p.id
        WHERE p.video_id = v.id AND p.platform || '/post' = s.stage AND NOT p.duplicate ORDER BY h.id DESC LIMIT 1)"""
# What is booked in a period, and everything that waits for a person, whenever it was booked.
_BOOKED = text(
    f"""
    SELECT v.key, v.title, v.channel, b.platform, b.account, b.at, b.kind, b.state, b.note, b.why,
        s.state AS stage, s.reason, {_OUT} AS out_at, {_DRAFT} AS draft,
        {_AFTER} AS after, {BEGUN} AS begun, v.id, b.sequence, b.updated_at
    FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
    JOIN phantoms.stages s ON s.video_id = b.video_id AND s.stage = b.platform || '/post'
    WHERE ((b.at >= :low AND b.at < :high) OR b.state IN ('missed', 'repeat')) AND v.retired_at IS NULL
        AND s.state <> 'discarded' AND (:channel = '' OR v.channel = :channel)
    ORDER BY b.at, b.platform, v.id LIMIT :most
    """
)
# Posts whose time is in their brief.
_FIXED = text(
    f"""
    SELECT v.key, v.title, v.channel, split_part(s.stage, '/', 1) AS platform,
        COALESCE(c.config->'accounts'->>split_part(s.stage, '/', 1), '') AS account, v.publish_at AS at, 'fixed' AS kind,
        'booked' AS state, '' AS note, NULL AS why, s.state AS stage, s.reason, {_OUT} AS out_at, {_DRAFT} AS draft,
        {_AFTER} AS after, {BEGUN} AS begun, v.id,
        0 AS sequence, v.created_at AS updated_at
    FROM phantoms.videos v JOIN phantoms.channels c ON c.name = v.channel
    JOIN phantoms.stages s ON s.video_id = v.id AND right(s.stage, 5) = '/post' AND s.state <> 'discarded'
    WHERE v.publish_at >= :low AND v.publish_at < :high AND v.retired_at IS NULL AND (:channel = '' OR v.channel = :channel)
        AND NOT EXISTS (SELECT FROM phantoms.bookings b WHERE b.video_id = v.id AND b.platform || '/post' = s.stage)
    ORDER BY v.publish_at, s.stage, v.id LIMIT :most
    """
)
_MISSED = text(
    """
    SELECT v.key, v.title, v.channel, m.platform, m.account, m.at, m.why, m.policy
    FROM phantoms.missed_slots m JOIN phantoms.videos v ON v.id = m.video_id
    WHERE m.at >= :low AND (:channel = '' OR v.channel = :channel) ORDER BY m.at, m.id LIMIT :most
    """
)
POLICIES = {"post": "posted as soon as possible", "next": "moved to the next free slot", "ask": "left for a person to decide"}


@dataclass(frozen=True)
class CalendarLine:
    """One time in the calendar.

    `state`: `free`, `booked`, `fixed` (a time that a person chose), `late` (its time has passed), `drafted` (the creator must
    finish it), `posted`, `removed` (it was posted and is not public any more), `failed`, `missed` (its slot has passed, and a
    person must decide), `repeat` (a person must allow it) or `cancelled`. `why`: its reason, in words.
    """

    at: datetime
    channel: str
    platform: Platform
    account: str
    state: str
    key: str | None = None
    title: str | None = None
    why: str = ""
    timezone: str = "UTC"
    video_id: int = 0
    sequence: int = 0
    changed_at: datetime | None = None


@dataclass(frozen=True)
class MissedSlot:
    """A slot that was missed: why, and what followed."""

    at: datetime
    key: str
    title: str
    channel: str
    platform: Platform
    account: str
    why: str
    then: str


@dataclass(frozen=True)
class CalendarList:
    """Everything in a period, in the order of time, and the slots that were missed shortly before."""

    now: datetime
    lines: tuple[CalendarLine, ...]
    missed: tuple[MissedSlot, ...]


class BookedPosts:
    """Reads bookings and slots. `limits`: how many posts a platform takes per day."""

    def __init__(self, engine: Engine, limits: Callable[[], Limits] = dict) -> None:
        self._engine = engine
        self._limits = limits

    def coming(self, *, days: int, channel: str = "", back: timedelta = timedelta(days=1), free: bool = True) -> CalendarList:
        """The posts from `back` ago until `days` from now, what waits for a person, and the free slots. Raises UnreadableRow."""
        with self._engine.connect() as connection:
            now: datetime = connection.execute(_NOW).scalar_one()
            channels = {row.name: channel_of(f"videos of {row.name}", row.config) for row in connection.execute(_CHANNELS)}
            high = now + timedelta(days=days)
            values = {"low": now - back, "high": high, "channel": channel, "most": MOST}
            rows = [*connection.execute(_BOOKED, values).mappings(), *connection.execute(_FIXED, values).mappings()]
            lines = [_line(row, channels, now) for row in rows]
            shown = [one for name, one in channels.items() if channel in ("", name)]
            if free:
                lines += self._free(connection, shown, now, high)
            missed = connection.execute(_MISSED, {**values, "low": now - MISSED_SHOWN}).mappings()
            found = tuple(_missed(row) for row in missed)
        return CalendarList(now, tuple(sorted(lines, key=lambda one: (one.at, one.channel, one.platform))), found)

    def free(self, low: datetime, high: datetime, *, channel: str = "") -> list[CalendarLine]:
        """The free slots of a period, from now on. Raises UnreadableRow."""
        with self._engine.connect() as connection:
            now: datetime = connection.execute(_NOW).scalar_one()
            channels = [
                channel_of(f"videos of {row.name}", row.config)
                for row in connection.execute(_CHANNELS)
                if channel in ("", row.name)
            ]
            return self._free(connection, channels, max(low, now), high)

    def _free(self, connection: Connection, channels: Sequence[Channel], now: datetime, high: datetime) -> list[CalendarLine]:
        """The slots that the next videos can take."""
        planned: dict[Platform, list[PlannedPost]] = {}
        limits = self._limits() if any(channel.slots for channel in channels) else {}
        found = []
        for channel in channels:
            for platform, account in channel.accounts.items():
                if not channel.has_slots(platform):
                    continue
                if platform not in planned:
                    planned[platform] = [one for posts in planned_posts(connection, platform, now).values() for one in posts]
                distance = timedelta(minutes=channel.min_distance_minutes)
                for at in slot_times(channel.slots, platform, channel.timezone, now):
                    if at >= high:
                        break
                    most = limits.get(platform, ())
                    if next_free(iter([at]), platform, account, others=planned[platform], distance=distance, limits=most):
                        found.append(CalendarLine(at, channel.name, platform, account, "free", timezone=channel.timezone))
        return found


def _line(row: RowMapping, channels: Mapping[str, Channel], now: datetime) -> CalendarLine:
    state, why = _state(row, now)
    return CalendarLine(
        at=row["out_at"] or row["at"],
        channel=row["channel"],
        platform=Platform(row["platform"]),
        account=row["account"],
        state=state,
        key=row["key"],
        title=row["title"],
        why=why,
        timezone=channels[row["channel"]].timezone,
        video_id=row["id"],
        sequence=row["sequence"],
        changed_at=row["updated_at"],
    )


def _state(row: RowMapping, now: datetime) -> tuple[str, str]:
    if row["out_at"] is not None or row["stage"] == "done":
        return ("posted", "") if row["after"] in (None, "public") else ("removed", _SINCE[row["after"]])
    if row["draft"] is not None:
        return "drafted", "the draft waits for its creator"
    if row["state"] != "booked":
        return row["state"], waits_because(row["key"], row["state"], row["note"])
    if row["stage"] in ("failed", "rejected"):
        return "failed", row["reason"] or "no reason is known"
    if row["at"] < now:
        missed = not row["begun"] and is_missed(row["at"], row["kind"], row["state"], now)
        waits = row["reason"] or row["why"] or _not_ready(row["stage"])
        return "late", f"{'the slot is missed; ' if missed else ''}{waits}"
    return ("fixed" if row["kind"] == "fixed" else "booked"), row["note"]


_SINCE = {
    "private": "it is no longer public",
    "blocked": "the platform has blocked it",
    "gone": "it is no longer there",
    "taken_down": "it was taken down",
}


def _not_ready(stage: str) -> str:
    return {
        "blocked": "an earlier stage is not done",
        "running": "it is on its way now",
    }.get(stage, "it has not been taken up yet")


def _missed(row: RowMapping) -> MissedSlot:
    given = {name: row[name] for name in ("at", "key", "title", "channel", "account", "why")}
    return MissedSlot(**given, platform=Platform(row["platform"]), then=POLICIES[row["policy"]])
