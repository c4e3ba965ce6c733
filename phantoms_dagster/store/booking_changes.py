"""What people change about bookings: moving a post, taking it out of the calendar, allowing one that repeats another.

A change locks the post's stage and then its row in the ledger, as runners do, and then the bookings of its platform. It is refused
once the ledger says that the post may be out. Before that, the post stage reads the booking again before it sends anything that
publishes, so the change takes effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.posting_slots import booking_stamp
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.bookings import BookablePost, Booked, Books, Limits, book_or_wait, miss, posts_of, read_time_again
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.transactions import persons_transaction

When = datetime | Literal["next", "now"]

_LOCK_STAGES = text(
    """
    SELECT v.id, s.stage, s.state, clock_timestamp() AS now FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.key = :key AND right(s.stage, 5) = '/post' ORDER BY s.stage FOR UPDATE OF s
    """
)
_LOCK_POSTS = text("SELECT platform, state FROM phantoms.posts WHERE video_id = :id AND NOT duplicate ORDER BY id FOR UPDATE")
_BEFORE_COMMIT = (PostState.INTENT, PostState.OPENED, PostState.UPLOADING, PostState.FAILED)


class ChangedMeanwhile(InvalidInput):
    """The booking is no longer the one that the person saw."""


@dataclass(frozen=True)
class Changed:
    """The posts that were changed, with their bookings, and why the others were not."""

    key: str
    booked: tuple[Booked, ...]
    refused: tuple[str, ...] = ()


@dataclass
class _Open:
    """The posts of a video that can still be changed, locked. `books`: the bookings. `refused`: why the others cannot."""

    books: Books
    posts: list[BookablePost] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class BookingChanges:
    """Changes bookings. `limits`: how many posts a platform takes per day.

    `seen`: the bookings that the person saw, as `booking_stamp`s. If one has changed since, nothing is changed: ChangedMeanwhile.
    """

    def __init__(self, engine: Engine, limits: Callable[[], Limits] = dict) -> None:
        self._engine = engine
        self._limits = limits

    def move(
        self, key: str, when: When, actor: Actor, *, platforms: Sequence[Platform] = (), seen: Mapping[Platform, str] | None = None
    ) -> Changed:
        """Book the posts of a video for a time, for `now`, or for the `next` free slot after their present one.

        `platforms`: only these. Raises NotFound, and InvalidInput when nothing can be moved.
        """

        def work(connection: Connection) -> Changed:
            found = _open_posts(connection, key, platforms, seen or {}, self._limits())
            if isinstance(when, datetime) and when <= found.posts[0].now:
                raise InvalidInput("that time is past; give a later one, or `now`")
            booked = [self._booked(found.books, post, when) for post in found.posts]
            _carry_out(connection, "move post", found.posts, booked, actor)
            return Changed(key, tuple(booked), tuple(found.refused))

        return persons_transaction(self._engine, work)

    def cancel(
        self,
        key: str,
        actor: Actor,
        *,
        platforms: Sequence[Platform] = (),
        reason: str = "",
        seen: Mapping[Platform, str] | None = None,
    ) -> Changed:
        """Take the posts of a video out of the calendar. Their slots are free again. Raises NotFound and InvalidInput."""

        def work(connection: Connection) -> Changed:
            found = _open_posts(connection, key, platforms, seen or {}, {})
            booked = []
            for post in found.posts:
                at = post.at or post.publish_at or post.now
                found.books.write(post, at, kind=post.kind or "fixed", state="cancelled", note=reason)
                booked.append(Booked(key, post.platform, at, post.channel.timezone, "cancelled", reason))
            _carry_out(connection, "cancel post", found.posts, booked, actor)
            return Changed(key, tuple(booked), tuple(found.refused))

        return persons_transaction(self._engine, work)

    def override(
        self,
        key: str,
        actor: Actor,
        *,
        platforms: Sequence[Platform] = (),
        reason: str = "",
        seen: Mapping[Platform, str] | None = None,
    ) -> Changed:
        """Allow posts that repeat an earlier one. One whose time has passed takes the next free slot, or goes out now.

        Raises NotFound, and InvalidInput when nothing waits to be allowed.
        """

        def work(connection: Connection) -> Changed:
            found = _open_posts(connection, key, platforms, seen or {}, self._limits())
            waiting = [post for post in found.posts if post.state == "repeat"]
            if not waiting:
                raise InvalidInput(f"no post of {key} waits to be allowed; see `phantoms calendar`")
            booked = []
            for post in waiting:
                assert post.at is not None
                allowed, passed = replace(post, state=""), post.at <= post.now
                if passed and post.kind == "slot" and post.channel.has_slots(post.platform):
                    why = f"it waited until {actor.name} allowed it, because {post.note}"
                    miss(connection, post, why, policy="next")
                    booked.append(book_or_wait(found.books, allowed))
                else:
                    found.books.write(allowed, post.at, kind="now" if passed else post.kind)
                    booked.append(Booked(key, post.platform, max(post.at, post.now), post.channel.timezone))
            _carry_out(connection, "allow repetition", waiting, booked, actor, reason=reason)
            return Changed(key, tuple(booked), tuple(found.refused))

        return persons_transaction(self._engine, work)

    def _booked(self, books: Books, post: BookablePost, when: When) -> Booked:
        if when == "next":
            if not post.channel.has_slots(post.platform):
                raise InvalidInput(
                    f"channel {post.channel.name} has no slots for {post.platform.title}; give a time, or add `slots` to it"
                )
            booked = book_or_wait(books, post, after=post.at or post.publish_at)
        else:
            at = post.now if when == "now" else when
            books.write(post, at, kind="now" if when == "now" else "fixed")
            booked = Booked(post.key, post.platform, at, post.channel.timezone)
        # A new time does not allow a repetition.
        return replace(booked, state="repeat", note=post.note) if (post.state, booked.state) == ("repeat", "booked") else booked


def _open_posts(
    connection: Connection, key: str, platforms: Sequence[Platform], seen: Mapping[Platform, str], limits: Limits
) -> _Open:
    """Lock the posts of a video. Raises NotFound, ChangedMeanwhile, and InvalidInput when none of them can be changed."""
    stages = {row.stage: row for row in connection.execute(_LOCK_STAGES, {"key": key})}
    if not stages:
        raise NotFound(f"no video {key!r}; `phantoms status` lists them")
    video_id = next(iter(stages.values())).id
    ledger: dict[str, PostState] = {}
    for row in connection.execute(_LOCK_POSTS, {"id": video_id}):
        state = PostState(row.state)
        if row.platform not in ledger or ledger[row.platform] in _BEFORE_COMMIT:
            ledger[row.platform] = state
    wanted = platforms or [Platform(stage.removesuffix("/post")) for stage in stages]
    # Locked before the bookings are read: a runner may be deciding about a missed slot at this moment.
    found = _Open(Books(connection, wanted, limits, next(iter(stages.values())).now))
    by_platform = {post.platform: post for post in posts_of(connection, video_id)}
    for platform in wanted:
        stage = stages.get(f"{platform}/post")
        if stage is None:
            raise InvalidInput(f"{key} is not posted on {platform.title}; see `phantoms show {key}`")
        problem = _problem(key, platform, StageState(stage.state), ledger.get(platform))
        if problem is None:
            post = by_platform[platform]
            stamp = booking_stamp(post.at, post.state)
            if seen.get(platform, stamp) != stamp:
                raise ChangedMeanwhile(f"the post of {key} on {platform.title} was changed in the meantime; nothing is changed now")
            found.posts.append(post)
        else:
            found.refused.append(problem)
    if not found.posts:
        raise InvalidInput("; ".join(found.refused))
    return found


def _problem(key: str, platform: Platform, stage: StageState, post: PostState | None) -> str | None:
    """Why a post can no longer be changed, or None."""
    if stage is StageState.DONE or post in (PostState.PUBLISHED, PostState.CONFIRMED):
        return f"{key} is posted on {platform.title}; `phantoms posts takedown {key} {platform}` deletes it there"
    if post is not None and post not in _BEFORE_COMMIT:
        return f"the post of {key} on {platform.title} is past its commit point ({post}), so it may be out already"
    if stage is StageState.DISCARDED:
        return f"the post of {key} on {platform.title} was given up; bring it back with `phantoms retry {key}`"
    if stage in (StageState.FAILED, StageState.REJECTED):
        return (
            f"the post of {key} on {platform.title} has failed; `phantoms show {key}` says why, `phantoms retry {key}` tries again"
        )
    return None


def _carry_out(
    connection: Connection,
    action: str,
    posts: Sequence[BookablePost],
    booked: Sequence[Booked],
    actor: Actor,
    *,
    reason: str = "",
) -> None:
    """Let the posts read their bookings, and note the change in the audit log."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for post, one in zip(posts, booked, strict=True):
        read_time_again(connection, post.video_id, one.at, post.platform)
        was = post.at or post.publish_at
        before[str(post.platform)] = {
            "at": was.isoformat() if was else None,
            "state": post.state or None,
            **({"note": post.note} if post.note else {}),
        }
        after[str(post.platform)] = {"at": one.at.isoformat(), "state": one.state, **({"note": one.note} if one.note else {})}
    if reason:
        after["reason"] = reason
    note(connection, [AuditEntry(actor, action, posts[0].key, before=before, after=after)])
    connection.execute(text(NOTIFY))
